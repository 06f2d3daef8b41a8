"""Resampling: against the windowed-sinc sum written out, torchaudio's numbers, and what a resampler must not do."""

from __future__ import annotations

from math import ceil, cos, gcd, pi, sin

import av
import numpy as np
import pytest

from ccl.media import FFMPEG, TORCHAUDIO
from ccl.media import resample as to_rate

# torchaudio 2.11.0 (torch 2.13.0), torchaudio.functional.resample(x, rate, to) with its defaults, where x is
# numpy.random.default_rng(0).uniform(-1, 1, 1000) as float32: length, samples 0, 1, 57, the middle, the last, and the
# sum of squares. Its float32 times put it up to 1e-4 from the sum below.
NUMBERS = {
    (44_100, 16_000): (363, [-0.182647839, -0.492790401, 0.128260896, 0.189529359, -0.481855243], 35.542820),
    (48_000, 16_000): (334, [-0.224765450, -0.375398576, 0.071707487, 0.302606374, -0.353663027], 30.205742),
    (16_000, 22_050): (1379, [0.267887920, -0.237378508, -0.259814590, -0.788373590, 0.009105029], 408.030945),
}


def resample(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    return to_rate(x, rate, to, TORCHAUDIO)


def naive(x: np.ndarray, rate: int, to: int, n: int) -> float:
    """New sample n: a sinc of cutoff 0.99 of the lower Nyquist rate, under a cosine-squared window of 6 crossings."""
    common = gcd(rate, to)
    rate, to = rate // common, to // common
    cutoff = min(rate, to) * 0.99
    total = 0.0
    for i, value in enumerate(x.tolist()):
        t = (i / rate - n / to) * cutoff
        if abs(t) < 6:
            sinc = sin(pi * t) / (pi * t) if t else 1.0
            total += value * sinc * cos(pi * t / 12) ** 2 * cutoff / rate
    return total


@pytest.mark.parametrize(
    ("rate", "to"),
    [(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (11_025, 16_000), (1000, 519), (9, 7)],
)
def test_every_new_sample_is_the_windowed_sinc_sum(rate, to):
    x = np.random.default_rng(1).uniform(-1, 1, 200).astype(np.float32)
    new = resample(x, rate, to)
    some = np.unique(np.linspace(0, len(new) - 1, 60).astype(int))
    np.testing.assert_allclose(new[some], [naive(x, rate, to, n) for n in some], atol=2e-6)


@pytest.mark.parametrize(("rate", "to"), NUMBERS)
def test_it_gives_torchaudios_numbers(rate, to):
    new = resample(np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32), rate, to)
    length, samples, squares = NUMBERS[rate, to]
    assert len(new) == length
    np.testing.assert_allclose(new[[0, 1, 57, length // 2, -1]], samples, atol=1e-4)
    np.testing.assert_allclose((new.astype(np.float64) ** 2).sum(), squares, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 44_100, 44_101])
@pytest.mark.parametrize(("rate", "to"), [(44_100, 16_000), (48_000, 16_000), (16_000, 48_000), (22_051, 16_000)])
def test_the_length_is_the_duration_rounded_up(rate, to, samples):
    new = resample(np.ones(samples, np.float32), rate, to)
    assert len(new) == ceil(to * samples / rate)
    assert new.dtype == np.float32 and new.flags.c_contiguous


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_its_loudness_and_its_place(rate):
    def tone(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate + 0.3).astype(np.float32)

    inner = slice(200, -200)  # beyond the ends there is silence
    np.testing.assert_allclose(resample(tone(rate), rate, 16_000)[inner], tone(16_000)[inner], atol=2e-3)


def test_what_the_new_rate_cannot_hold_vanishes_instead_of_folding_back():
    high = np.sin(2 * np.pi * 11_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(high, 48_000, 16_000)[200:-200]).max() < 0.01


def test_the_same_rate_changes_nothing_and_the_callers_samples_are_safe():
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    before = x.copy()
    x.flags.writeable = False
    assert np.array_equal(resample(x, 16_000, 16_000), x)
    resample(x[::-1], 44_100, 16_000)
    assert np.array_equal(x, before)
    assert len(resample(np.empty(0, np.float32), 44_100, 16_000)) == 0
    with pytest.raises(ValueError, match="0 and 16000 Hz"):
        resample(x, 0, 16_000)


# The filter of whatever is read ------------------------------------------------------------------------------------


def by_ffmpeg(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    """libswresample itself, as PyAV brings it."""
    frame = av.AudioFrame.from_ndarray(x[None], format="flt", layout="mono")
    frame.sample_rate = rate
    swr = av.AudioResampler(format="flt", layout="mono", rate=to)
    return np.concatenate([part.to_ndarray()[0] for part in swr.resample(frame) + swr.resample(None)])


@pytest.mark.parametrize(("rate", "to"), [(16_000, 44_100), (48_000, 16_000), (44_100, 16_000), (24_000, 44_100)])
def test_what_is_read_changes_its_rate_as_ffmpeg_does(rate, to):
    x = np.random.default_rng(2).uniform(-1, 1, rate // 2).astype(np.float32)
    ours, theirs = to_rate(x, rate, to), by_ffmpeg(x, rate, to)
    assert len(ours) == ceil(to * len(x) / rate)
    inner = slice(to // 50, to // 2 - to // 50)  # at the ends ffmpeg mirrors the sound, where we have silence
    assert np.abs(ours[inner] - theirs[inner]).max() < 2e-3  # of white noise at full scale


def test_both_filters_have_names_for_the_protocols():
    assert "libswresample" in FFMPEG.name and "torchaudio" in TORCHAUDIO.name
