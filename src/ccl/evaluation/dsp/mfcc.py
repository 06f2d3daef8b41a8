"""Mel-frequency cepstral coefficients as python_speech_features 0.6 computes them by default, in numpy.

SyncNet and Light-ASD were trained on that package's numbers: windows without taper, amplitudes of 16-bit samples, the
log energy in place of the first coefficient. librosa and torchaudio compute something else under the same name.
S samples, T windows of 25 ms every 10 ms, F frequencies, M mel filters.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.fft import dct

_RATE = 16_000  # Hz
_WINDOW, _STEP, _SIZE = 400, 160, 512  # samples: 25 ms every 10 ms, and of the FFT
_FILTERS, _CEPSTRA = 26, 13
_EMPHASIS = 0.97
_LIFTER = 22
_TINY = np.finfo(np.float64).eps  # stands for an energy of zero, whose logarithm there is none of


def mfcc(signal: Shaped[np.ndarray, " s"]) -> Float64[np.ndarray, "t 13"]:
    """Coefficients of a sound; the last window is filled up with zeros.

    Args:
        signal: at 16 kHz, on the scale of 16-bit samples, of any type.

    Raises:
        ValueError: there are no samples.
    """
    if not len(signal):
        raise ValueError("a sound without samples has no MFCC")
    x = signal.astype(np.float64)
    x[1:] -= _EMPHASIS * signal[:-1]  # the first sample stays as it is
    power = np.abs(np.fft.rfft(windows(x, _WINDOW, _STEP), _SIZE)) ** 2 / _SIZE
    energy = power.sum(1)
    mel = power @ filters().T
    cepstra = dct(np.log(np.where(mel == 0, _TINY, mel)), type=2, norm="ortho", axis=1)[:, :_CEPSTRA]
    cepstra *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(_CEPSTRA) / _LIFTER)
    cepstra[:, 0] = np.log(np.where(energy == 0, _TINY, energy))
    return cepstra


def windows(x: Float[np.ndarray, " s"], width: int, step: int) -> Float[np.ndarray, "t w"]:
    """Overlapping stretches of a signal, as many as it takes to see every sample, zeros behind its end."""
    count = 1 + max(0, -(-(len(x) - width) // step))
    padded = np.zeros((count - 1) * step + width, x.dtype)
    padded[: len(x)] = x
    return np.lib.stride_tricks.sliding_window_view(padded, width)[::step]


@cache
def filters() -> Float64[np.ndarray, "m f"]:
    """Triangles over the frequencies of the FFT, even on HTK's mel scale, their corners rounded down to frequencies."""
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    corners = np.floor((_SIZE + 1) * hertz / _RATE)
    left, peak, right = (corners[i : i + _FILTERS, None] for i in range(3))
    at = np.arange(_SIZE // 2 + 1)
    return np.maximum(np.minimum((at - left) / (peak - left), (right - at) / (right - peak)), 0)
