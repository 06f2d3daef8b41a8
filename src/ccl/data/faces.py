"""Boxes around faces, written down with a clip, and what they are in the grid of the latents.

f pictures, n faces of a picture, t latent frames, h x w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ccl.grid import Grid
from ccl.media import Clip
from ccl.types import FACE_MASK

MOST = 10_000  # boxes of a picture that are believed


@runtime_checkable
class Finder(Protocol):
    """Finds faces; handed in, for it needs a network."""

    @property
    def version(self) -> str:
        """All that the boxes depend on, as a hash of its weights."""
        ...

    def find(self, clip: Clip) -> Sequence[Float[np.ndarray, "n 4"]]:
        """Left, top, right and bottom of the faces in each picture of a clip, in its pixels."""
        ...


def written(faces: Sequence[Float[np.ndarray, "n 4"]]) -> list[list[list[float]]]:
    """Boxes of each picture as a shard's JSON has them: to a tenth of a pixel."""
    return [[[round(float(x), 1) for x in box] for box in boxes] for boxes in faces]


@dataclass(frozen=True)
class Written:
    """Face masks of clips from the boxes that were written down with them."""

    names: ClassVar[tuple[str, ...]] = (FACE_MASK,)

    def __call__(self, sample: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
        """What is told of a clip.

        Args:
            sample: its `faces`, as `written`.
            grid: its own.

        Raises:
            ValueError: it has none for each picture.
        """
        faces = sample.get("faces")
        if not isinstance(faces, list) or len(faces) != grid.frames or not all(map(are_boxes, faces)):
            raise ValueError(f"its faces are no boxes of each of its {grid.frames} pictures")
        boxes = np.zeros((grid.frames, max(map(len, faces)), 4))
        for row, each in zip(boxes, faces, strict=True):
            row[: len(each)] = np.asarray(each, np.float64).reshape(-1, 4)
        return {FACE_MASK: mask(boxes, grid)}


def are_boxes(faces: Any) -> bool:
    """Whether these are four numbers each, and not too many."""
    return (
        isinstance(faces, list)
        and len(faces) <= MOST
        and all(
            isinstance(box, list) and len(box) == 4 and all(type(x) in (int, float) and math.isfinite(x) for x in box)
            for box in faces
        )
    )


def mask(boxes: Float[np.ndarray, "f n 4"], grid: Grid) -> Float[np.ndarray, "t h w"]:
    """The share of each latent pixel, 0 to 1, that faces cover, over the pictures of its latent frame.

    Args:
        boxes: left, top, right and bottom in pixels, what lies outside of the picture included; one without a width is
            no face. Where boxes overlap within a latent pixel, it counts as more than their union, and never above 1.
        grid: of the clip. Its first latent frame holds one picture, the others `stride_time` each.
    """
    left, top, right, bottom = np.moveaxis(np.asarray(boxes, np.float64), 2, 0)
    across = covered(left, right, grid.latent_width, grid.stride_space)
    down = covered(top, bottom, grid.latent_height, grid.stride_space)
    share = np.minimum(np.einsum("fny,fnx->fyx", down, across), 1)
    later = share[1:].reshape(grid.t_v - 1, grid.stride_time, *share.shape[1:]).mean(1)
    return np.concatenate([share[:1], later]).astype(np.float32)


def covered(low: Any, high: Any, count: int, size: int) -> Float[np.ndarray, "f n count"]:
    """The share of each of `count` cells in a row, `size` pixels long, that lies between two places."""
    start = np.arange(count) * size
    return np.clip(np.minimum(high[..., None], start + size) - np.maximum(low[..., None], start), 0, None) / size
