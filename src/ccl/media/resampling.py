"""Another sample rate: the one resampler of the project, a windowed sinc as a polyphase filter (scipy's `upfirdn`).

Each new sample is the sum of the old ones around its time, weighted by a sinc below both Nyquist rates under a window.
The kernel says which: FFMPEG, of whatever is read, is that of libswresample; TORCHAUDIO is for measures whose published
code calls torchaudio.functional.resample. S samples, R new samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32


class Kernel(NamedTuple):
    """A windowed sinc.

    Args:
        name: for protocols.
        crossings: zeros of the sinc on each side within the window.
        rolloff: cutoff as a share of the lower Nyquist rate.
        whole_upward: whether a rising rate keeps the whole old band, whatever the rolloff, as far as the new one holds.
        window: of times in -1..1.
    """

    name: str
    crossings: int
    rolloff: float
    whole_upward: bool
    window: Callable[[np.ndarray], np.ndarray]

    def cutoff(self, step: int, phases: int) -> float:
        """In the unit in which the old rate is `step` and the new one `phases`."""
        return float(min(step, phases * self.rolloff) if self.whole_upward else min(step, phases) * self.rolloff)


def _kaiser(t: np.ndarray) -> np.ndarray:
    return np.i0(9 * np.sqrt(1 - t**2)) / np.i0(9.0)


def _hann(t: np.ndarray) -> np.ndarray:
    return np.cos(t * np.pi / 2) ** 2


FFMPEG = Kernel("libswresample's filter (Kaiser, beta 9, 16 zero crossings)", 16, 0.97, True, _kaiser)
TORCHAUDIO = Kernel("torchaudio's filter (Hann, 6 zero crossings)", 6, 0.99, False, _hann)


def resample(
    audio: Float32[np.ndarray, " s"], rate: int, to: int, kernel: Kernel = FFMPEG
) -> Float32[np.ndarray, " r"]:
    """The same sound at `to` samples a second, ceil(to * S / rate) of them; sample 0 stays at time 0.

    Any two rates, also those that share no factor. Beyond both ends there is silence.

    Raises:
        ValueError: a rate is no positive number.
    """
    if rate <= 0 or to <= 0:
        raise ValueError(f"sample rates are positive numbers, not {rate} and {to} Hz")
    audio = np.require(audio, np.float32, ["C"])
    if rate == to or not len(audio):
        return audio
    from scipy.signal import upfirdn

    step, phases = rate // gcd(rate, to), to // gcd(rate, to)
    length = -(-phases * len(audio) // step)
    late, taps = _taps(kernel, step, phases)
    return upfirdn(taps, audio, phases, step)[late : late + length]


@lru_cache(maxsize=8)
def _taps(kernel: Kernel, step: int, phases: int) -> tuple[int, Float32[np.ndarray, " k"]]:
    """By how many new samples the filter is late, and its weights, `step * phases` of them to the unit of time.

    In float64, rounded once. torchaudio's times are float32, which moves its output by about 1e-5, at odd rates 1e-4.
    """
    cutoff = kernel.cutoff(step, phases)
    half = int(kernel.crossings * step * phases / cutoff)
    t = np.arange(-half, half + 1) * (cutoff / (step * phases))  # in zero crossings
    window = kernel.window(np.clip(t / kernel.crossings, -1, 1))
    taps = (np.sinc(t) * window * cutoff / step).astype(np.float32)
    late = -(-half // step)  # zeros in front make the delay whole samples
    return late, np.pad(taps, (late * step - half, 0))
