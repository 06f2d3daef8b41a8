"""Scores that are in a folder already: not computed again where they are right, and never taken for right where not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ccl.evaluation.metrics.base import Measured, Metric
from ccl.evaluation.score import score
from ccl.files import one_writer
from ccl.rows import Row
from helpers.metrics import ROWS, Brittle, Loudness, Spread, by, clip, run


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
