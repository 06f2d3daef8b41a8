"""Reference voices of own clips: another sound of whoever speaks, which lies beside a clip in its shard."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from ccl.grid import Grid
from ccl.media import Clip, MediaError, read_audio, write_clip
from ccl.types import VOICE, VOICE_SECONDS

FILE = "voice.mp4"  # of a sample, its ending
LOUD = 1e-3  # a sound that never reaches it is no voice


def encoded(sound: Float32[np.ndarray, " s"], sample_rate: int) -> bytes:
    """The beginning of a sound, VOICE_SECONDS of it at most, as a shard keeps it.

    Raises:
        MediaError: it is silent.
    """
    sound = sound[: round(VOICE_SECONDS * sample_rate)]
    if np.abs(sound).max(initial=0.0) < LOUD:
        raise MediaError("the voice", f"nothing is heard in its first {VOICE_SECONDS:g} s")
    file = io.BytesIO()
    write_clip(Clip(None, sound, sample_rate=sample_rate), file)
    return file.getvalue()


@dataclass(frozen=True)
class Kept:
    """Voices of clips as their shards keep them; silence for a clip that has none."""

    names: ClassVar[tuple[str, ...]] = (VOICE,)

    def __call__(self, sample: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
        """What is told of a clip.

        Args:
            sample: its `voice`, as `encoded`.
            grid: its own.

        Raises:
            MediaError: it cannot be read.
        """
        out = np.zeros(round(VOICE_SECONDS * grid.sample_rate), np.float32)
        if "voice" in sample:
            heard = read_audio(sample["voice"], grid.sample_rate)[: len(out)]
            out[: len(heard)] = heard
        return {VOICE: out}
