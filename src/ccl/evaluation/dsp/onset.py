"""Onsets: the moments at which sounds begin, by the defaults of librosa 0.11 (onset_strength, onset_detect, peak_pick).

Strength is the mean rise, over 128 Slaney mel bands, of the level in dB from one frame to the next; onsets are its
peaks (Boeck, Krebs, Schedl, ISMIR 2012). Own code because librosa picks peaks with numba, whose cache on disk breaks
when several processes fill it at once. S samples, N frames of 512 samples, M mel bands.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Int

from ccl.evaluation.dsp.slaney import slaney

WINDOW = 2048  # samples of a frame
HOP = 512  # samples between frames
BANDS = 128
_FLOOR = 1e-10  # power below which nothing is heard
_RANGE = 80.0  # dB below the loudest bin at which all is silence


def onsets(audio: Float32[np.ndarray, " s"], sample_rate: int, delta: float = 0.07) -> Int[np.ndarray, " k"]:
    """Samples, multiples of HOP, at which sounds begin.

    Args:
        audio: mono.
        sample_rate: Hz.
        delta: how far a peak stands above the mean around it, as a share of the clip's highest.
    """
    curve = strength(audio, sample_rate)
    curve = curve - curve.min(initial=0)
    curve = curve / (curve.max(initial=0) + np.finfo(np.float32).tiny)
    if not curve.any() or not np.isfinite(curve).all():
        return np.zeros(0, int)
    short, long = int(0.03 * sample_rate // HOP), int(0.10 * sample_rate // HOP)  # frames of 30 ms and 100 ms
    window = {"pre_max": short, "post_max": 1, "pre_avg": long, "post_avg": long + 1}
    return peak_pick(curve, **window, delta=delta, wait=short) * HOP


def strength(audio: Float32[np.ndarray, " s"], sample_rate: int) -> Float32[np.ndarray, " n"]:
    """Mean rise of the mel bands in dB, from the frame before; frame n belongs to sample n * HOP."""
    power = spectrogram(audio) @ slaney(sample_rate, WINDOW, BANDS).T.astype(np.float32)
    level = 10 * np.log10(np.maximum(power, np.float32(_FLOOR)))
    level = np.maximum(level, level.max() - np.float32(_RANGE))
    rise = np.maximum(np.diff(level, axis=0), 0).mean(axis=1)
    # One frame for the difference, and half a window: a sound is noticed when the window's end reaches it.
    late = np.zeros(1 + WINDOW // (2 * HOP), np.float32)
    return np.concatenate([late, rise])[: len(level)]


def peak_pick(
    curve: Float[np.ndarray, " n"], *, pre_max: int, post_max: int, pre_avg: int, post_avg: int, delta: float, wait: int
) -> Int[np.ndarray, " k"]:
    """Frames n that are the largest of [n - pre_max, n + post_max), at least `delta` above the mean of
    [n - pre_avg, n + post_avg), and more than `wait` after the peak before; windows end where the curve does.
    """
    padded = np.pad(curve, (pre_max, post_max - 1), constant_values=-np.inf)
    highest = np.lib.stride_tricks.sliding_window_view(padded, pre_max + post_max).max(1)
    peaks: list[int] = []
    for n in np.flatnonzero(curve == highest).tolist():
        if peaks and n - peaks[-1] <= wait:
            continue
        if curve[n] >= curve[max(0, n - pre_avg) : n + post_avg].mean() + delta:
            peaks.append(n)
    return np.array(peaks, int)


def spectrogram(audio: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, "n bins"]:
    """Power of Hann windows centred on every HOP-th sample, with silence beyond both ends."""
    padded = np.pad(audio.astype(np.float32), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    return np.abs(scipy.fft.rfft(frames * hann, axis=1)) ** 2
