"""Clips longer than a model's: window after window, each given the end of what is there, from which it goes on.

What is there stays as it is. A window shares its first pictures and their sound with the end of what is there; of these
the pictures that are there are kept, and within FADE the sound that is there gives way to the window's. To the left it
is the same the other way round. F pictures, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float32

from ccl.grid import Grid
from ccl.tasks import Term
from ccl.types import AV

FADE = 0.1  # seconds in which one sound gives way to the other
USUAL = 1.0  # seconds that windows share, where the model was trained on no beginnings and so does not say


@dataclass(frozen=True)
class Windows:
    """How windows of one length make one longer clip, a film: video (F, H, W, 3) and audio (S,), None for no stream.

    Args:
        grid: of a window.
        overlap: pictures that each shares with what is there: those of whole latent frames.
        left: whether what is there comes after them.
    """

    grid: Grid
    overlap: int
    left: bool = False

    @staticmethod
    def sharing(seconds: float, there: int, grid: Grid, *, left: bool = False) -> Windows:
        """Windows that share at most so many seconds, no more than the pictures that are there, and half of their own.

        Raises:
            ValueError: that is not one latent frame.
        """
        seconds = min(seconds, there / grid.fps, grid.seconds / 2)
        frames, _ = grid.ending(seconds) if left else grid.beginning(seconds)
        if not frames:
            least = (grid.stride_time if left else 1) / grid.fps
            raise ValueError(f"{seconds:.3g} s are too short for windows to share; a latent frame takes {least:.3g} s")
        return Windows(grid, grid.stride_time * frames - (0 if left else grid.stride_time - 1), left)

    @property
    def new(self) -> int:
        """Pictures that a window adds."""
        return self.grid.frames - self.overlap

    def count(self, there: int, wanted: int) -> int:
        """Windows that bring so many pictures to the number that is wanted."""
        return ceil((wanted - there) / self.new)

    def seams(self, there: int, count: int, frames: int) -> list[int]:
        """Before which pictures windows meet, in a clip of so many pictures of which some were there first."""
        if self.left:
            return sorted(frames - there - self.new * i for i in range(count))
        return [there + self.new * i for i in range(count)]

    def shared(self, film: AV[Any]) -> AV[Any]:
        """The pictures and the sound of a film that the next window shares."""
        if self.left:
            end = self.grid.samples_of(self.overlap)
            return AV.zip(lambda x, count: x[:count], film, AV(self.overlap, end))
        begin = self.grid.samples_of(pictures_of(film, self.grid.fps, self.grid.sample_rate) - self.overlap)
        return AV.zip(lambda x, first: x[first:], film, AV(-self.overlap, begin))

    def joined(self, film: AV[Any], window: AV[Any]) -> AV[Any]:
        """A film with what a window adds."""
        video = audio = None
        if film.video is not None:
            added = window.video[: -self.overlap] if self.left else window.video[self.overlap :]
            video = np.concatenate([added, film.video] if self.left else [film.video, added])
        if film.audio is not None:
            before, after = (window, film) if self.left else (film, window)
            overlap, fade = self.grid.samples_of(self.overlap), round(FADE * self.grid.sample_rate)
            audio = crossfaded(before.audio, after.audio, overlap, min(fade, overlap), late=not self.left)
        return AV(video, audio)


def pictures_of(film: AV[Any], fps: float, sample_rate: int) -> int:
    """How many pictures a film has, or would have beside its sound."""
    return int(len(film.audio) / sample_rate * fps + 1e-6) if film.video is None else len(film.video)


def shared_seconds(term: Term, *, left: bool = False) -> float:
    """How much windows share on a term: as much as it was trained with at most."""
    parts = [part for part in term.parts if part and part.part == ("suffix" if left else "prefix")]
    return min((part.seconds[1] for part in parts if part.seconds), default=USUAL)


def crossfaded(
    before: Float32[np.ndarray, " s"], after: Float32[np.ndarray, " n"], overlap: int, fade: int, *, late: bool
) -> Float32[np.ndarray, " m"]:
    """One sound that gives way to another, whose first samples are the same moments as the last ones of the first.

    Where the two are alike, their weights add up to 1; where they have nothing in common, as the phases that a vocoder
    finds for one speech in two runs, their powers do: else the sound would swell or dip.

    Args:
        before: the first.
        after: the second.
        overlap: samples that they share.
        fade: of these, in which the one gives way; before them all is the first's, after them all the second's.
        late: whether these are the last ones, or the first.
    """
    start = overlap - fade if late else 0
    first = len(before) - overlap + start
    a, b = before[first : first + fade].astype(np.float64), after[start : start + fade].astype(np.float64)
    power = float(np.sqrt((a @ a) * (b @ b)))
    alike = max(0.0, float(a @ b) / power) if power else 1.0
    w = (np.arange(fade) + 0.5) / max(1, fade)
    mixed = ((1 - w) * a + w * b) / np.sqrt((1 - w) ** 2 + w**2 + 2 * alike * w * (1 - w))
    return np.concatenate([before[:first], mixed.astype(np.float32), after[start + fade :]])
