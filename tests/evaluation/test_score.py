"""Scores of folders: failures are rows, what is there is not computed again, stopped runs end with the same numbers."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import unicodedata
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import media
from ccl.evaluation import WER, AVAlign, Colours, Onset, SyncNet
from ccl.evaluation.film import Film, Unscorable, constant_rate
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.score import score
from ccl.files import machine_trouble, one_writer
from ccl.media import Clip
from ccl.rows import Row

ROWS = [Row(id=f"c{i}", prompt="p", subset="easy" if i < 3 else "hard") for i in range(6)]


class Loudness(Metric):
    """Counts what it is asked; stumbles over silence."""

    name = "loudness"
    columns = (Column("peak", "Peak"), Column("average", "Average"))
    batch_size = 2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.prepared: list[str] = []
        self.batches: list[int] = []

    def protocol(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def prepare(self, film: Film) -> np.ndarray:
        self.prepared.append(film.row.id)
        if not film.audio.any():
            raise Unscorable("only silence")
        return np.abs(film.audio) * self.scale

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        self.batches.append(len(inputs))
        # As of a network, a number depends a little on its batch.
        extra = 1e-6 * len(inputs)
        return [Measured({"peak": float(a.max()) + extra, "average": float(a.mean())}) for a in inputs]


class Brittle(Loudness):
    name = "brittle"
    columns = (Column("brittle", "Brittle"),)

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        if any(a.max() > 0.25 for a in inputs):
            raise RuntimeError("too loud")
        return [Measured({"brittle": float(len(inputs))}) for _ in inputs]


class Weightless(Metric):
    name = "weightless"
    columns = (Column("nothing", "Nothing"),)

    def missing(self) -> str:
        return "it needs weights.pt"

    def prepare(self, film: Film) -> Any:
        raise AssertionError("must not be called")

    def measure(self, inputs: Sequence[Any]) -> list[Measured]:
        raise AssertionError("must not be called")


class Spread(Metric):
    """A number of a whole set."""

    name = "spread"
    columns = (Column("spread", "Spread", pooled=True),)

    def prepare(self, film: Film) -> float:
        return float(np.abs(film.audio).max())

    def measure(self, inputs: Sequence[float]) -> list[Measured]:
        return [Measured({}, np.array([value])) for value in inputs]

    def pool(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None = None) -> dict[str, float]:
        own = {"spread": float(np.ptp(features))}
        return own | ({"shift": float(np.mean(features) - np.mean(reference))} if reference else {})


def clip(i: int = 0) -> Clip:
    video = np.full((5, 16, 16, 3), 40 * i, np.uint8)
    return Clip(video, (0.1 * (i + 1) * np.sin(np.arange(3200) / 5)).astype(np.float32), id=f"c{i}")


@pytest.fixture
def folder(tmp_path) -> Path:
    """c0 to c2 are fine, c3 is silent, c4 is broken, c5 is missing."""
    folder = tmp_path / "clips"
    for i in range(4):
        (clip(i) if i < 3 else replace(clip(i), audio=np.zeros(3200, np.float32))).save(folder / f"c{i}.mp4")
    (folder / "c4.mp4").write_bytes(b"no film")
    return folder


def run(folder: Path, metrics: list[Metric], out: Path, **settings: Any):
    return score({"mine": folder}, ROWS, metrics, out, **settings)


def by(results) -> dict[tuple[str, str], dict]:
    return {(row["id"], row["metric"]): row for row in results.rows}


def test_every_clip_and_column_is_a_row_with_a_value_or_a_reason(folder, tmp_path):
    rows = by(run(folder, [Loudness(), Weightless()], tmp_path / "out"))
    assert set(rows) == {(r.id, c) for r in ROWS for c in ("peak", "average", "nothing")}
    assert rows["c0", "peak"]["value"] > 0.05 and rows["c0", "peak"]["reason"] is None
    assert rows["c3", "peak"] == {
        "method": "mine",
        "id": "c3",
        "metric": "peak",
        "value": None,
        "reason": "only silence",
    }
    assert "no media file" in rows["c4", "average"]["reason"]
    assert rows["c5", "average"]["reason"] == "there is no such clip"
    assert rows["c0", "nothing"]["reason"] == "it needs weights.pt"
    assert [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()] == list(
        rows.values()
    )


def test_a_clip_that_breaks_a_batch_is_alone_in_its_row(folder, tmp_path):
    rows = by(run(folder, [Brittle()], tmp_path / "out"))
    assert rows["c2", "brittle"]["reason"] == "RuntimeError: too loud"
    assert rows["c0", "brittle"]["value"] == 2.0


def test_a_second_run_computes_nothing(folder, tmp_path):
    first = run(folder, [Loudness(), Spread()], tmp_path / "out")
    again = [Loudness(), Spread()]
    assert run(folder, again, tmp_path / "out").rows == first.rows
    assert again[0].prepared == [] and again[0].batches == []


def test_a_changed_clip_a_changed_row_and_a_changed_protocol_are_scored_again(folder, tmp_path):
    run(folder, [Loudness()], tmp_path / "out")
    clip(2).save(folder / "c0.mp4")
    metric = Loudness()
    rows = by(run(folder, [metric], tmp_path / "out"))
    assert metric.prepared == ["c0", "c1"], "the batch of the clip that changed, and no other"
    assert rows["c0", "peak"]["value"] == pytest.approx(rows["c2", "peak"]["value"], abs=1e-5)
    metric = Loudness()
    score({"mine": folder}, [*ROWS[:5], replace(ROWS[5], speech="x")], [metric], tmp_path / "out")
    assert metric.prepared == []
    score({"mine": folder}, [replace(ROWS[0], speech="x"), *ROWS[1:5]], [metric], tmp_path / "out")
    assert metric.prepared == ["c0", "c1"]
    metric = Loudness(scale=2.0)
    run(folder, [metric], tmp_path / "out")
    assert metric.prepared == ["c0", "c1", "c2", "c3"]


def test_a_missing_clip_is_scored_when_it_appears(folder, tmp_path):
    run(folder, [Loudness()], tmp_path / "out")
    clip(1).save(folder / "c5.mp4")
    assert by(run(folder, [Loudness()], tmp_path / "out"))["c5", "peak"]["value"] > 0.1


@pytest.mark.parametrize("at", range(1, 14, 3))
def test_a_run_that_was_stopped_ends_with_the_same_numbers(folder, tmp_path, at):
    whole = run(folder, [Loudness(), Brittle(), Spread()], tmp_path / "whole")

    def stop(done: int, of: int, text: str) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, [Loudness(), Brittle(), Spread()], tmp_path / "out", progress=stop)
    with (tmp_path / "out/scores.jsonl").open("a") as file:
        file.write('{"method": "mine", "id": "c1", "metr')  # what a kill leaves
    resumed = run(folder, [Loudness(), Brittle(), Spread()], tmp_path / "out")
    assert resumed.rows == whole.rows and resumed.pooled == whole.pooled
    assert (tmp_path / "out/scores.jsonl").read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()


def test_rows_of_other_runs_stay_in_the_file(folder, tmp_path):
    run(folder, [Loudness()], tmp_path / "out")
    score({"other": folder}, ROWS, [Brittle()], tmp_path / "out")
    metric = Loudness()
    run(folder, [metric], tmp_path / "out")
    assert metric.prepared == []
    lines = (tmp_path / "out/scores.jsonl").read_text().splitlines()
    assert {(row["method"], row["metric"]) for row in map(json.loads, lines)} == {
        ("mine", "peak"),
        ("mine", "average"),
        ("other", "brittle"),
    }


def test_numbers_of_whole_sets_come_for_each_subset_and_against_the_reference(folder, tmp_path):
    true = tmp_path / "true"
    for i in range(3):
        replace(clip(i), audio=clip(i).audio / 2).save(true / f"c{i}.mp4")
    results = score({"mine": folder, "true": true}, ROWS, [Spread()], tmp_path / "out", reference="true")
    pooled = {(p["method"], p["subset"], p["name"]): p["value"] for p in results.pooled}
    assert pooled["mine", "easy", "spread"] == pytest.approx(0.2, abs=0.03)
    assert pooled["mine", "easy", "spread.shift"] == pytest.approx(0.1, abs=0.03)
    assert ("true", "easy", "spread.shift") not in pooled


def test_progress_reaches_the_end(folder, tmp_path):
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        run(folder, [Loudness(), Brittle()], tmp_path / "out", progress=lambda n, of, _: seen.append((n, of)))
        assert seen[-1] == (12, 12)
        seen.clear()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of clips .*gone"):
        run(tmp_path / "gone", [], tmp_path / "out")


def test_files_are_found_by_sanitised_ids_and_never_outside(tmp_path):
    clip().save(tmp_path / "clips/a_b.mp4")
    clip().save(tmp_path / "c.mp4")
    rows = [Row("a/b"), Row("../c")]
    found = by(score({"m": tmp_path / "clips"}, rows, [Loudness()], tmp_path / "out"))
    assert found["a/b", "peak"]["value"] is not None
    assert found["../c", "peak"]["reason"] == "there is no such clip"


NAMES = [
    "my clip (1)",
    "[red]x[%2F]",
    "\u00fcn\u00ef \u201cx\u201d \u6f22",
    "new\nline",
    "a' & <b>",
    "-dash",
    "\u6f22" * 80,
]


def test_clips_of_any_name_are_found_by_it(tmp_path):
    for i, name in enumerate([*NAMES, "caps"]):
        (path := tmp_path / "clips" / f"{name}.mp4").parent.mkdir(exist_ok=True)
        clip(i % 3).save(tmp_path / "clip.mp4")
        (tmp_path / "clip.mp4").replace(path if name != "caps" else path.with_suffix(".MP4"))
    metrics: list[Metric] = [Loudness(), Spread()]
    rows = [Row(name) for name in [*NAMES, "caps", "\u6f22" * 300]]
    results = score({"\u6f22" * 300: tmp_path / "clips"}, rows, metrics, tmp_path / "out")
    reasons = {row["id"]: row["reason"] for row in results.rows if row["metric"] == "peak"}
    assert "no such clip" in reasons.pop("\u6f22" * 300)
    assert reasons == dict.fromkeys([*NAMES, "caps"])
    metrics = [Loudness(), Spread()]
    assert score({"\u6f22" * 300: tmp_path / "clips"}, rows, metrics, tmp_path / "out").rows == results.rows
    assert metrics[0].prepared == [] and metrics[1].pool is not None


def test_text_that_is_no_unicode_is_kept(folder, tmp_path):
    rows = [Row("c0", prompt="\udcff"), Row("x\ud800")]
    first = score({"m\udcff": folder}, rows, [Loudness(), Spread()], tmp_path / "out")
    metric = Loudness()
    assert score({"m\udcff": folder}, rows, [metric, Spread()], tmp_path / "out").rows == first.rows
    assert metric.prepared == []


def test_methods_of_like_names_keep_their_own_numbers(folder, tmp_path):
    other = tmp_path / "other"
    clip(2).save(other / "c0.mp4")
    results = score({"a b": folder, "a_b": other, "a/b": other}, ROWS[:2], [Spread()], tmp_path / "out")
    assert len(list((tmp_path / "out/features/spread").iterdir())) == 3
    spread = {p["method"]: p.get("own", p["value"]) for p in results.pooled if p["subset"] == "all"}
    assert spread["a b"] == pytest.approx(0.1, abs=0.02) and spread["a_b"] == 0.0


def test_numbers_of_whole_sets_follow_their_clips_and_protocol(folder, tmp_path):
    class Scaled(Spread):
        scale = 1.0

        def protocol(self) -> dict[str, Any]:
            return {"scale": self.scale}

        def measure(self, inputs: Sequence[float]) -> list[Measured]:
            return [Measured({}, np.array([value * self.scale])) for value in inputs]

    def spread(metric: Metric, rows: list[Row] = ROWS[:3]) -> float:
        return score({"mine": folder}, rows, [metric], tmp_path / "out").pooled[-1]["value"]

    assert spread(Scaled()) == pytest.approx(0.2, abs=0.03)
    clip(0).save(folder / "c2.mp4")
    assert spread(Scaled()) == pytest.approx(0.1, abs=0.03)
    twice = Scaled()
    twice.scale = 2.0
    assert spread(twice, ROWS[:1]) == 0.0
    assert spread(twice) == pytest.approx(0.22, abs=0.04), "of all clips, and none of the old numbers"


FOREIGN = {
    "NaN": '{"method": "mine", "id": "c0", "metric": "peak", "value": NaN, "reason": null}',
    "infinite": '{"method": "mine", "id": "c0", "metric": "peak", "value": 1e999, "reason": null}',
    "huge": '{"method": "mine", "id": "c0", "metric": "peak", "value": 1%s, "reason": null}' % ("0" * 400),
    "text": '{"method": "mine", "id": "c0", "metric": "peak", "value": "x", "reason": null}',
    "list": '{"method": ["mine"], "id": "c0", "metric": "peak", "value": 1.0, "reason": null}',
    "nothing": '{"method": "mine", "id": "c0", "metric": null, "value": null, "reason": null}',
    "no value": '{"method": "mine", "id": "c0", "metric": "peak", "reason": "x"}',
    "no reason": '{"method": "mine", "id": "c0", "metric": "peak", "value": 3.0}',
    "both": '{"method": "mine", "id": "c0", "metric": "peak", "value": 3.0, "reason": "x"}',
    "deep": "[" * 100_000,
    "other": '{"a": 1}',
}


@pytest.mark.parametrize("what", FOREIGN)
def test_lines_that_are_no_scores_are_passed_over(what, folder, tmp_path):
    first = run(folder, [Loudness()], tmp_path / "out")
    with (tmp_path / "out/scores.jsonl").open("a") as file:
        file.write(FOREIGN[what] + "\n")
    assert run(folder, [Loudness()], tmp_path / "out").rows == first.rows


@pytest.mark.parametrize(
    "state", ["", "[]", "[" * 100_000, '{"metrics": [], "clips": {}}', '{"metrics": {}, "clips": {"mine": 5}}']
)
def test_scores_of_which_nothing_says_where_they_come_from_are_put_aside(state, folder, tmp_path):
    first = run(folder, [Loudness()], tmp_path / "out")
    before = (tmp_path / "out/scores.jsonl").read_bytes()
    (tmp_path / "out/state.json").write_text(state)
    metric = Loudness()
    assert run(folder, [metric], tmp_path / "out").rows == first.rows
    assert metric.prepared == ["c0", "c1", "c2", "c3"]
    assert (tmp_path / "out/scores.old.jsonl").read_bytes() == before


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, doubled, or with bytes in it that no number is made of."""
    at, end = sorted(rng.integers(0, len(data), 2).tolist())
    junk = bytes(rng.choice([0, 34, 44, 91, 123, 125, 128, 255], rng.integers(1, 9)).tolist())
    return [data[:at], data[:at] + data[end:], data[:end] + data[at:], data[:at] + junk + data[at:]][rng.integers(4)]


@pytest.mark.parametrize("file", ["scores.jsonl", "state.json", "features/spread/mine/c1.npy"])
def test_whatever_is_damaged_is_measured_again_and_nothing_is_lost(file, folder, tmp_path):
    out, rng = tmp_path / "out", np.random.default_rng(5)
    for name in ("c2.mp4", "c3.mp4"):
        (folder / name).unlink()
    first = run(folder, [Loudness(), Spread()], out)
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for _ in range(25):
        for path in out.glob("scores.old*"):
            path.unlink()
        (out / file).write_bytes(damaged := mutated(whole[out / file], rng))
        again = run(folder, [Loudness(), Spread()], out)
        assert again.rows == first.rows and again.pooled == first.pooled
        for path, data in whole.items():
            assert path.name == "state.json" or path.read_bytes() == data
        kept = [path.read_bytes() for path in out.glob("scores.old*")]
        lines = damaged.splitlines(keepends=True) if file == "scores.jsonl" else []
        if any(line not in whole[out / file] and line.endswith(b"\n") for line in lines):
            assert kept == [damaged]


def test_what_was_put_aside_is_never_replaced(folder, tmp_path):
    for text in ("[]", "{}"):
        run(folder, [Loudness()], tmp_path / "out")
        (tmp_path / "out/state.json").write_text(text)
    run(folder, [Loudness()], tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").glob("scores.old*")} == {"scores.old.jsonl", "scores.old-2.jsonl"}


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(1,", "__import__('os')"])
def test_a_feature_that_lies_about_its_size_takes_no_memory(shape, folder, tmp_path):
    first = run(folder, [Spread()], tmp_path / "out")
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    feature = tmp_path / "out/features/spread/mine/c2.npy"
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    feature.write_bytes(data + bytes(4))
    assert run(folder, [Spread()], tmp_path / "out").pooled == first.pooled


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\x03\x04 no archive", None])
def test_a_damaged_feature_is_made_again(damage, folder, tmp_path):
    first = run(folder, [Spread()], tmp_path / "out")
    feature = next((tmp_path / "out/features").rglob("c2.npy"))
    feature.write_bytes(feature.read_bytes()[:-3] if damage is None else damage)
    assert run(folder, [Spread()], tmp_path / "out").pooled == first.pooled


def test_one_run_at_a_time_writes_into_a_folder(folder, tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as other:
        other.write("4711 on host")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"out is being written by another process \(4711 on host\); wait for it"):
            run(folder, [Loudness()], tmp_path / "out")
        assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"]
    with one_writer(tmp_path / "out"):
        run(folder, [Loudness()], tmp_path / "out")


def test_what_was_measured_outlives_weights_that_are_gone(folder, tmp_path):
    class Gone(Loudness):
        def missing(self) -> str:
            return "it needs weights.pt"

    first = run(folder, [Loudness()], tmp_path / "out")
    gone = run(folder, [Gone()], tmp_path / "out")
    assert by(gone) == by(first) and gone.protocol["loudness"] == {"missing": "it needs weights.pt"}
    clip(1).save(folder / "c0.mp4")
    assert by(run(folder, [Gone()], tmp_path / "out"))["c0", "peak"]["reason"] == "it needs weights.pt"
    metric = Loudness()
    rows = by(run(folder, [metric], tmp_path / "out"))
    assert metric.prepared == ["c0", "c1"] and rows["c0", "peak"]["value"] is not None


def test_weights_of_something_else_stop_their_own_metric_alone(folder, tmp_path):
    class Odd(Loudness):
        name = "odd"
        columns = (Column("odd", "Odd"),)

        def protocol(self) -> dict[str, Any]:
            raise AttributeError("no checkpoint")

    rows = by(run(folder, [Odd(), Loudness()], tmp_path / "out"))
    assert rows["c0", "odd"]["reason"] == "odd cannot run: AttributeError: no checkpoint"
    assert rows["c0", "peak"]["value"] is not None


@pytest.mark.parametrize("name", ["all", "mean"])
def test_no_subset_is_called_as_the_whole(name, folder, tmp_path):
    with pytest.raises(ValueError, match=f"called '{name}'"):
        score({"mine": folder}, [replace(ROWS[0], subset=name)], [Loudness()], tmp_path / "out")


def test_metrics_stand_alone_as_torchmetrics(folder):
    metric = Loudness()
    first = metric([folder / "c0.mp4", clip(1)])
    assert first["scored"] == 2.0 and first["peak"] == pytest.approx(0.15, abs=0.02)
    metric.update([folder / "c3.mp4", Film.read(folder / "c2.mp4")])
    assert metric.compute()["peak"] == pytest.approx(0.2, abs=0.02)
    assert (metric.compute()["scored"], metric.compute()["failed"]) == (3.0, 1.0)
    metric.reset()
    assert metric([clip(0)])["scored"] == 1.0
    with pytest.raises(ValueError, match=r"weights\.pt"):
        Weightless().update([clip()])


def test_corpus_rates_divide_sums():
    rate = Column("wer", "WER", over=("errors", "words"))
    values = {"errors": np.array([1.0, np.nan, 3.0]), "words": np.array([10.0, np.nan, 2.0]), "wer": np.zeros(3)}
    assert rate.aggregate(values) == pytest.approx(4 / 12)


@pytest.mark.parametrize("rate", [15, 16, 24, 25, 29.97, 30, 60])
@pytest.mark.parametrize("to", [25, 16, 0.5])
def test_constant_rates_are_those_of_ffmpegs_filter(rate, to):
    from fractions import Fraction

    import av
    import av.filter

    count, base = 150, Fraction(1, 90_000)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=base)
    chain = [source, graph.add("fps", f"fps={to}"), graph.add("buffersink")]
    for a, b in pairwise(chain):
        a.link_to(b)
    graph.configure()
    times, shown = [], []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), i, np.uint8), format="gray")
        frame.pts, frame.time_base = round(i / rate * 90_000), base
        frame.duration = round(90_000 / rate)
        times.append(frame.pts / 90_000)
        graph.push(frame)
    graph.push(None)
    while True:
        try:
            shown.append(int(graph.pull().to_ndarray()[0, 0]))
        except (av.error.EOFError, av.error.BlockingIOError):
            break
    assert constant_rate(np.array(times), count / rate, to).tolist() == shown


# Whose fault it is ---------------------------------------------------------------------------------------------------

TROUBLES = {
    "no memory": MemoryError(),
    "open files": OSError(errno.EMFILE, "Too many open files"),
    "full disk": OSError(errno.ENOSPC, "No space left on device", "x.wav"),
    "threads": RuntimeError("can't start new thread"),
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes"),
    "killed": subprocess.CalledProcessError(-9, ["ffmpeg"]),
    "worker": BrokenProcessPool("A process in the process pool was terminated abruptly"),
}


@pytest.mark.parametrize("step", ["prepare", "measure", "load", "read"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_machines_trouble_ends_the_run_and_is_nobodys_result(trouble, step, folder, tmp_path, monkeypatch):
    whole = run(folder, [Loudness()], tmp_path / "whole")

    def stumble(*_: Any, **__: Any) -> Any:
        try:
            raise TROUBLES[trouble]
        except Exception as error:  # as libraries do that tell it in their own words
            raise ValueError("cannot be done") from error

    with monkeypatch.context() as patch:
        metric = Loudness()
        patch.setattr(*((Film, "read") if step == "read" else (metric, step)), stumble)
        with pytest.raises(OSError, match=r"c\d.*the same command.* goes on from here"):
            run(folder, [metric], tmp_path / "out")
        assert (tmp_path / "out/scores.jsonl").read_text() == ""
    assert run(folder, [Loudness()], tmp_path / "out").rows == whole.rows
    assert (tmp_path / "out/scores.jsonl").read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()


def test_no_file_descriptors_left_is_no_clips_fault(folder, tmp_path):
    """As the system says it: libav opens files by itself, and has errors of its own."""
    limit, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        with suppress(OSError):
            while True:
                held.append((folder / "c0.mp4").open("rb"))
        with pytest.raises((OSError, ValueError), match="Too many open files") as raised:
            media.read_natural(folder / "c0.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for file in held:
            file.close()
    assert machine_trouble(raised.value)


def claiming(path: Path) -> None:
    """Let the table of times of an mp4 claim 2^28 entries, for which libav asks for 2 GB."""
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 8
    data[at : at + 4] = (2**28 - 1).to_bytes(4, "big")
    path.write_bytes(bytes(data))


def test_a_clip_that_claims_all_memory_is_its_own_fault(folder, tmp_path, monkeypatch):
    claiming(folder / "c1.mp4")
    rows = by(run(folder, [Loudness()], tmp_path / "out"))
    assert "Cannot allocate memory" in rows["c1", "peak"]["reason"] and rows["c2", "peak"]["value"] is not None
    monkeypatch.setattr("ccl.files.errors.SPARE", 2**62)  # as where memory is short
    with pytest.raises(OSError, match=r"c1\.mp4: .*Cannot allocate memory.* goes on from here"):
        run(folder, [Loudness()], tmp_path / "other")


def test_what_only_sounds_like_the_machine_is_the_clips_fault(folder, tmp_path):
    class Quoting(Loudness):
        def prepare(self, film: Film) -> np.ndarray:
            raise ValueError("the prompt 'out of memory' asks for nothing")

    assert "asks for nothing" in by(run(folder, [Quoting()], tmp_path / "out"))["c0", "peak"]["reason"]


@pytest.mark.parametrize("step", ["prepare", "measure", "load"])
def test_a_package_that_is_not_here_is_the_metrics_and_is_forgotten_when_it_is(step, folder, tmp_path, monkeypatch):
    whole = run(folder, [Loudness()], tmp_path / "whole")
    lame, sound = Loudness(), Brittle()

    def lacking(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'onnxruntime'")

    monkeypatch.setattr(lame, step, lacking)
    first = run(folder, [lame, sound], tmp_path / "out")
    assert first.missing == {"loudness": "ModuleNotFoundError: No module named 'onnxruntime'"}
    assert by(first)["c0", "peak"]["value"] is None and by(first)["c0", "brittle"]["value"] is not None
    rows = by(run(folder, [Loudness()], tmp_path / "out"))
    assert {key: row for key, row in rows.items() if key[1] != "brittle"} == by(whole)


def test_records_are_those_of_the_clips_that_were_scored(folder, tmp_path):
    record = {"guidance": {"rule": "UCG2"}, "steps": 20, "solver": "euler", "weights": "c754fe"}
    for name in ("c0.json", ".partial-host-1-abcd-c1.json", ".c2.json", "elsewhere.json"):
        (folder / name).write_text(json.dumps(record))
    found = run(folder, [Loudness()], tmp_path / "out").causes["mine"]
    assert found == ["1 clips: weights c754fe, UCG2, 20 steps of euler, from text"]


# Nothing to measure --------------------------------------------------------------------------------------------------


class Spoken(Loudness):
    """Asks for speech where the test set says what is spoken."""

    name = "spoken"
    columns = (Column("spoken", "Spoken"),)

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "nothing was to be spoken" if speech and not row.speech else ""

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        return [Measured({"spoken": float(a.max())}) for a in inputs]


def test_what_there_is_nothing_to_measure_in_is_apart_from_what_failed(folder, tmp_path):
    """c1 and c5 (which is not there) have no speech; c3 is silent though it should speak."""
    rows = [replace(row, speech="" if row.id in ("c1", "c5") else "hello") for row in ROWS]

    def scored(rows: list[Row]) -> dict[str, dict]:
        results = score({"mine": folder}, rows, [Spoken()], tmp_path / "out")
        return {row["id"]: row for row in results.rows}

    found = scored(rows)
    assert {id for id, row in found.items() if row.get("applicable") is False} == {"c1", "c5"}
    assert found["c1"]["reason"] == found["c5"]["reason"] == "nothing was to be spoken" and found["c1"]["value"] is None
    assert "applicable" not in found["c3"] and found["c3"]["reason"] == "only silence"
    # What the other rows say decides whether it applies; nothing stays of what was said before.
    assert scored(ROWS)["c1"]["value"] is not None and scored(ROWS)["c5"]["reason"] == "there is no such clip"
    assert scored(rows) == found


def test_the_measures_of_speech_colours_and_references_say_where_they_do_not_apply():
    def reason(metric: Metric, row: Row, speech: bool = True) -> str:
        return metric.inapplicable(row, speech=speech)

    mute, talk = Row("a", prompt="A drum."), Row("a", prompt='A man in a green shirt says "hello"')
    assert reason(WER(), mute) == reason(SyncNet(), mute) == "nothing was to be spoken"
    assert reason(WER(), talk) == reason(SyncNet(), talk) == reason(WER(), Row("a", speech="hello")) == ""
    assert reason(SyncNet(), mute, speech=False) == "", "where no row says what is spoken, a face may be wanted"
    assert "asks for no colour" in reason(Colours(), mute) and reason(Colours(), talk) == ""
    assert reason(Onset(), mute) == "no reference clip to compare its onsets with"
    assert reason(Onset(), replace(mute, reference="x.mp4")) == "" == reason(Loudness(), mute)


def test_values_that_a_measure_leaves_out_are_named(folder, tmp_path):
    class Half(Loudness):
        def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
            return [Measured({"average": float("nan")}) for _ in inputs]

    rows = by(run(folder, [Half()], tmp_path / "out"))
    assert rows["c0", "peak"]["reason"] == "loudness finds no 'peak' in it"
    assert rows["c0", "average"]["reason"] == "its 'average' is nan"


def test_sets_are_compared_on_the_clips_that_all_have(folder, tmp_path):
    other = tmp_path / "other"
    for i in (0, 2):
        clip(i).save(other / f"c{i}.mp4")
    both = score({"mine": folder, "other": other}, ROWS[:3], [Spread()], tmp_path / "out").pooled
    alone = {
        n: score({"m": folder}, [ROWS[i] for i in ids], [Spread()], tmp_path / f"{n}").pooled[-1]["value"]
        for n, ids in (("common", (0, 2)), ("all", (0, 1, 2)), ("two", (0, 1)))
    }
    mine, theirs = ({p["subset"]: p for p in both if p["method"] == m}["easy"] for m in ("mine", "other"))
    assert (mine["value"], mine["own"], mine["clips"], mine["scored"]) == (alone["common"], alone["all"], 2, 3)
    assert (theirs["value"], theirs["clips"]) == (pytest.approx(alone["common"], abs=1e-6), 2) and "own" not in theirs
    (folder / "c2.mp4").unlink()
    (other / "c0.mp4").unlink()
    apart = score({"mine": folder, "other": other}, ROWS[:3], [Spread()], tmp_path / "out").pooled
    assert all(line["common"] is False for line in apart) and apart[0]["value"] == alone["two"]


def test_onsets_are_compared_with_the_true_clips_of_the_reference(tmp_path):
    """Two hits; the clip has the first alone: by hand half of the onsets are met, whatever the row itself names."""
    sound = np.zeros(32_000, np.float32)
    for at in (8_000, 24_000):
        sound[at : at + 800] = 0.8 * np.sin(np.arange(800)) * np.linspace(1, 0, 800)
    first = sound.copy()
    first[16_000:] = 0
    for folder, samples in (("true", sound), ("mine", first)):
        Clip(np.zeros((50, 16, 16, 3), np.uint8), samples).save(tmp_path / folder / "c0.mp4")
    methods = {"mine": tmp_path / "mine", "true": tmp_path / "true"}
    for row in (Row("c0"), Row("c0", reference=str(tmp_path / "mine/c0.mp4"))):
        results = score(methods, [row, Row("c1")], [Onset()], tmp_path / "out", reference="true")
        found = {(r["method"], r["id"]): r for r in results.rows if r["metric"] == "onset_acc"}
        assert (found["mine", "c0"]["value"], found["true", "c0"]["value"]) == (0.5, 1.0)
        assert found["mine", "c1"]["applicable"] is False


def test_one_clip_or_name_is_no_list_of_them() -> None:
    for call in (AVAlign().score, AVAlign()):  # else the name is walked over letter by letter
        with pytest.raises(ValueError, match=r"av_align takes a list of clips, not 'clip.mp4'"):
            call("clip.mp4")


def test_two_forms_of_one_id_are_not_scored_on_one_file(tmp_path: Path) -> None:
    rows = [Row(unicodedata.normalize(form, "é")) for form in ("NFC", "NFD")]
    with pytest.raises(ValueError, match="names the clip 'é' twice"):
        score({"a": tmp_path}, rows, [Colours()], tmp_path / "out")
