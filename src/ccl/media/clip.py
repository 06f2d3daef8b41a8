"""Clip: media at the edge of the system, as files hold them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Clip:
    """A clip at the edge of the system.

    Args:
        video: (T, H, W, 3) uint8 frames, or None for a clip that is only heard.
        audio: (S,) float32 mono samples in [-1, 1], or None for a clip that is only seen.
        fps: frames a second; where they have times of their own, their count over their duration.
        sample_rate: Hz.
        prompt: one prompt for both streams, spoken words in double quotes.
        id: names the clip in files and messages.
        meta: whatever else is known of it.
        times: (T,) seconds of each picture, the first at 0; None where they follow from `fps`.
    """

    video: np.ndarray | None
    audio: np.ndarray | None
    fps: float = 25.0
    sample_rate: int = 16_000
    prompt: str = ""
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    times: np.ndarray | None = None

    def __repr__(self) -> str:
        parts = [repr(self.id)] if self.id else []
        if self.video is not None and self.video.ndim == 4:
            count, height, width = self.video.shape[:3]
            parts.append(f"{count} pictures of {height} x {width} at {self.fps:g} fps")
        if self.audio is not None:
            parts.append(f"{len(self.audio) / self.sample_rate:.2f} s of sound at {self.sample_rate:,} Hz")
        if self.prompt:
            parts.append(f"prompt {self.prompt if len(self.prompt) <= 80 else self.prompt[:77] + '...'!r}")
        parts += [f"note: {note}" for note in self.meta.get("notes") or ()]
        return f"Clip({', '.join(parts)})"

    def save(self, path: str | Path) -> None:
        """Write an .mp4, or the sound alone as a .wav; whole or not at all.

        Raises:
            MediaError: the path ends otherwise, or the clip cannot be written.
        """
        from ccl.media.errors import MediaError
        from ccl.media.write import write_clip  # which takes a Clip

        if Path(path).suffix.lower() not in (".mp4", ".wav"):
            raise MediaError(path, "a clip is written as an .mp4, or its sound alone as a .wav")
        write_clip(self, path)


def is_pictures(x: object) -> bool:
    """Whether it is an array (T, H, W, 3) of uint8."""
    return isinstance(x, np.ndarray) and x.ndim == 4 and x.shape[3] == 3 and x.dtype == np.uint8


def is_sound(x: object) -> bool:
    """Whether it is an array (S,) of floats."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind == "f"
