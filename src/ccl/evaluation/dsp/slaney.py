"""Mel bands on Slaney's scale (Auditory Toolbox, 1998), as librosa has them by default: M bands, K bins of an FFT."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

KNEE = 1000.0  # Hz: below, a mel is 200 / 3 Hz; above, 27 mels are a factor of 6.4
STEP, RATIO = 200 / 3, np.log(6.4) / 27


@lru_cache(maxsize=8)
def slaney(sample_rate: int, fft: int, bands: int) -> Float[np.ndarray, "m k"]:
    """Triangles of equal area from 0 Hz to half the rate, which must be above 1 kHz.

    Args:
        sample_rate: Hz.
        fft: samples of a frame; K is fft // 2 + 1.
        bands: M.
    """
    mels = np.linspace(0, KNEE / STEP + np.log(sample_rate / 2 / KNEE) / RATIO, bands + 2)
    edges = np.where(mels < KNEE / STEP, mels * STEP, KNEE * np.exp(RATIO * (mels - KNEE / STEP)))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.fft.rfftfreq(fft, 1 / sample_rate)
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.maximum(0, triangles) * 2 / (right - left)
