"""Where the faces of the talking world are: exact, for it is what draws them. Nothing is drawn here.

scene.py's text is part of the name of every world that was ever made, so that it is left as it is, and its first draws
of a scene are made here once more; a test holds both to the same ellipses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ccl.data.faces import mask
from ccl.data.world import scene
from ccl.data.world.world import World
from ccl.grid import Grid
from ccl.types import FACE_MASK


def boxes(world: World, index: int) -> Float[np.ndarray, "f n 4"]:
    """Left, top, right and bottom, in pixels, of the face in each picture of a clip: around its ellipse, hair over the
    forehead included, and beyond the picture where the figure is. n is 0 in a clip of an event."""
    grid, subset, rng = world.grid, world.subset(index), world._rng("scene", index)
    if subset == "event":
        return np.zeros((grid.frames, 0, 4))
    x: scene.Number
    y: scene.Number
    if subset == "easy":
        x, y = 24 + rng.uniform(-0.5, 0.5), 22 + rng.uniform(-0.5, 0.5)
        rx, ry = 12.5, 15.0
    else:
        x, lift, _ = scene._motion(world.person(index).motion, np.arange(grid.frames) / grid.fps, rng)
        y = 17.5 + rng.uniform(-1, 1) - lift
        rx, ry = 9.6, 11.0
    edges = np.broadcast_arrays(x - rx, y + 1 - ry, x + rx, y + 1 + ry, np.zeros(grid.frames))[:4]
    unit, middle = min(grid.height, grid.width) / 48, np.array([grid.width, grid.height] * 2) / 2
    return ((np.stack(edges, -1) - 24) * unit + middle)[:, None]


@dataclass(frozen=True)
class Faces:
    """Face masks of a world's clips, by their names; each is made once, when it is first asked for.

    Args:
        world: of the clips, of whatever split.
    """

    world: World
    names: ClassVar[tuple[str, ...]] = (FACE_MASK,)
    _made: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, sample: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
        """What is told of a clip.

        Args:
            sample: its name, as `id`.
            grid: its own, the world's.

        Raises:
            ValueError: this world has no such clip.
        """
        id = sample["id"]
        if id not in self._made:
            self._made[id] = mask(boxes(self.world, number_of(self.world, id)), grid)
        return {FACE_MASK: self._made[id]}


def number_of(world: World, id: str) -> int:
    """The number of a clip of a world. ValueError where it has no clip of that name."""
    number = id.rpartition("-")[2]
    if not number.isdecimal() or world.id(int(number)) != id:
        raise ValueError(f"clip {id} is none of the world's, as {world.id(0)} is")
    return int(number)
