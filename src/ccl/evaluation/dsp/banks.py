"""Mel filter banks, as transformers' audio_utils makes them: triangles over the frequencies of an FFT.

M bands, K = fft / 2 + 1 frequencies from 0 Hz to half the sample rate. Slaney's, of which DNSMOS needs an odd FFT that
transformers does not have, are in slaney.py.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float


@lru_cache(maxsize=16)
def mel_bands(
    scale: Literal["htk", "kaldi"],
    sample_rate: int,
    fft: int,
    bands: int,
    lowest: float = 0.0,
    highest: float | None = None,
) -> Float[np.ndarray, "m k"]:
    """Weights of the bands.

    Args:
        scale: "htk", whose triangles are even over frequencies, as torchaudio's; or "kaldi", whose are even over mels
            (feat/mel-computations.cc).
        sample_rate: Hz.
        fft: samples of a frame, even.
        bands: M.
        lowest: Hz, where the first band begins.
        highest: Hz, where the last band ends; None is half the sample rate.
    """
    from transformers.audio_utils import mel_filter_bank  # late: it takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that narrow low bands hold no frequency, as they do elsewhere
        return mel_filter_bank(
            fft // 2 + 1,
            bands,
            lowest,
            sample_rate / 2 if highest is None else highest,
            sample_rate,
            mel_scale=scale,
            triangularize_in_mel_space=scale == "kaldi",
        ).T
