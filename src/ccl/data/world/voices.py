"""Reference voices of the talking world: its speakers, each saying something else. Nothing of a clip is drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from ccl.data.world.faces import number_of
from ccl.data.world.script import draw_sentence
from ccl.data.world.voice import say
from ccl.data.world.world import World
from ccl.grid import Grid
from ccl.types import VOICE, VOICE_SECONDS

_TRIES = 16


def reference(world: World, index: int, seconds: float = VOICE_SECONDS) -> Float32[np.ndarray, " s"]:
    """The beginning of another sentence in the voice of a clip's speaker; silence in a clip of an event."""
    rate = world.grid.sample_rate
    out = np.zeros(round(seconds * rate), np.float32)
    if world.subset(index) == "event":
        return out
    line, rng = world.line(index), world._rng("reference", index)
    others = (draw_sentence(rng, world.split) for _ in range(_TRIES))
    sentence = next((other for other in others if other != line.sentence), line.sentence)
    heard = say(sentence, line.voice, rate).audio[: len(out)]
    out[: len(heard)] = heard
    return out


@dataclass(frozen=True)
class Voices:
    """Reference voices of a world's clips, by their names.

    Args:
        world: of the clips, of whatever split.
    """

    world: World
    names: ClassVar[tuple[str, ...]] = (VOICE,)

    def __call__(self, sample: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
        """What is told of a clip.

        Args:
            sample: its name, as `id`.
            grid: its own, the world's.

        Raises:
            ValueError: this world has no such clip.
        """
        return {VOICE: reference(self.world, number_of(self.world, sample["id"]))}
