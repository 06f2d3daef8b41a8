"""Scores of folders: failures are rows, what is there is not computed again, stopped runs end with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccl.evaluation.film import Film, Unscorable, constant_rate
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.score import score
from ccl.rows import Row
from ccl.types import Clip

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
    assert rows["c5", "average"]["reason"] == "c5.mp4 is missing"
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
    assert found["../c", "peak"]["reason"] == "c.mp4 is missing"


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
