"""The protocols that ship: each builds its difference on a clip, and gives what its suite's rule, told anew, gives."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
import yaml
from python_speech_features import mfcc as psf_mfcc

from ccl import cli
from ccl.cli.metrics import protocol_of
from ccl.cli.protocols import protocols_of, shipped
from ccl.evaluation import METRICS, DeSync, IBScore, SyncNet, faces
from ccl.evaluation.faces.track import accepted
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.imagebind import streamed
from ccl.evaluation.metrics.sync import Score, choose, confidence
from ccl.evaluation.metrics.wer import word_errors
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.media import Clip
from helpers import ROOT

SUITES = [name for name in shipped() if name != "paper"]


def metric(suite: str, name: str) -> Any:
    """A metric with the conventions that a suite's file states."""
    file = shipped()[suite]
    assert file is not None
    settings, _ = protocol_of(file)
    return METRICS[name](**settings[name])


# The files ------------------------------------------------------------------------------------------------------------


def test_the_named_protocols_are_these_and_go_into_the_wheel() -> None:
    assert set(shipped()) == {"paper", "joonson", "latentsync", "mova", "verse-bench", "javisbench", "av-benchmark"}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["evaluation/protocols"] == "ccl/benchmark/protocols"


@pytest.mark.parametrize("suite", SUITES)
def test_every_line_of_a_protocol_says_where_it_stands(suite: str) -> None:
    file = shipped()[suite]
    assert file is not None
    text = file.read_text()
    assert re.search(r"Sources: github\.com/[\w-]+/[\w-]+ at [0-9a-f]{40}", text)
    said = [line for line in text.splitlines() if re.match(r" {4}\w+:", line)]
    assert len(said) == sum(len(node["init_args"]) for node in yaml.safe_load(text).values())
    for line in said:
        assert re.search(r"# .*(\.(py|md|sh):\d+|as above)", line), line


@pytest.mark.parametrize("suite", SUITES)
def test_the_metrics_take_what_a_protocol_states(suite: str) -> None:
    file = shipped()[suite]
    assert file is not None
    assert [metric(suite, name).name for name in protocol_of(file)[0]] == list(yaml.safe_load(file.read_text()))


# Sync -----------------------------------------------------------------------------------------------------------------


def still(ticks: int, gap: range = range(0)) -> list[list[tuple[float, float, float, float]]]:
    """A face of 140 pixels that keeps its place, not found within the gap."""
    return [[] if tick in gap else [(100.0, 50.0, 240.0, 190.0)] for tick in range(ticks)]


@pytest.mark.parametrize(("suite", "least"), [("joonson", 101), ("latentsync", 51), ("mova", 21), ("verse-bench", 50)])
def test_a_track_counts_from_its_suites_length_on(suite: str, least: int) -> None:
    """In SyncNet's pipeline and its heirs a track must exceed it; Verse-Bench passes over runs under two seconds."""
    settings = metric(suite, "sync").settings
    [track] = accepted(still(least), [(0, least)], settings)
    assert len(track.boxes) == least
    with pytest.raises(Unscorable, match=f"{least - 1} pictures"):
        accepted(still(least - 1), [(0, least - 1)], settings)


def test_a_lost_face_is_bridged_by_the_pipeline_and_ends_a_run_of_verse_bench() -> None:
    found = still(120, gap=range(55, 60))
    [bridged] = accepted(found, [(0, 120)], metric("latentsync", "sync").settings)
    assert (bridged.start, len(bridged.boxes)) == (0, 120)
    first, second = accepted(found, [(0, 120)], metric("verse-bench", "sync").settings)
    assert (first.start, len(first.boxes), second.start, len(second.boxes)) == (0, 55, 60, 60)


def test_joonson_and_mova_follow_16_pictures_a_second_as_far_as_an_avi_holds_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LatentSync goes by .mp4 and Verse-Bench by the fps filter, which keep every picture: 200 of 8 s."""
    film = Film(Clip(np.zeros((128, 300, 400, 3), np.uint8), np.zeros(128_000, np.float32), 16.0, 16_000))
    boxes = [np.array([[0.9, 100.0, 50.0, 240.0, 190.0]])] * 128
    monkeypatch.setattr("ccl.evaluation.faces.track.found", lambda *_: boxes)
    monkeypatch.setattr("ccl.evaluation.faces.track.shots", lambda pictures, index: [(0, len(index))])
    (tmp_path / "w").touch()
    given = {"s3fd": tmp_path / "w", "yunet": tmp_path / "w"}
    lengths = {
        suite: len(faces.tracks(film, metric(suite, "sync").settings, given)[0].boxes)
        for suite in ("joonson", "latentsync", "mova", "verse-bench")
    }
    assert lengths == {"joonson": 128, "latentsync": 200, "mova": 128, "verse-bench": 200}


SCORES = [Score(5.0, 9.5, 1.0), Score(6.0, 11.0, -3.0), Score(2.0, 6.0, 5.0)]


def test_several_tracks_are_one_value_as_each_suite_has_it() -> None:
    c, d, _ = (np.array(part) for part in zip(*SCORES, strict=True))
    for suite in ("latentsync", "verse-bench"):
        assert choose(SCORES, metric(suite, "sync").tracks)[:2] == (pytest.approx(c.mean()), pytest.approx(d.mean()))
    best = -100.0, 0.0, 0.0  # MOVA's loop, which keeps a track that is better than the last one kept
    for one, other in zip(c, d, strict=True):
        best = max(best, (one - other, one, other))
    assert choose(SCORES, metric("mova", "sync").tracks)[:2] == best[1:] == (2.0, 6.0)
    assert choose(SCORES, "extremes") == (c.max(), d.min(), -3.0)  # of PyPI's syncnet-python, be they of two tracks


class Projections:
    """In SyncNet's place: windows times fixed random matrices, which tell pictures and sounds apart at no cost."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.faces, self.sounds = rng.standard_normal((5 * 28 * 28 * 3, 16)) / 900, rng.standard_normal((260, 16)) / 40

    def see(self, window: np.ndarray) -> np.ndarray:
        return window[:, ::8, ::8].reshape(-1).astype(np.float64) @ self.faces

    def listen(self, window: np.ndarray) -> np.ndarray:
        return window.reshape(-1).astype(np.float64) @ self.sounds

    def lip(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.see(pictures[i : i + 5].numpy()) for i in range(len(pictures) - 4)]))

    def audio(self, cepstra: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.listen(cepstra[:, i : i + 20].numpy()) for i in starts.tolist()]))


def verse_benchs(
    film: Film, boxes: list[np.ndarray], net: Projections
) -> tuple[float, float, float] | tuple[None, None, None]:
    """syncnet/syncnet_inferencer.py and synchronizer.py told anew: C, the mean of the list for LSE-D, the offset."""
    import cv2

    sound = np.clip(np.rint(film.audio * 32768.0), -32768, 32767).astype(np.int16)
    runs: list[list[int]] = [[]]
    for i, found in enumerate(boxes):
        runs[-1:] = [[*runs[-1], i]] if len(found) else [runs[-1], []]
    means = []
    for run in (run for run in runs if len(run) >= 50):
        crops = []
        for i in run:
            x0, y0, x1, y1 = boxes[i][0, 1:]
            s = max(y1 - y0, x1 - x0) / 2
            pad = int(s * 1.6)
            wide = np.pad(film.video[i], ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
            y, x = (y0 + y1) / 2 + pad, (x0 + x1) / 2 + pad
            crops.append(
                cv2.resize(wide[int(y - s) : int(y + 1.6 * s), int(x - 1.3 * s) : int(x + 1.3 * s)], (224, 224))
            )
        heard = sound[run[0] * 640 : run[-1] * 640]
        cepstra = psf_mfcc(heard, 16_000).T.astype(np.float32)
        last = min(len(crops), len(heard) // 640) - 5
        seen = [net.see(np.stack(crops[i : i + 5])) for i in range(last)]
        voice = [net.listen(cepstra[:, 4 * i : 4 * i + 20]) for i in range(last)]
        table = np.zeros((last, 31))
        for i in range(last):
            for k in range(31):
                j = i + k - 15
                table[i, k] = np.linalg.norm(seen[i] - (voice[j] if 0 <= j < last else 0 * voice[0]) + 1e-6)
        means.append(table.mean(0))
    offsets = [15 - int(m.argmin()) for m in means]
    if max(map(abs, offsets)) >= 14:
        return None, None, None
    c = float(np.mean([np.median(m) - m.min() for m in means]))
    return c, float(np.mean([m.mean() for m in means])), float(np.mean(offsets))


@pytest.fixture
def talking(monkeypatch: pytest.MonkeyPatch) -> tuple[Film, list[np.ndarray]]:
    """Two faces that wander about, the better-scored one first; nothing is found in five pictures of 130."""
    rng = np.random.default_rng(8)
    film = Film(
        Clip(rng.integers(0, 256, (130, 120, 160, 3)).astype(np.uint8), rng.normal(0, 0.1, 83_200).astype("f4"))
    )
    boxes = [
        np.array([[0.9, 60, 40, 100, 90], [0.8, 5, 5, 45, 50]]) + np.r_[0, rng.uniform(-9, 9, 4)] for _ in range(130)
    ]
    boxes[60:65] = [np.empty((0, 5))] * 5
    monkeypatch.setattr("ccl.evaluation.faces.track.found", lambda *_: boxes)
    monkeypatch.setattr(faces, "found", lambda *_: boxes)
    return film, boxes


def scored(suite: str, film: Film, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Measured | Failed:
    one = metric(suite, "sync")
    for name, value in changed.items():
        setattr(one, name, value)
    monkeypatch.setattr(one, "towers", Projections)
    monkeypatch.setattr("ccl.evaluation.faces.track.files.locate", lambda name, given=None: Path(name))
    [result] = one.score([film])
    return result


def test_verse_bench_scores_runs_of_the_first_face_and_returns_the_distance_per_shift(
    talking: tuple[Film, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    film, boxes = talking
    c, mean, offset = verse_benchs(film, boxes, Projections())
    # Of random faces and sounds the least distance lies anywhere, so the refusal is tried by itself.
    result = scored("verse-bench", film, monkeypatch, farthest=None if c is None else 14)
    if c is None:
        refused = scored("verse-bench", film, monkeypatch)
        assert isinstance(refused, Failed) and "pictures apart; from 14 on" in refused.reason
    else:
        assert isinstance(result, Measured) and mean is not None
        assert result.values["sync_c"] == pytest.approx(c, rel=1e-5)
        assert result.values["sync_d"] == pytest.approx(mean, rel=1e-5)
        assert result.values["sync_offset"] == offset
    assert isinstance(result, Measured)
    least = scored("verse-bench", film, monkeypatch, farthest=None, distance="least")
    assert isinstance(least, Measured)
    assert result.values["sync_d"] > least.values["sync_d"] + 0.5 * result.values["sync_c"] > least.values["sync_d"]
    assert result.values["sync_c"] == least.values["sync_c"]


@pytest.mark.parametrize(("early", "kept"), [(0, True), (13, True), (14, False), (-14, False), (-15, False)])
def test_verse_bench_gives_no_value_from_14_pictures_on(
    early: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, usual = metric("verse-bench", "sync"), SyncNet()
    for asked, value in ((one, kept), (usual, True)):
        result = asked._result([Score(3.0, 9.0, 0.0), Score(5.0, 8.0, early)], (9, 9))
        assert isinstance(result, Measured) == value


def test_the_mean_over_shifts_stays_where_it_is_when_the_sound_is_late_and_the_least_does_not() -> None:
    """Why LSE-D must be the least: sound of another clip changes it by all of C, the mean by a fraction."""
    rng = np.random.default_rng(2)
    scene, other = torch.from_numpy(rng.standard_normal((2, 200, 64)))
    table = [torch.cdist(scene[15:185], sound[k : k + 170]).diagonal() for k in range(31) for sound in (scene, other)]
    true, wrong = torch.stack(table[0::2], 1), torch.stack(table[1::2], 1)
    moved = {how: confidence(wrong, how).distance - confidence(true, how).distance for how in ("least", "mean")}
    assert moved["least"] > 0.9 * confidence(true).confidence
    assert moved["mean"] < 0.1 * moved["least"]


@pytest.mark.parametrize("printed", ["12.80221240751205", "13.244998070501513"])
def test_the_digits_printed_in_mova_40_are_means_of_31_numbers_in_single_precision(printed: str) -> None:
    """Between 8 and 16 single precision counts in 2 ** -20. Of all counts up to 61 only 31, that of the shifts, fits.

    github.com/OpenMOSS/MOVA/issues/40: two clips, LSE-C 4.4768114 and 6.9611187 beside. A least distance would be one
    number in single precision, as these LSE-C are.
    """

    def apart(count: int) -> float:
        steps = Fraction(float(printed)) * count * 2**20
        return abs(float(steps - round(steps)))

    # Half a unit in the last place of the printed double, in these steps.
    tolerance = {count: 0.5 * np.spacing(float(printed)) * count * 2**20 for count in range(1, 62)}
    assert [count for count in tolerance if apart(count) <= tolerance[count]] == [31]


# DeSync ---------------------------------------------------------------------------------------------------------------


class Sums(Synchformer):
    """In Synchformer's place: features are what pictures and sound sum up to, the class follows from all of them."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def see(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.double().mean((1, 2, 3, 4))[:, None, None].expand(-1, 8, 4)

    def hear(self, mel: torch.Tensor) -> torch.Tensor:
        return mel.double().mean((1, 2))[:, None, None].expand(-1, 6, 4)

    def compare(self, seen: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        assert seen.shape[1] == heard.shape[1] == 14
        places = torch.arange(1, 15)
        codes = ((seen[:, :, 0, 0] + heard[:, :, 0, 0]) * places).sum(1)
        return torch.nn.functional.one_hot((codes * 997).long() % 21, 21).float()


def javisbenchs(film: Film, seconds: float, net: Sums) -> float:
    """calc_desync_score and its data set told anew: black pictures, silence, chunks of 14 that go round."""
    from ccl.evaluation.metrics.desync import crops, log_mel

    want, rate = int(25 * seconds), 16_000
    shown = film.indices(25)[:want]
    video = crops(film.video, shown)
    video = torch.cat([video, torch.zeros(want - len(video), 224, 224, 3, dtype=torch.uint8)])
    audio = torch.from_numpy(film.sound(rate)[: int(rate * seconds)].copy())
    audio = torch.nn.functional.pad(audio, (0, int(rate * seconds) - len(audio)))
    count = (want - 16) // 8 + 1
    normal = video.permute(0, 3, 1, 2).float() / 127.5 - 1
    seen = torch.cat([net.see(normal[8 * i : 8 * i + 16][None]) for i in range(count)])
    heard = torch.cat([net.hear(log_mel(audio[5120 * i : 5120 * i + 10_240][None])) for i in range(count)])
    offsets = []
    for start in range(0, count, 14):
        some = list(range(start, min(start + 14, count)))
        if len(some) < 14:
            some = (some * 14)[:14] if start == 0 else list(range(count - 14, count))
        offsets.append(abs(-2 + 0.2 * int(net.compare(seen[some][None], heard[some][None]).argmax())))
    return float(np.mean(offsets))


def drifting(seconds: float, sound: float | None = None, fps: float = 25.0) -> Film:
    rng = np.random.default_rng(4)
    video = rng.integers(0, 256, (round(seconds * fps), 24, 32, 3)).astype(np.uint8)
    video = (video * np.linspace(0.2, 1, len(video))[:, None, None, None]).astype(np.uint8)
    samples = round((seconds if sound is None else sound) * 16_000)
    return Film(Clip(video, (rng.standard_normal(samples) * np.linspace(0, 0.5, samples)).astype("f4"), fps, 16_000))


def desync(one: DeSync, film: Film, monkeypatch: pytest.MonkeyPatch) -> float | str:
    monkeypatch.setattr(one, "network", Sums)
    [result] = one.score([film])
    return result.values["desync"] if isinstance(result, Measured) else result.reason


@pytest.mark.parametrize(("lasts", "asked"), [(3.0, 4.0), (6.0, 4.0), (2.2, 2.0), (12.0, 11.5)])
def test_javisbench_fills_up_goes_round_and_takes_chunk_after_chunk(
    lasts: float, asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = metric("javisbench", "desync")
    assert one.seconds == 4.0
    one.seconds = asked
    film = drifting(lasts)
    assert desync(one, film, monkeypatch) == pytest.approx(javisbenchs(film, asked, Sums()), abs=1e-6)


def test_a_clip_of_three_seconds_has_a_value_in_javisbench_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    film = drifting(3.0)
    told = {
        suite: desync(metric(suite, "desync"), film, monkeypatch) for suite in ("javisbench", "av-benchmark", "mova")
    }
    assert isinstance(told.pop("javisbench"), float)
    assert all("are asked for" in str(reason) for reason in told.values())
    assert "where DeSync needs 120" in str(desync(DeSync(), film, monkeypatch))


def test_mova_repeats_the_last_picture_and_av_benchmark_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures for 7.4 s, sound for 8: MOVA as if the last picture stood till 7.9 s."""
    short = drifting(7.4, sound=8.0)
    video, audio = short.video, short.audio
    longer = np.concatenate([video, np.repeat(video[-1:], round(7.9 * 25) - len(video), 0)])
    standing = Film(Clip(longer, audio[: int(7.9 * 16_000)], 25.0, 16_000))
    mova = metric("mova", "desync")
    assert (
        desync(mova, short, monkeypatch)
        == desync(DeSync(), standing, monkeypatch)
        == pytest.approx(desync(DeSync(seconds=7.9), standing, monkeypatch))
    )
    assert "8.00 s of both are asked for" in str(desync(metric("av-benchmark", "desync"), short, monkeypatch))
    assert "7.90 s of both" in str(desync(mova, drifting(8.0, sound=7.5), monkeypatch))
    eight = drifting(8.4)
    cut = Film(Clip(eight.video[:200], eight.audio[:128_000], 25.0, 16_000))
    assert desync(metric("av-benchmark", "desync"), eight, monkeypatch) == desync(DeSync(), cut, monkeypatch)


def test_conventions_that_need_a_length_say_so() -> None:
    with pytest.raises(ValueError, match="pad is 'last', which needs seconds"):
        DeSync(pad="last")
    with pytest.raises(ValueError, match=r"needs 0\.64 s of a clip, a segment"):
        DeSync(seconds=0.5, loop=True)
    with pytest.raises(ValueError, match="'official' sees whole clips"):
        IBScore(convention="official", seconds=8.0)
    with pytest.raises(ValueError, match="pad needs seconds"):
        IBScore(pad=True)
    with pytest.raises(ValueError, match="need 4"):
        IBScore(seconds=3.0)


# ImageBind ------------------------------------------------------------------------------------------------------------


def seen(film: Film, one: IBScore) -> list[int]:
    """Which pictures are looked at, of films whose pictures are as bright as their number."""
    return [int(value) for value in streamed(film, one.seconds, one.pad)[0].float().mean((1, 2, 3)).round()]


def counting(seconds: float, fps: float = 12.0) -> Film:
    count = round(seconds * fps)
    return Film(
        Clip(
            np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(224, 1).repeat(224, 2).repeat(3, 3), None, fps
        )
    )


def test_imagebind_sees_what_each_suite_streams() -> None:
    """A picture every 2 s by ffmpeg's fps filter, the last that begins before the middle of the next two seconds."""
    film, usual = counting(10.2), IBScore()
    last = [max(i for i in range(122) if i / 12 < 2 * n + 1 - 1e-9) for n in range(5)]
    assert seen(film, usual) == last
    assert seen(film, metric("av-benchmark", "ib")) == last[: int(0.5 * 8.0)]
    assert seen(film, metric("mova", "ib")) == last[: int(0.5 * 7.9)]
    assert metric("javisbench", "ib").convention == "official"
    short = counting(4.5)
    assert seen(short, metric("mova", "ib")) == [*last[:2], last[1]]  # its last picture once more
    with pytest.raises(Unscorable, match="which is 2 pictures 2 s apart; 4 are asked for"):
        seen(short, metric("av-benchmark", "ib"))


# Sets of sounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [5.0, 9.0])
def test_av_benchmark_hears_eight_seconds_and_its_passt_two_of_silence_more(seconds: float) -> None:
    """As its AudioDataset and the lines before its PaSST, told anew; in the last second of nine the sound is louder."""
    rng = np.random.default_rng(0)
    for name, rate in (("panns", 16_000), ("kl", 16_000), ("passt", 32_000), ("kl_passt", 32_000)):
        wave = (0.1 * rng.standard_normal(round(seconds * rate)) + 0.05).astype(np.float32)
        wave[8 * rate :] *= 5
        heard = (wave - wave.mean())[: int(rate * 8.0)]
        if "passt" in name:
            heard = heard[:320_000] if len(heard) >= 320_000 else np.pad(heard, (0, 320_000 - len(heard)))
        film = Film(Clip(None, wave, 25.0, rate))
        np.testing.assert_allclose(metric("av-benchmark", name).sound(film), heard, atol=1e-6)
    assert metric("av-benchmark", "fad").seconds == 8.0


@pytest.mark.parametrize(("seconds", "count"), [(1.2, 1), (4.0, 1), (10.0, 1), (12.5, 2), (15.0, 2), (16.0, 3)])
def test_verse_bench_hears_windows_of_a_sound_whose_peak_it_sets(seconds: float, count: int) -> None:
    """As its return_probabilities, told anew: a window that is shorter is filled up where it has more than 1.5 s."""
    wave = (0.1 * np.random.default_rng(0).standard_normal(round(seconds * 32_000)) + 0.05).astype(np.float32)
    loud, naive = wave * 10 ** (-1 / 20) / np.abs(wave).max(), []
    for start in range(0, max(160_000, len(wave) - 160_000), 160_000):
        window = loud[start : start + 320_000]
        if 48_000 < len(window) < 320_000:
            window = np.concatenate([window, np.zeros(320_000 - len(window))])
        naive.append(window)
    parts = metric("verse-bench", "kl_passt").parts(Film(Clip(None, wave, 25.0, 32_000)))
    assert [len(part) for part in parts] == [len(window) for window in naive] and len(naive) == count
    for part, window in zip(parts, naive, strict=True):
        np.testing.assert_allclose(part, window, atol=1e-6)


# Word error rate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "heard", "lang", "whisper", "verse", "fast"),
    [
        ("Hello, my friend.", "hello my friend", "en", (0, 3), (2, 3), (0, 3)),
        ("It's twenty two", "It is 22", "en", (0, 3), (3, 3), (3, 3)),
        ("Hello there", "...", "en", (2, 2), (2, 2), (2, 2)),
        ("你好,世界", "你好世界", "zh", (0, 4), (1, 1), (0, 4)),
        ("ＡＢＣ now", "abc now", "en", (0, 2), (1, 2), (0, 2)),  # noqa: RUF001 - full width
        ("well-known man", "well known man", "en", (0, 3), (2, 2), (2, 2)),
    ],
)
def test_one_hearing_is_as_many_errors_as_its_normaliser_has_it(
    said: str, heard: str, lang: str, whisper: Any, verse: Any, fast: Any
) -> None:
    assert metric("verse-bench", "wer").normaliser == "verse-bench"
    found = {how: word_errors(said, heard, lang, how) for how in ("whisper", "verse-bench", "fastvideo")}
    assert found == {"whisper": whisper, "verse-bench": verse, "fastvideo": fast}
    lowered = "" if heard == "..." else heard.strip().lower()  # wer/wer_inferencer.py:25-30
    assert verse[0] / verse[1] == pytest.approx(jiwer.wer(said.strip().lower(), lowered))


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(clips: Path) -> Path:
    return clips


def evaluate(folder: Path, out: Path, *argv: str) -> int:
    return cli.main(["evaluate", "--videos", str(folder), "-o", str(out), *argv])


@pytest.fixture
def short(tmp_path: Path) -> Path:
    (tmp_path / "short.yaml").write_text("av_align:\n  init_args: {height: 24}\n  lacks: a ruler\n")
    return tmp_path / "short.yaml"


def test_one_system_stands_in_one_table_by_several_protocols(
    folder: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(folder, out, "--metrics", "av_align") == 0
    single = {path.name: path.read_bytes() for path in out.iterdir() if path.name in ("scores.jsonl", "state.json")}
    both = ["--metrics", "av_align", "--protocol", "paper", "--protocol", str(short)]
    assert evaluate(folder, out, *both) == 0
    table = (out / "table.md").read_text()
    assert "| clips / paper |" in table and "| clips / short |" in table and "av_align / short: a ruler" in table
    hashes = re.findall(r"protocol (\w+): sha256 (\w{12})", table)
    assert [name for name, _ in hashes] == ["paper", "short"] and hashes[0][1] != hashes[1][1]
    states = {p: json.loads((out / "protocols" / p / "state.json").read_text()) for p in ("paper", "short")}
    assert [states[p]["metrics"]["av_align"]["height"] for p in states] == ["native", 24]
    kept = {p: (out / "protocols" / p / "scores.jsonl").read_bytes() for p in states}
    for name, lines in kept.items():
        assert {json.loads(line)["method"] for line in lines.splitlines()} == {f"clips / {name}"}
    told = {p: json.loads((out / "protocols" / p / "results.json").read_text())["about"] for p in states}
    assert all(about["protocol"] == p for p, about in told.items())
    assert "protocol: " not in table  # of all of them
    # What was scored by one protocol before is as it was, and a second run has nothing to do.
    assert all((out / name).read_bytes() == content for name, content in single.items())
    capsys.readouterr()
    assert evaluate(folder, out, *both) == 0
    assert {p: (out / "protocols" / p / "scores.jsonl").read_bytes() for p in states} == kept
    assert str(out / "protocols" / "short" / "scores.jsonl") in capsys.readouterr().out


def test_systems_are_compared_by_one_protocol_and_never_across_two(folder: Path, short: Path, tmp_path: Path) -> None:
    argv = ["--methods", f"other={folder}", "--metrics", "av_align", "--protocol", "paper", str(short)]
    assert evaluate(folder, tmp_path / "out", *argv) == 0
    with (tmp_path / "out/pairs.csv").open() as file:
        found = [(row["a"], row["b"]) for row in csv.DictReader(file)]
    assert found == [(f"clips / {name}", f"other / {name}") for name in ("paper", "short")]
    assert evaluate(folder, tmp_path / "alone", "--metrics", "av_align", "--protocol", "paper", str(short)) == 0
    table = (tmp_path / "alone/table.md").read_text()
    assert "distinguishable" not in table and "in the comparison" not in table


def test_a_protocol_by_which_nothing_was_measured_has_no_hash(folder: Path, tmp_path: Path) -> None:
    argv = ["--metrics", "desync", "--protocol", "mova", "javisbench"]
    assert evaluate(folder, tmp_path / "out", *argv) == 0
    table = (tmp_path / "out/table.md").read_text()
    assert "Not measured" in table and "protocol mova: nothing was measured by it" in table
    assert "protocol javisbench: nothing was measured by it" in table and "of its conventions" not in table


def test_results_of_one_protocol_do_not_stay_beside_a_table_of_several(
    folder: Path, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(folder, out, "--metrics", "av_align") == 0 and (out / "results.json").is_file()
    assert evaluate(folder, out, "--metrics", "av_align", "--protocol", "paper", str(short)) == 0
    assert not (out / "results.json").exists()
    capsys.readouterr()
    assert cli.main(["evaluate", "merge", str(out), str(out / "protocols/paper"), "-o", str(tmp_path / "both")]) == 2
    said = capsys.readouterr().err
    assert f"{out} is of several protocols, which are not merged; name one of {out / 'protocols'}: paper, short" in said


def test_the_papers_protocol_by_name_is_the_default_to_the_byte(folder: Path, tmp_path: Path) -> None:
    for name, argv in (("usual", []), ("named", ["--protocol", "paper"])):
        assert evaluate(folder, tmp_path / name, "--metrics", "av_align", *argv) == 0
    for file in ("scores.jsonl", "state.json", "table.csv", "summary.csv", "table.tex", "table.md"):
        assert (tmp_path / "named" / file).read_bytes() == (tmp_path / "usual" / file).read_bytes()


def test_true_clips_are_the_ceiling_by_every_protocol(folder: Path, short: Path, tmp_path: Path) -> None:
    argv = ["--metrics", "av_align", "--protocol", "paper", "--protocol", str(short), "--reference", str(folder)]
    assert evaluate(folder, tmp_path / "out", *argv) == 0
    kinds = [line.split(",")[:2] for line in (tmp_path / "out/table.csv").read_text().splitlines()[1:]]
    assert kinds == [
        ["clips / paper", "system"],
        ["clips / short", "system"],
        ["ceiling / paper", "ceiling"],
        ["ceiling / short", "ceiling"],
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--protocol", "mowa"], "there is no protocol 'mowa' (did you mean 'mova'?); there are paper, av-benchmark"),
        (["--protocol", "gone.yaml"], "there is no protocol file gone.yaml"),
        (["--protocol", "mova", "--protocol", "mova"], "two protocols are called 'mova'"),
        (
            ["--protocol", "mova", "--protocol", "joonson", "--metrics", "ib"],
            "protocol joonson states sync, and nothing of ib",
        ),
    ],
)
def test_a_protocol_that_cannot_be_measured_by_is_one_sentence(
    argv: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folder, tmp_path / "out", *argv) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_protocol_is_found_by_name_or_by_file(short: Path) -> None:
    named, own = protocols_of(["verse-bench", str(short)])
    assert named.lacks(["sync", "audiobox"]).keys() == {"sync"}
    assert (own.name, own.lacks(["av_align"])) == ("short", {"av_align": "a ruler"})
