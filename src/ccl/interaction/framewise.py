"""Frame beside frame: what of the other stream lies within some latent frames of one's own (Harmony, arXiv 2511.21579).

Audio token j belongs to frame floor(j t_v / t_a): where k = t_a / t_v is whole, i k to i k + k - 1 to frame i.
g groups, k keys of a group.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import (
    Alignment,
    Directions,
    Groups,
    Rescale,
    audio_positions,
    check_rescale,
    frame_queries,
    keyed,
    video_positions,
)
from ccl.types import AV


class Framewise(Alignment):
    """Both ways alike: tokens of frame i, pictures or sound, see those of frames i - window to i + window.

    Args:
        window: frames on either side, fewer at the ends of the clip; 0 is the own frame alone.
        rescale: of the audio positions; see `ccl.interaction.align.audio_positions`.
    """

    def __init__(self, window: int = 1, rescale: Rescale | float = "index") -> None:
        check_rescale(rescale)
        arguments.number("window", window, 0, whole=True)
        self.window, self.rescale = window, rescale

    def groups(self, grid: Grid) -> Directions:
        return Directions(sound_around(grid, self.window), pictures_around(grid, self.window))

    def positions(self, grid: Grid) -> AV[Tensor]:
        return AV(video_positions(grid), audio_positions(grid, self.rescale))


def sound_around(grid: Grid, window: int) -> Groups:
    """For each frame i the audio tokens of frames i - window to i + window."""
    first, end = frames_around(grid, window)
    starts = -(-torch.arange(grid.t_v + 1) * grid.t_a // grid.t_v)  # rounded up: the first token of each frame
    return keyed(*stretches(starts[first], starts[end], grid.t_a))


def pictures_around(grid: Grid, window: int) -> Groups:
    """For the audio tokens of each frame i the video tokens of frames i - window to i + window."""
    frames, inside = stretches(*frames_around(grid, window), grid.t_v)
    size = grid.h * grid.w
    tokens = (frames[..., None] * size + torch.arange(size)).flatten(1)
    queries, back = frame_queries(grid)
    return keyed(tokens, inside.repeat_interleave(size, 1), queries=queries, back=back)


def frames_around(grid: Grid, window: int) -> tuple[Int[Tensor, " g"], Int[Tensor, " g"]]:
    """The first frame that each one sees, and the one behind the last."""
    i = torch.arange(grid.t_v)
    return (i - window).clamp(min=0), (i + window + 1).clamp(max=grid.t_v)


def stretches(
    first: Int[Tensor, " g"], end: Int[Tensor, " g"], count: int
) -> tuple[Int[Tensor, "g k"], Bool[Tensor, "g k"]]:
    """Places `first` to `end` of `count`, as many for each group as the longest has; and which of them it asked for."""
    size = int((end - first).max())
    index = first.clamp(max=count - size)[:, None] + torch.arange(size)
    return index, (index >= first[:, None]) & (index < end[:, None])
