"""DNSMOS: its windows and mel spectrogram against naive code and librosa's numbers, its ratings of real clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ccl.evaluation.dsp.slaney import slaney
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.dnsmos import BANDS, DNSMOS, FFT, HOP, RATE, WINDOW, log_mel, rate, windows
from ccl.media import Clip
from ccl.rows import Row

# By speechmos 0.0.1.1 with librosa, from the clips through ffmpeg to 16 kHz and 16 bits: OVRL, P.808.
PUBLISHED = {"jfk.flac": (2.715, 3.098), "ovi_two_men.mp4": (3.274, 3.482)}


class Session:
    """An onnxruntime session that answers with numbers from its input."""

    def __init__(self, *answers: float) -> None:
        self.answers, self.shapes = answers, list[tuple[int, ...]]()

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        sound = inputs["input_1"]
        self.shapes.append(sound.shape)
        return [np.array([self.answers], np.float32)]


def chirp() -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(WINDOW - HOP) / RATE
    noise = 0.1 * rng.standard_normal(len(t)) * (t % 1 < 0.5)
    return (noise + 0.3 * np.sin(2 * np.pi * (300 * t + 100 * t * t))).astype(np.float32)


def test_a_short_sound_is_doubled_until_it_fills_a_window() -> None:
    sound = np.arange(5 * RATE, dtype=np.float32)
    [window] = windows(sound)
    assert len(window) == WINDOW
    assert np.array_equal(window, np.concatenate([sound, sound])[:WINDOW])
    assert len(windows(sound[: 6 * RATE])) == 1
    assert len(windows(np.zeros(6 * RATE + 1, np.float32))) == 3  # 12 s, as the reference doubles
    assert windows(np.ones(1, np.float32)).all()


@pytest.mark.parametrize("samples", [1, 1000, 72_079, 72_080, 144_159, 144_161, 160_001, 192_000, 300_000, 560_000])
def test_windows_are_those_of_the_references_loop(samples: int) -> None:
    sound = audio = np.arange(samples, dtype=np.float32)
    while len(audio) < int(9.01 * 16_000):
        audio = np.append(audio, audio)
    kept = []
    for i in range(int(np.floor(len(audio) / 16_000) - 9.01) + 1):
        piece = audio[int(i * 16_000) : int((i + 9.01) * 16_000)]
        if len(piece) >= int(9.01 * 16_000):
            kept.append(piece)
    np.testing.assert_array_equal(windows(sound), kept)


@pytest.mark.parametrize(("seconds", "count"), [(9.01, 1), (10.0, 1), (10.99, 1), (11.0, 2), (12.5, 3), (16.0, 7)])
def test_windows_come_every_second(seconds: float, count: int) -> None:
    sound = np.arange(int(seconds * RATE), dtype=np.float32)
    found = windows(sound)
    assert [w[0] for w in found] == [i * RATE for i in range(count)]
    assert [w[-1] for w in found] == [i * RATE + WINDOW - 1 for i in range(count)]


def test_mel_bands_are_those_of_a_naive_loop() -> None:
    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(8) / np.log(6.4)
    edges = [hz(top * i / (BANDS + 1)) for i in range(BANDS + 2)]
    found = slaney(RATE, FFT, BANDS)
    for band in range(0, BANDS, 7):
        low, peak, high = edges[band : band + 3]
        for k in range(FFT // 2 + 1):
            f = k * RATE / FFT
            height = (f - low) / (peak - low) if f < peak else (high - f) / (high - peak)
            assert found[band, k] == pytest.approx(max(0, height) * 2 / (high - low), abs=1e-12)


def test_the_mel_spectrogram_has_the_numbers_of_librosa() -> None:
    # librosa 0.11.0: melspectrogram with sr=16000, n_fft=321, hop_length=160, n_mels=120; power_to_db with ref=np.max;
    # plus 40, over 40.
    expected = [
        [-0.29502, -0.209, 0.09739, 0.07903, 0.03036],
        [-1.0, 0.43871, -1.0, -1.0, -1.0],
        [-1.0, -1.0, -0.30824, -1.0, -1.0],
        [-0.43399, -0.43555, 0.39298, 0.18518, 0.26196],
        [-1.0, -0.63423, 0.21952, 0.20087, 0.23103],
    ]
    mel = log_mel(chirp())
    assert mel.shape == (900, 120) and mel.dtype == np.float32
    np.testing.assert_allclose(mel[::180, ::24], expected, atol=2e-5)
    assert mel.mean() == pytest.approx(-0.335287, abs=1e-5) and mel.max() == 1


def test_silence_has_a_mel_spectrogram_too() -> None:
    assert (log_mel(np.zeros(RATE, np.float32)) == 1).all()


def test_outputs_go_through_the_published_polynomials() -> None:
    p835, p808 = Session(4.0, 3.0, 2.0), Session(3.5)
    ratings = rate(p835, p808, np.zeros((2, WINDOW), np.float32))
    sig = -0.08397278 * 16 + 1.22083953 * 4 + 0.0052439
    bak = -0.13166888 * 9 + 1.60915514 * 3 - 0.39604546
    ovrl = -0.06766283 * 4 + 1.11546468 * 2 + 0.04602535
    for name, value in {"dnsmos_sig": sig, "dnsmos_bak": bak, "dnsmos_ovrl": ovrl, "dnsmos_p808": 3.5}.items():
        np.testing.assert_allclose(ratings[name], [value, value], rtol=1e-6)
    assert p835.shapes == [(1, WINDOW)] * 2 and p808.shapes == [(1, 900, BANDS)] * 2


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    assert "there is no file" in DNSMOS(p835=tmp_path / "none.onnx").missing()


def test_a_clip_without_sound_has_a_reason() -> None:
    [result] = DNSMOS().score([Film(Clip(None, None), Row("mute"))])
    assert result == Failed("no audio stream")


@pytest.fixture(scope="module")
def real() -> dict[str, Film]:
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no real clips")
    if reason := DNSMOS().missing():
        pytest.skip(reason)
    return {name: Film.read(Path(data) / "clips" / name) for name in PUBLISHED}


def values(metric: DNSMOS, *films: Film) -> list[dict[str, float]]:
    results = metric.score(films)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values for result in results if isinstance(result, Measured)]


def test_real_clips_are_rated_as_the_reference_rates_them(real: dict[str, Film]) -> None:
    for (ovrl, p808), found in zip(PUBLISHED.values(), values(DNSMOS(), *real.values()), strict=True):
        assert found["dnsmos_ovrl"] == pytest.approx(ovrl, abs=0.005)
        assert found["dnsmos_p808"] == pytest.approx(p808, abs=0.015)  # another resampler than ffmpeg's


def test_noise_lowers_every_rating_but_that_of_the_speech_step_by_step(real: dict[str, Film]) -> None:
    sound = real["ovi_two_men.mp4"].sound(RATE)
    noise = np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32) * np.sqrt((sound**2).mean())
    noisy = [Film(Clip(None, sound + noise * level, sample_rate=RATE)) for level in (0, 0.03, 0.1, 0.3, 1.0)]
    found = values(DNSMOS(), *noisy)
    for name in ("dnsmos_ovrl", "dnsmos_bak", "dnsmos_p808"):
        assert (np.diff([value[name] for value in found]) < 0).all(), name
    assert found[-1]["dnsmos_sig"] < found[0]["dnsmos_sig"]
