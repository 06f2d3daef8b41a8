"""Face masks in the grid of the latents, from boxes around faces in the pictures.

f pictures, n faces of a picture, t latent frames, h x w latent pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ccl.grid import Grid

FACE_MASK = "face_mask"  # its name in a batch's extras


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
