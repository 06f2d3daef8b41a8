"""Whether a model keeps a voice that it is given: the pitch of what it makes against that voice's own.

Clips of the talking world that nobody trained on, each given another sentence of its own speaker. A sentence's pitch is
the speaker's and the sentence's, so that it is compared with the true clip, the speaker saying that very sentence. The
floor is the same clips made of the prompt alone, which says who speaks and whether high or low. S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

FRAME, STEP = 0.04, 0.01  # seconds of a frame, and between two
LOWEST, HIGHEST = 60.0, 400.0  # Hz
VOICED = 0.5  # of a frame's power that must repeat after a period
FIRST = 0.9  # of the strongest repetition: the shortest period that has as much is the voice's, not twice that
LOUD = 0.1  # of the loudest frame's amplitude
NEAR = 1.0  # semitones within which a pitch is kept


def pitch(sound: Float32[np.ndarray, " s"], sample_rate: int) -> float:
    """Median pitch of the voiced frames, Hz, by autocorrelation; NaN where no frame is voiced."""
    size, step = round(FRAME * sample_rate), round(STEP * sample_rate)
    if len(sound) < size:
        return float("nan")
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), size)[::step]
    frames = frames - frames.mean(1, keepdims=True)
    amplitude = np.sqrt((frames**2).mean(1))
    frames = frames[(amplitude > LOUD * amplitude.max()) & (amplitude > 1e-4)]
    if not len(frames):
        return float("nan")
    power = np.abs(np.fft.rfft(frames, 2 * size)) ** 2
    repeats = np.fft.irfft(power)[:, :size]
    repeats /= repeats[:, :1] * (1 - np.arange(size) / size)  # of a shorter and shorter overlap
    least, most = int(sample_rate / HIGHEST), int(sample_rate / LOWEST)
    part = repeats[:, least : most + 1]
    peaks = (part[:, 1:-1] >= part[:, :-2]) & (part[:, 1:-1] > part[:, 2:])
    strength = np.where(peaks, part[:, 1:-1], 0)
    best = strength.max(1)
    lags = least + 1 + (strength >= FIRST * best[:, None]).argmax(1)
    found = best > VOICED
    return float(np.median(sample_rate / lags[found])) if found.any() else float("nan")


@dataclass(frozen=True)
class Kept:
    """How clips sound beside the true ones.

    Args:
        given: of each clip that was given its voice, semitones from the true pitch to its own; NaN where it has none.
        alone: the same of clips made of the prompt alone.
        codec: the same of the true clips through the codec, the ceiling.
    """

    given: Float[np.ndarray, " n"]
    alone: Float[np.ndarray, " n"]
    codec: Float[np.ndarray, " n"]

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        return {name: figures_of(off) for name, off in vars(self).items()}

    def __str__(self) -> str:
        parts = {"pitch kept": "given", "without the voice": "alone", "true clips through the codec": "codec"}
        figures = self.figures
        return "; ".join(f"{name} in {told(figures[part])}" for name, part in parts.items())


def figures_of(off: np.ndarray) -> dict[str, Any]:
    """How many pitches are kept, and how far the median one is off; a clip without a pitch has not kept it."""
    there = np.abs(off[np.isfinite(off)])
    middle = float(np.median(there)) if len(there) else {"not_measured": "no clip has a pitch"}
    return {"kept": int((there <= NEAR).sum()), "clips": len(off), "semitones_off": middle}


def told(figures: dict[str, Any]) -> str:
    off = figures["semitones_off"]
    how = off["not_measured"] if isinstance(off, dict) else f"{off:.2f} semitones off"
    return f"{figures['kept']} of {figures['clips']} ({how})"


def semitones(sounds: Sequence[np.ndarray], true: Sequence[np.ndarray], sample_rate: int) -> Float[np.ndarray, " n"]:
    """From the pitch of each true sound to that of another."""
    pairs = [(pitch(a, sample_rate), pitch(b, sample_rate)) for a, b in zip(sounds, true, strict=True)]
    return np.array([12 * np.log2(a / b) for a, b in pairs])
