"""Speaker similarity: its pieces against a naive loop, its network by filled weights, real voices by real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl.evaluation.film import Film
from ccl.evaluation.metrics import Speaker
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.speaker import NONE_GIVEN, RATE, mel, pieces
from ccl.evaluation.nets.voice import VoiceEncoder
from ccl.media import Clip, write_wav
from ccl.rows import Row
from ccl.weights import catalogue as weights


def chirp(seconds: float = 4.0, low: float = 200.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * (low * t + 150 * t * t)) * (t % 0.5 < 0.4)).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published layout."""
    torch.manual_seed(0)
    state = {key: 4 * value for key, value in VoiceEncoder().state_dict().items()}
    state |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    path = tmp_path_factory.mktemp("voice") / "pretrained.pt"
    torch.save({"step": 1, "model_state": state}, path)
    return path


def film(sound: np.ndarray, voice: np.ndarray | str | Path | None) -> Film:
    given = Clip(None, voice, sample_rate=RATE) if isinstance(voice, np.ndarray) else voice
    return Film(Clip(None, sound, sample_rate=RATE), Row("a", voice=given))


def similarity(metric: Speaker, *films: Film) -> list[float]:
    results = metric.score(films)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values["speaker_sim"] for result in results if isinstance(result, Measured)]


def test_bands_are_those_of_a_naive_loop():
    def hertz(place: float) -> float:
        return place * 200 / 3 if place < 15 else 1000 * 6.4 ** ((place - 15) / 27)

    top = 15 + 27 * np.log(8) / np.log(6.4)
    edges = [hertz(top * i / 41) for i in range(42)]
    sound, found = chirp(0.5), mel(chirp(0.5))
    padded = np.pad(sound, 200).astype(np.float64)
    for frame in (0, 17, 50):
        piece = padded[160 * frame :][:400] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
        power = np.abs([np.sum(piece * np.exp(-2j * np.pi * k * np.arange(400) / 400)) for k in range(201)]) ** 2
        for band in (0, 9, 25, 39):
            low, peak, high = edges[band : band + 3]
            height = [max(0, min((40 * k - low) / (peak - low), (high - 40 * k) / (high - peak))) for k in range(201)]
            assert found[frame, band] == pytest.approx(power @ height * 2 / (high - low), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("samples", [1, 12_000, 25_599, 25_600, 37_919, 40_000, 44_000, 64_000, 80_123])
def test_pieces_are_those_of_the_references_loop(samples):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    frames = int(np.ceil((samples + 1) / 160))
    slices = [(i, i + 160) for i in range(0, max(1, frames - 160 + 77 + 1), 77)]
    if len(slices) > 1 and (samples - slices[-1][0] * 160) / (160 * 160) < 0.75:
        slices = slices[:-1]
    spectrogram = mel(np.pad(sound, (0, max(0, slices[-1][1] * 160 - samples))))
    np.testing.assert_array_equal(pieces(sound), [spectrogram[a:b] for a, b in slices])


def test_a_quiet_voice_is_raised_and_a_loud_one_left():
    quiet, loud = chirp() * 1e-4, chirp()
    assert pieces(quiet).sum() == pytest.approx(pieces(quiet * 100).sum(), rel=1e-3)
    np.testing.assert_array_equal(pieces(loud)[0], mel(loud)[:160])


def test_the_network_is_the_recurrence_as_it_is_written(drawn):
    """Against a loop over time and layers with the file's own numbers."""
    state = torch.load(drawn, weights_only=True)["model_state"]
    x = torch.from_numpy(pieces(chirp())[:1])
    series = x[0].double()
    for layer in range(3):
        h = c = torch.zeros(256, dtype=torch.float64)
        w, u, b, d = (state[f"lstm.{n}_l{layer}"].double() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        outputs = []
        for step in series:
            i, f, g, o = (w @ step + u @ h + b + d).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        series = torch.stack(outputs)
    raw = (state["linear.weight"].double() @ series[-1] + state["linear.bias"].double()).clamp(min=0)
    with torch.inference_mode():
        found = VoiceEncoder.of({"model_state": state})(x)[0]
    np.testing.assert_allclose(found, raw / raw.norm(), atol=1e-4)


def test_a_batch_gives_what_single_clips_give(drawn):
    films = [film(chirp(3), chirp(2, 500)), film(chirp(5, 300), chirp(3)), film(chirp(1), chirp(1))]
    metric = Speaker(drawn)
    together = similarity(metric, *films)
    metric.batch_size = 1
    assert together == pytest.approx(similarity(metric, *films), abs=1e-6)
    assert together[2] == pytest.approx(1)


def test_what_has_no_voice_to_compare_says_so(drawn, tmp_path):
    voice = tmp_path / "none.wav"
    sound, still = chirp(2), np.zeros(RATE, np.float32)
    none, gone, silent, mute = Speaker(drawn).score(
        [film(sound, None), film(sound, voice), film(sound, still), film(still, sound)]
    )
    assert none == Failed(NONE_GIVEN) and Speaker().inapplicable(Row("a"), speech=True) == NONE_GIVEN
    assert gone == Failed("its voice: no such file")
    assert silent == Failed("its voice: the sound is silence, which is nobody's voice")
    assert mute == Failed("the sound is silence, which is nobody's voice")


def test_weights_of_something_else_are_told(tmp_path):
    torch.save({"weight": torch.ones(2)}, wrong := tmp_path / "w.pt")
    [result] = Speaker(wrong).score([film(chirp(2), chirp(2))])
    assert isinstance(result, Failed) and "not the voice encoder's weights" in result.reason


def test_a_test_set_that_is_scored_keeps_its_voices(tmp_path, drawn):
    import json

    from ccl.cli import main

    for name, low in (("a", 200), ("b", 900)):
        write_wav(tmp_path / f"{name}.wav", chirp(2, low), RATE)
    Clip(np.zeros((50, 16, 16, 3), np.uint8), chirp(2), 25.0, RATE).save(tmp_path / "clips/c.mp4")

    def scored(voice: str) -> float:
        (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "c", "prompt": "p", "voice": voice}) + "\n")
        argv = ["--videos", tmp_path / "clips", "--testset", tmp_path / "rows.jsonl", "-o", tmp_path / "out"]
        argv += ["--metrics", "speaker", "--weights", f"resemblyzer={drawn}"]
        assert main(["evaluate", *map(str, argv)]) == 0
        return json.loads((tmp_path / "out/scores.jsonl").read_text())["value"]

    same, other = scored("a.wav"), scored("b.wav")
    assert same > other and same > 0.9


# Real voices ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voices() -> dict[str, np.ndarray]:
    """Halves of three recordings of three men."""
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no real clips")
    if not weights.present("resemblyzer"):
        pytest.skip("no weights of Resemblyzer: `ccl weights fetch resemblyzer`")
    found = {}
    for name in ("jfk.flac", "versebench_syncnet_1.mp4", "ovi_two_men.mp4"):
        sound = Film.read(Path(data) / "clips" / name).sound(RATE)
        found |= {f"{name[:3]}-a": sound[: len(sound) // 2], f"{name[:3]}-b": sound[len(sound) // 2 :]}
    return found


def test_a_voice_is_nearer_to_itself_than_to_others_and_noise_hides_it(voices):
    def like(one: str, other: str, noise: float = 0.0) -> float:
        sound = voices[one] + noise * np.random.default_rng(0).standard_normal(len(voices[one])).astype(np.float32)
        return similarity(Speaker(), film(sound, voices[other]))[0]

    own = like("jfk-a", "jfk-b")
    assert own > 0.8 and own > max(like("jfk-a", "ver-b"), like("jfk-a", "ovi-b")) + 0.1
    assert like("jfk-a", "jfk-b", 0.3) < own - 0.1
