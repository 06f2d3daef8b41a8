"""Numbers of two sets of sounds: VGGish, Cnn14, PaSST against av-benchmark's, its conventions, what few clips do."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy
from torch import nn

from ccl.evaluation import FAD, KL, Film, KLPaSST, Measured, PANNs, PaSST, Row, Unscorable
from ccl.evaluation.metrics.base import Failed
from ccl.evaluation.metrics.fad import LEAST, examples
from ccl.evaluation.metrics.heard import divergence, inception
from ccl.evaluation.metrics.heard import score as inception_score
from ccl.evaluation.metrics.sets import distance, extrapolated, frechet
from ccl.evaluation.nets import passt
from ccl.evaluation.nets.panns import FFT, WIDTH, Cnn14
from ccl.evaluation.nets.vggish import VGGish
from ccl.evaluation.score import score
from ccl.evaluation.tables import table
from ccl.media import Clip
from helpers import TESTS

DATA = Path(os.environ.get("CCL_TEST_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("CCL_TEST_DATA"), reason="CCL_TEST_DATA is not set")
GOLDEN = json.loads((TESTS / "golden/sounds.json").read_text())
PASST = json.loads((TESTS / "golden/passt.json").read_text())
RATE = 16_000


def filled(net: nn.Module) -> Any:
    """The weights that the golden outputs were made with."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "golden" / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net.load_state_dict(module.fill_state_dict(net.state_dict(), scale=1.4))
    return net.eval()


def fourier(net: Cnn14) -> Cnn14:
    """With the published spectrogram, which is no result of training."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(FFT // 2 + 1, 64, 50, 8000, RATE, norm="slaney", mel_scale="slaney")
    angle = 2 * np.pi * np.outer(np.arange(FFT // 2 + 1), np.arange(FFT)) / FFT
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    own = {"logmel_extractor.melW": bands}
    own |= {f"spectrogram_extractor.stft.conv_{n}.weight": w[:, None] for n, w in
            (("real", np.cos(angle) * hann), ("imag", -np.sin(angle) * hann))}  # fmt: skip
    net.load_state_dict(net.state_dict() | {key: torch.tensor(value).float() for key, value in own.items()})
    return net


def golden_sounds() -> np.ndarray:
    sounds = (np.random.default_rng(0).standard_normal((2, 34_000)) * 0.1).astype(np.float32)
    sounds[1] *= torch.linspace(0, 3, 34_000).numpy()
    return sounds


def rising() -> np.ndarray:
    """12.5 s of noise at 32 kHz, louder and louder."""
    noise = np.random.default_rng(0).standard_normal(400_000) * 0.1
    return noise.astype(np.float32) * np.linspace(0, 3, 400_000, dtype=np.float32)


@cache
def two_blocks() -> passt.PaSST:
    return passt.PaSST.of(filled(passt.PaSST(2)).state_dict())


def film(i: int = 0, seconds: float = 2.0, reference: str | None = None) -> Film:
    """A tone of its own in noise."""
    t = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 200 * (1 + i % 5) * t)
    sound = (tone + 0.05 * np.random.default_rng(i).standard_normal(len(t))).astype(np.float32)
    return Film(Clip(None, sound, 25.0, RATE), Row(f"f{i}", reference=reference))


class Levels(nn.Module):
    """In place of VGGish: sixteen bands' levels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x[:, None], (1, 16)).flatten(1)


class Broken(nn.Module):
    """In place of VGGish: what a network that overflows gives."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 16), torch.nan)


class Classes(nn.Module):
    """In place of Cnn14 or PaSST: the spectrum's shape as features, and as logits of as many classes."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width

    def forward(self, sounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spectrum = torch.stft(sounds, FFT, window=torch.hann_window(FFT), return_complex=True).abs().mean(2)
        return torch.nn.functional.pad(spectrum, (0, self.width - spectrum.shape[1])), spectrum.log()


def planted(metric: Any, net: nn.Module) -> Any:
    vars(metric)["net"] = net
    return metric


# Networks -------------------------------------------------------------------------------------------------------------


@needs_data
def test_vggish_gives_av_benchmarks_features() -> None:
    golden = np.array(GOLDEN["vggish"])
    net = filled(VGGish())
    with torch.inference_mode():
        found = torch.cat([net(examples(sound)) for sound in golden_sounds()])[:, ::8].numpy()
    np.testing.assert_allclose(found, golden, rtol=0, atol=1e-4 * np.abs(golden).max())


@needs_data
def test_cnn14_gives_av_benchmarks_features_and_logits() -> None:
    net = fourier(filled(Cnn14()))
    with torch.inference_mode():
        found = net(torch.from_numpy(golden_sounds()))
    for out, name, step in zip(found, ("features", "logits"), (64, 16), strict=True):
        golden = np.array(GOLDEN[name])
        np.testing.assert_allclose(out[:, ::step], golden, rtol=0, atol=1e-4 * np.abs(golden).max())


@needs_data
def test_passt_gives_av_benchmarks_spectrogram_features_and_logits() -> None:
    sounds = [rising()[: passt.WHOLE], PaSST(seconds=8.0).sound(Film.read(DATA / "clips/jfk.flac"))]
    batch = torch.from_numpy(np.stack(sounds))
    with torch.inference_mode():
        spectrogram = passt.spectrogram(batch)[:, ::16, ::100].flatten(1)
        features, logits = two_blocks()(batch)
    found = {"spectrogram": spectrogram, "features": features[:, ::24], "logits": logits[:, ::16]}
    for name, out in found.items():
        golden = np.array(PASST[name])
        np.testing.assert_allclose(out, golden, rtol=0, atol=1e-4 * np.abs(golden).max())


@needs_data
def test_kl_is_verse_benchs_where_its_convention_is_asked_for() -> None:
    metric = planted(KLPaSST(convention="verse-bench"), two_blocks())
    films = [Film(Clip(None, sound.copy(), 25.0, passt.RATE)) for sound in (rising()[::-1][:128_000], rising())]
    with torch.inference_mode():
        (found,) = metric.measure([tuple(map(metric.parts, films))])
    assert found.values["kl_passt"] == pytest.approx(PASST["kl"], rel=1e-5)
    with pytest.raises(Unscorable, match="silent"):
        metric.parts(Film(Clip(None, np.zeros(32_000, np.float32), 25.0, 16_000)))


@pytest.mark.parametrize("network", ["cnn14", "passt"])
def test_a_spectrogram_is_the_same_where_the_network_is_in_bf16(network: str) -> None:
    spectrogram = passt.spectrogram if network == "passt" else fourier(Cnn14()).spectrogram
    with torch.inference_mode():
        sound = torch.from_numpy(film().audio)[None]
        exact = spectrogram(sound)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(spectrogram(sound), exact)


def test_passt_hears_each_sound_by_itself_and_a_short_one_at_its_first_positions() -> None:
    torch.manual_seed(0)
    net = passt.PaSST(1).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    sounds = 0.1 * torch.randn(2, 40_000)  # eleven patches long
    later = torch.randn(passt.WIDTH, 1, passt.COLUMNS)
    with torch.inference_mode():
        together = net(sounds)
        for alone, both in zip(map(net, sounds.split(1)), zip(*together, strict=True), strict=True):
            for own, shared in zip(alone, both, strict=True):
                torch.testing.assert_close(own[0], shared, rtol=1e-4, atol=1e-4)
        for first, heard in ((11, False), (10, True)):
            net.time_new_pos_embed[..., first:] = later[..., first:]
            assert torch.equal(net(sounds)[0], together[0]) != heard
        assert net(sounds[:, : passt.LEAST])[0].shape == (2, passt.WIDTH)
        with pytest.raises(RuntimeError, match=r"Kernel size"):
            net(sounds[:, : passt.LEAST - 1])


def test_passt_gets_ten_seconds_of_every_sound() -> None:
    short, long, cut = (
        PaSST(seconds=seconds).sound(film(0, length)) for length, seconds in ((2.0, None), (11.0, None), (11.0, 8.0))
    )
    assert len(short) == len(long) == len(cut) == 10 * passt.RATE
    assert short[2 * passt.RATE - 9 : 2 * passt.RATE].any() and not short[2 * passt.RATE :].any()
    assert long[-9:].any() and not cut[8 * passt.RATE :].any()
    np.testing.assert_array_equal(cut[: 8 * passt.RATE], long[: 8 * passt.RATE])


def test_examples_are_whole_and_end_to_end() -> None:
    lengths = (0, 399, LEAST - 1, LEAST, 31_000, 31_200)
    assert [len(examples(np.zeros(n, np.float32))) for n in lengths] == [0, 0, 0, 1, 2, 2]
    sound = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    again = examples(sound[96 * 160 :])
    torch.testing.assert_close(examples(sound)[1], again[0])


# Conventions ----------------------------------------------------------------------------------------------------------


def test_distance_divergence_and_inception_score_are_av_benchmarks() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((60, 6)), rng.standard_normal((50, 6)) * 1.3 + 0.2
    logits, true = (list(rng.standard_normal((23, 527)) * 2) for _ in range(2))
    assert frechet(a, b) == pytest.approx(GOLDEN["fd"], rel=1e-6)
    assert inception_score("is", logits)["is"] == pytest.approx(GOLDEN["isc"], rel=1e-9)
    apart = [divergence(t, o) for t, o in zip(true, logits, strict=True)]
    assert np.mean(apart) == pytest.approx(GOLDEN["kl"], rel=1e-9)


def test_and_they_are_scipys() -> None:
    rng = np.random.default_rng(2)
    for n, m, d in ((90, 70, 8), (12, 9, 30)):  # more clips than features, and fewer
        a, b = rng.standard_normal((n, d)), 1.5 * rng.standard_normal((m, d)) + 0.1
        root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
        naive = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
        assert frechet(a, b) == pytest.approx(naive, rel=1e-5)
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in rng.standard_normal((2, 5, 7)))
    assert divergence(np.log(p[0]), np.log(q[0])) == pytest.approx(entropy(p[0], q[0]))
    assert inception(np.log(p)) == pytest.approx(np.exp(np.mean([entropy(row, p.mean(0)) for row in p])))


def test_the_inception_score_knows_its_two_ends() -> None:
    sure = np.where(np.eye(20), 50.0, 0.0)
    assert inception_score("is", list(np.repeat(sure, 10, 0)))["is"] > 10  # each part of twenty has most classes
    assert inception(sure) == pytest.approx(20) and inception(np.zeros((5, 9))) == pytest.approx(1)
    assert inception_score("is", list(sure[:9])) == {}  # fewer clips than parts
    assert inception(np.array([[0.0, -2000.0]] * 3)) == 1, "a class that no clip has"


# What few clips do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips, width", [(60, 12), (100, 30), (150, 30)])
def test_two_halves_of_one_distribution_are_nearer_zero_once_extrapolated(clips: int, width: int) -> None:
    raw, known = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sets = [list(rng.standard_normal((clips, width)) / np.sqrt(np.arange(1, width + 1))) for _ in range(2)]
        found = distance("fad", *sets)
        raw.append(found["fad"])
        known.append(found["fad.extrapolated"])
    assert np.mean(np.abs(known)) < np.mean(raw) / 2 and sum(abs(k) < r for k, r in zip(known, raw, strict=True)) >= 7


def test_few_clips_give_a_larger_distance_and_about_the_same_once_extrapolated() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((1200, 16)), rng.standard_normal((1200, 16)) + 0.3
    true = 16 * 0.3**2
    few, many = (distance("x", list(a[:n]), list(b[:n])) for n in (60, 1200))
    assert few["x"] - true > 4 * abs(many["x"] - true)
    assert abs(few["x.extrapolated"] - true) < 0.5 * (few["x"] - true)


def test_a_line_in_one_over_n_is_met_at_its_end() -> None:
    numbers = list(np.arange(64.0)[:, None])
    assert extrapolated(lambda few: 5 + 3 / len(few), 5 + 3 / 64, numbers) == pytest.approx(5)
    assert extrapolated(lambda few, more: 7.0, 7.0, numbers, numbers[:20]) == pytest.approx(7)


def test_a_distance_grows_with_noise_and_rows_of_a_clip_stay_together() -> None:
    rng = np.random.default_rng(0)
    true = [rng.standard_normal((3, 6)) for _ in range(40)]
    noisy = [[clip + level * rng.standard_normal(clip.shape) for clip in true] for level in (0.0, 0.5, 1.0, 2.0)]
    found = [distance("fad", some, true)["fad"] for some in noisy]
    assert found[0] == pytest.approx(0, abs=1e-9) and found == sorted(found) and found[3] > found[1] + 1
    assert extrapolated(lambda few: float(np.mean([len(clip) for clip in few])), 3.0, true) == pytest.approx(3)


def test_sets_too_small_have_no_number_or_none_extrapolated() -> None:
    clips = list(np.random.default_rng(0).standard_normal((17, 4)))
    assert distance("fad", clips, None) == distance("fad", clips, clips[:1]) == {}
    assert set(distance("fad", clips[:15], clips)) == {"fad"}
    assert set(distance("fad", clips[:16], clips)) == {"fad", "fad.extrapolated"}


# The metrics ----------------------------------------------------------------------------------------------------------


def test_a_clip_gives_the_same_features_in_any_company() -> None:
    films = [film(0), film(1, 3.1), film(2), film(3, 1.0)]
    for make, net in ((FAD, Levels()), (PANNs, Classes()), (PaSST, Classes(passt.WIDTH))):
        together = planted(make(), net).score(films)
        alone = [planted(make(), net).score([one])[0] for one in films]
        for a, b in zip(together, alone, strict=True):
            assert isinstance(a, Measured) and a.values == {}
            np.testing.assert_allclose(a.feature, b.feature, rtol=1e-5, atol=1e-6)
    rows = [result.feature.shape for result in planted(FAD(), Levels()).score(films)]
    assert rows == [(2, 16), (3, 16), (2, 16), (1, 16)]


def test_alone_they_gather_both_sets_and_noise_is_farther() -> None:
    true, near = [film(i) for i in range(20)], [film(i + 100) for i in range(20)]
    rng = np.random.default_rng(5)
    far = [Film(Clip(None, (0.3 * rng.standard_normal(32_000)).astype(np.float32), 25.0, RATE)) for _ in range(20)]
    cases = (
        (FAD, Levels(), "fad", ""),
        (PANNs, Classes(), "fd_panns", "is_panns"),
        (PaSST, Classes(passt.WIDTH), "fd_passt", "is_passt"),
    )
    for make, net, name, classes in cases:
        values = []
        for some in (near, far):
            metric = planted(make(weights=Path(__file__)), net)
            metric.update([*some, film(0, 0.1)])
            assert np.isnan(metric.compute()[name])
            metric.update(true, reference=True)
            values.append(metric.compute())
        assert values[0][name] < values[1][name] / 2
        assert (values[0]["scored"], values[0]["failed"]) == (20, 1)
        if classes:  # noise is of one class
            for each in (classes, f"{classes}.extrapolated"):
                assert values[0][each] > values[1][each]


@pytest.mark.parametrize("make, name", [(KL, "kl_panns"), (KLPaSST, "kl_passt")])
def test_kl_is_against_the_true_clip(make: Any, name: str, tmp_path: Path) -> None:
    import soundfile

    for i in range(2):
        soundfile.write(tmp_path / f"{i}.flac", film(i).audio, RATE, subtype="PCM_24")
    metric = planted(make(), Classes())
    same, other, none, gone = metric.score(
        [film(0, reference=str(tmp_path / f"{i}.flac")) for i in (0, 1)] + [film(0), film(0, reference="gone.mp4")]
    )
    assert same.values[name] < 1e-3 < 0.05 < other.values[name]
    assert isinstance(none, Failed) and metric.inapplicable(Row("a"), speech=False) == none.reason
    assert isinstance(gone, Failed) and gone.reason.startswith("its reference clip: ")


def test_a_sound_too_short_or_absent_has_a_reason() -> None:
    mute = Film(Clip(np.zeros((5, 8, 8, 3), np.uint8), None))
    for make, net, need in (
        (FAD, Levels(), "0.975 s"),
        (PANNs, Classes(), "0.31 s"),
        (PaSST, Classes(passt.WIDTH), "0.15 s"),
    ):
        short, none = planted(make(), net).score([film(0, 0.1), mute])
        assert need in short.reason and none.reason == "no audio stream"


def test_the_first_seconds_alone_may_be_taken() -> None:
    cut, whole = (planted(FAD(seconds=s), Levels()).score([film(0, 5.0)])[0].feature for s in (2.0, None))
    assert len(cut) == 2 and len(whole) == 5


@pytest.mark.parametrize(
    "make, name", [(FAD, "vggish"), (PANNs, "panns"), (KL, "panns"), (PaSST, "passt"), (KLPaSST, "passt")]
)
def test_missing_or_wrong_weights_are_one_sentence(make: Any, name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    assert f"`ccl weights fetch {name}`" in make().missing()
    torch.save({"model": {"fc1.weight": torch.zeros(2, 2)}}, tmp_path / "wrong.pth")
    (result,) = make(weights=tmp_path / "wrong.pth").score([film(0, reference=str(DATA / "clips/jfk.flac"))])
    if make not in (KL, KLPaSST) or (DATA / "clips/jfk.flac").is_file():
        assert isinstance(result, Failed) and "are not" in result.reason
    protocol = make(weights=tmp_path / "wrong.pth").protocol()
    assert json.loads(json.dumps(protocol)) == protocol and len(protocol["weights"]) == 64


def test_features_that_are_no_numbers_are_a_clips_fault_and_no_tables(tmp_path: Path) -> None:
    for i in range(3):
        film(i).clip.save(tmp_path / f"mine/f{i}.mp4")
    metric = planted(FAD(weights=Path(__file__)), Broken())
    folders = {"mine": tmp_path / "mine", "ceiling": tmp_path / "mine"}
    results = score(folders, [Row(f"f{i}") for i in range(3)], [metric], tmp_path / "out", reference="ceiling")
    assert [line["name"] for line in results.pooled] == []
    assert {row["reason"] for row in results.rows} == {"its features are not finite"}


def test_tables_have_the_extrapolated_value_and_say_that_the_clips_are_few(tmp_path: Path) -> None:
    for i in range(16):
        film(i).clip.save(tmp_path / f"mine/f{i}.mp4")
        film(i + 50).clip.save(tmp_path / f"true/f{i}.mp4")
    rows = [Row(f"f{i}") for i in range(16)]
    folders = {"mine": tmp_path / "mine", "ceiling": tmp_path / "true"}
    metric = planted(FAD(weights=Path(__file__)), Levels())
    results = score(folders, rows, [metric], tmp_path / "out", reference="ceiling")
    table.write(results, tmp_path / "out")
    text = (tmp_path / "out/table.md").read_text()
    assert "extrapolated" in text and "FAD is of 16 clips and of 128 features" in text
    names = {line["name"]: line["value"] for line in results.pooled if line["method"] == "mine"}
    assert set(names) == {"fad", "fad.extrapolated"} and abs(names["fad.extrapolated"]) < 2 * names["fad"]
    assert "mine" in results.methods and "ceiling" in results.methods
