"""Kaldi's filter banks, against torchaudio's numbers, another library and a loop."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from ccl.evaluation.dsp.banks import mel_bands
from ccl.evaluation.dsp.fbank import fbank

# torchaudio 2.11.0 (its pure Python part), compliance.kaldi.fbank of `sweep()`: htk_compat=True, use_energy=False,
# window_type="hanning", num_mel_bins=128, dither=0.0, frame_length=25, frame_shift=10. Made 2026-11-20; tolerance 2e-4.
FRAMES = (0, 1, 50, 99, 150, 197)
BANDS = (0, 1, 5, 20, 40, 64, 100, 127)
TORCHAUDIO = """
-10.28384 -11.13388  -9.70907 -5.54713 -4.07988 -5.49506 -1.07028  0.56657
 -9.45262 -11.68086 -10.43266 -7.50139 -6.21353 -3.42533 -1.48203  0.54957
 -7.86871 -12.28337 -13.24261  2.22299 -5.87634 -5.51966 -0.92059 -0.88258
 -7.41766 -11.95861 -12.52851 -5.90196 -4.61917 -6.54880 -1.01075 -0.10324
 -8.39216 -15.94238 -12.88181 -8.69656 -4.69010 -2.35406 -0.19942  0.38511
 -9.49901 -14.20481 -12.70809 -6.50748 -4.37837 -3.65334 -1.40574  0.05598
"""
TORCHAUDIO_MEAN, TORCHAUDIO_STD = -3.4000735, 3.5965571


def sweep() -> torch.Tensor:
    """Two seconds: a rising tone, a steady one, noise and an offset."""
    t = np.arange(32000) / 16000
    tones = 0.3 * np.sin(2 * np.pi * (200 + 150 * t) * t) + 0.1 * np.sin(2 * np.pi * 3000 * t)
    noise = 0.02 * np.random.default_rng(0).standard_normal(32000)
    return torch.from_numpy((tones + noise + 0.05).astype(np.float32))


def naive(waveform: np.ndarray, sample_rate: int, num_mel_bins: int) -> np.ndarray:
    """One frame, one frequency and one band at a time, in float64."""
    width, shift = sample_rate // 40, sample_rate // 100
    size = 512 if width <= 512 else 2048
    rows = []
    for start in range(0, len(waveform) - width + 1, shift):
        frame = waveform[start : start + width].astype(float)
        frame = frame - frame.mean()
        frame = np.array([frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(width)])
        frame *= [0.5 - 0.5 * math.cos(2 * math.pi * i / (width - 1)) for i in range(width)]
        power = np.abs(np.fft.fft(frame, size)) ** 2
        lowest, highest = (1127 * math.log(1 + f / 700) for f in (20, sample_rate / 2))
        step = (highest - lowest) / (num_mel_bins + 1)
        row = []
        for band in range(num_mel_bins):
            centre = lowest + (band + 1) * step
            heights = (1 - abs(1127 * math.log(1 + k * sample_rate / size / 700) - centre) / step for k in range(size))
            energy = sum(max(h, 0) * power[k] for k, h in enumerate(heights) if k < size // 2)
            row.append(math.log(max(energy, 2.0**-23)))
        rows.append(row)
    return np.array(rows)


def test_numbers_are_those_of_torchaudio() -> None:
    bands = fbank(sweep())
    assert bands.shape == (198, 128)
    expected = torch.tensor([float(x) for x in TORCHAUDIO.split()]).view(len(FRAMES), len(BANDS))
    torch.testing.assert_close(bands[list(FRAMES)][:, list(BANDS)], expected, atol=2e-4, rtol=0)
    assert float(bands.mean()) == pytest.approx(TORCHAUDIO_MEAN, abs=1e-5)
    assert float(bands.std()) == pytest.approx(TORCHAUDIO_STD, abs=1e-5)


@pytest.mark.parametrize(("sample_rate", "num_mel_bins"), [(16_000, 128), (44_100, 80)])
def test_a_loop_gives_the_same(sample_rate: int, num_mel_bins: int) -> None:
    waveform = sweep()[:2600] * 0.5
    bands = fbank(waveform, sample_rate, num_mel_bins=num_mel_bins)
    np.testing.assert_allclose(bands, naive(waveform.numpy(), sample_rate, num_mel_bins), atol=2e-3, rtol=0)


def test_another_librarys_kaldi_mode_gives_the_same() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that narrow low bands are empty, as they are in Kaldi
        filters = mel_filter_bank(
            257, 128, 20, 8000, 16_000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
        )
    window = np.hanning(400)
    power = spectrogram(
        sweep().numpy(), window, 400, 160, fft_length=512, power=2.0, center=False, preemphasis=0.97,
        mel_filters=filters, log_mel="log", mel_floor=2.0**-23, remove_dc_offset=True,
    )  # fmt: skip
    # Next to the floor of -15.9 the logarithm shows float32's rounding, which differs from one processor to the next.
    heard = power.T > -12
    assert heard.mean() > 0.5
    np.testing.assert_allclose(fbank(sweep())[heard], power.T[heard], atol=2e-4, rtol=0)
    np.testing.assert_allclose(fbank(sweep()), power.T, atol=5e-3, rtol=0)


def test_a_batch_is_its_rows_and_only_whole_frames_count() -> None:
    batch = torch.stack([sweep(), sweep().flip(0)])
    torch.testing.assert_close(fbank(batch), torch.stack([fbank(row) for row in batch]))
    assert [fbank(torch.ones(s)).shape[0] for s in (0, 399, 400, 559, 560)] == [0, 0, 1, 1, 2]
    assert fbank(torch.ones(3, 2, 100)).shape == (3, 2, 0, 128)


def test_silence_and_an_offset_rest_on_the_floor() -> None:
    floor = math.log(2.0**-23)
    assert (fbank(torch.zeros(800)) == floor).all()
    torch.testing.assert_close(fbank(torch.full((800,), 0.25)), torch.full((3, 128), floor))


@pytest.mark.parametrize(("scale", "factor", "lowest"), [("kaldi", 1127.0, 20.0), ("htk", 2595 / math.log(10), 0.0)])
def test_bands_are_those_of_a_naive_loop(scale: Any, factor: float, lowest: float) -> None:
    """Kaldi's triangles are even over mels, HTK's over the frequencies between corners that are even over mels."""

    def mel(hertz: float) -> float:
        return factor * math.log(1 + hertz / 700)

    def hertz(m: float) -> float:
        return 700 * (math.exp(m / factor) - 1)

    found = mel_bands(scale, 16_000, 512, 40, lowest)
    step = (mel(8000) - mel(lowest)) / 41
    axis = mel if scale == "kaldi" else lambda f: f
    for band in range(0, 40, 3):
        corners = [mel(lowest) + (band + i) * step for i in range(3)]
        low, peak, high = corners if scale == "kaldi" else map(hertz, corners)
        for k in range(257):
            x = axis(k * 16_000 / 512)
            height = (x - low) / (peak - low) if x < peak else (high - x) / (high - peak)
            assert found[band, k] == pytest.approx(max(0, height), abs=1e-9)
