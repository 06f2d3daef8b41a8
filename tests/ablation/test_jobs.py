"""Jobs are keyed by what they follow from: finished ones are not repeated, changed ones are done anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ccl.ablation.identity import digest, identity
from ccl.ablation.matrix import Row, Sampling
from helpers.ablating import CONFIG, Toy, matrix, toy

RULE = {"class_path": "ccl.guidance.UCG2", "init_args": {"scale": {"video": 2.0, "audio": 2.0}}}


def do_all(laboratory: Toy) -> Toy:
    for job in laboratory.jobs:
        laboratory.do(job)
    return laboratory


def test_a_matrix_is_expanded_over_seeds_and_a_row_waits_for_its_own_run(tmp_path: Path) -> None:
    jobs = toy(tmp_path).jobs
    assert [job.name for job in jobs[:6]] == [
        *("runs/gate-s0", "rows/row0-s0", "rows/row2-s0"),
        *("runs/ccl-s0", "rows/row1-s0", "rows/row3-s0"),
    ]
    assert len(jobs) == 2 * (2 + 4)
    assert {job.needs for job in jobs if job.of in ("row1", "row3")} == {("runs/ccl-s0",), ("runs/ccl-s1",)}


def test_the_hash_is_that_of_values_not_of_their_order() -> None:
    turned = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    assert digest(identity(dict(reversed(turned.items())))) == digest(identity(CONFIG))


def test_the_hash_changes_with_each_value_that_a_result_follows_from() -> None:
    for key, value in {
        "seed_everything": 1,
        "trainer": {"max_steps": 5},
        "model": {**CONFIG["model"], "width": 9},
    }.items():
        assert digest(identity({**CONFIG, key: value})) != digest(identity(CONFIG)), key
    for key, value in {"name": "other", "runs_dir": "there", "checkpoint_every": 7}.items():
        assert digest(identity({**CONFIG, key: value})) == digest(identity(CONFIG)), key


def test_an_argument_that_is_null_leaves_the_hash_of_a_run_from_before_it() -> None:
    later = {**CONFIG, "model": {**CONFIG["model"], "head_dim": None}}
    assert digest(identity(later)) == digest(identity(CONFIG))


def test_what_is_finished_is_not_repeated(tmp_path: Path) -> None:
    do_all(toy(tmp_path))
    again = do_all(toy(tmp_path))
    assert sorted(again.asked) == sorted(job.name for job in again.jobs)


def test_a_changed_run_is_made_anew_with_its_rows_and_comes_back_with_the_old_value(tmp_path: Path) -> None:
    do_all(toy(tmp_path))
    first = {path: path.read_text() for path in (tmp_path / "runs").glob("*/model/*")}
    (tmp_path / "asked").unlink()
    laboratory = toy(tmp_path, config={**CONFIG, "model": {**CONFIG["model"], "width": 9}})
    assert not any(map(laboratory.done, laboratory.jobs))
    do_all(laboratory)
    assert len(laboratory.asked) == len(laboratory.jobs)
    assert {path: path.read_text() for path in (tmp_path / "runs").glob("*/model/*")} != first
    (tmp_path / "asked").unlink()
    assert do_all(toy(tmp_path)).asked == []
    assert {path: path.read_text() for path in (tmp_path / "runs").glob("*/model/*")} == first


@pytest.mark.parametrize("row", [Row("row0", "gate", RULE), Row("row0", "gate", sampling=Sampling(shift=3.0))])
def test_a_changed_rule_or_shift_makes_its_row_anew_alone(row: Row, tmp_path: Path) -> None:
    do_all(toy(tmp_path))
    (tmp_path / "asked").unlink()
    changed = do_all(toy(tmp_path, replace(matrix(), rows=(row, *matrix().rows[1:]))))
    assert changed.asked == ["rows/row0-s0", "rows/row0-s1"]


def test_a_shift_is_positive() -> None:
    with pytest.raises(ValueError, match="shift is -1; it must be positive"):
        Sampling(shift=-1.0)


def test_other_scores_measure_all_rows_again_and_train_nothing(tmp_path: Path) -> None:
    do_all(toy(tmp_path))
    (tmp_path / "asked").unlink()
    changed = do_all(toy(tmp_path, replace(matrix(), scores={"mouth": {}, "colours": {}})))
    assert {name.split("/")[0] for name in changed.asked} == {"rows"}
    assert not (tmp_path / "aside").exists()  # the clips are the same


def test_damaged_weights_are_trained_again(tmp_path: Path) -> None:
    laboratory = do_all(toy(tmp_path))
    (tmp_path / "runs" / "gate-s0" / "model" / "model.safetensors").write_text("half")
    left = [job.name for job in laboratory.jobs if not laboratory.done(job)]
    assert left == ["runs/gate-s0", "rows/row0-s0", "rows/row2-s0"]


def test_a_run_that_another_matrix_beside_it_has_trained_is_copied(tmp_path: Path) -> None:
    first = do_all(toy(tmp_path / "one"))
    second = toy(tmp_path / "two", replace(matrix(), name="other"))
    assert [job.kind for job in second.jobs if second.beside(job)] == ["runs"] * 4
    do_all(second)
    assert {name.split("/")[0] for name in second.asked} == {"rows"}
    assert all(map(second.done, second.jobs))
    state = second.state(second.jobs[0])
    assert state["copied_from"] in ("one/runs/gate-s0", "one/runs/ccl-s0")  # a toy's two runs are equal
    assert state["weights"] == first.state(first.jobs[0])["weights"]


def test_the_clips_of_an_equal_row_beside_it_are_taken_over(tmp_path: Path) -> None:
    do_all(toy(tmp_path / "one"))
    made = tmp_path / "one" / "rows" / "row0-s0" / "clips" / "a.mp4"
    made.parent.mkdir(exist_ok=True)
    made.write_text("a clip")
    first, second_row, *others = matrix().rows  # all are equal but for their names
    rows = (replace(first, name="same"), replace(second_row, name="row0", guidance=RULE), *others)
    other = replace(matrix(), name="other", rows=rows)
    second = toy(tmp_path / "two", other)
    for job in second.jobs:
        if job.kind == "runs":
            second.do(job)
    (same,) = (job for job in second.jobs if job.name == "rows/same-s0")
    assert (second._clips(same) / "a.mp4").read_text() == "a clip"  # whatever it is called
    (row0,) = (job for job in second.jobs if job.name == "rows/row0-s0")
    assert not second._clips(row0).exists()


def test_a_run_beside_it_that_is_damaged_unfinished_or_another_is_trained(tmp_path: Path) -> None:
    first = do_all(toy(tmp_path / "one"))
    (tmp_path / "one" / "runs" / "gate-s0" / "model" / "model.safetensors").write_text("half")
    (tmp_path / "one" / "runs" / "ccl-s0.json").write_text("{")
    for job in (job for job in first.jobs if job.kind == "runs" and job.seed == 1):
        first._say(job, hash=first.hash(job), whole=False)
    second = do_all(toy(tmp_path / "two"))
    assert [name for name in second.asked if "runs" in name] == [job.name for job in second.jobs if job.kind == "runs"]
    other = do_all(toy(tmp_path / "three", config={**CONFIG, "model": {**CONFIG["model"], "width": 9}}))
    assert len(other.asked) == len(other.jobs)
