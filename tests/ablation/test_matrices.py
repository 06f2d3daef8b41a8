"""Every matrix that ships, at every size: it reads, its runs are trainings that differ, its rows have rules."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ccl.ablation.budget import budget
from ccl.ablation.identity import identity
from ccl.ablation.jobs import Laboratory
from ccl.ablation.matrix import Matrix, Run
from ccl.ablation.reading import inlined, read
from ccl.cli.fit import resolve
from ccl.cli.parts import build
from ccl.cli.planned import Planned
from ccl.grid import Grid
from ccl.guidance import Guidance
from ccl.storage.run import leaves
from helpers import ROOT

HERE = ROOT / "configs" / "ablation"
MATRICES = sorted(file.stem for file in HERE.glob("*.yaml"))
SIZES = ["", *sorted(file.stem for file in (HERE / "size").glob("*.yaml"))]


def shipped(name: str, size: str) -> Matrix:
    return read(HERE / f"{name}.yaml", [HERE / "size" / f"{size}.yaml"] if size else [])


@cache
def resolved(argv: tuple[str, ...]) -> dict[str, Any]:
    return resolve(list(argv))


def as_trained(matrix: Matrix, run: Run) -> dict[str, Any]:
    """What a run trains with: what its matrix trains all with, resolved, and the run's own keys in their places."""
    config = copy.deepcopy(resolved(tuple(matrix.argv(Run("usual")))))
    for key, value in inlined(dict(run.keys)).items():
        node, (*above, last) = config, key.split(".")
        for step in above:
            node = node[step]
        assert last in node, f"{matrix.name}, {run.name}: there is no {key}"
        node[last] = value
    return config


def told(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says, by dotted key; a part without arguments says nothing of them, or that there are none."""
    return {key: value for key, value in leaves(config) if value != {}}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_that_ships_reads_and_its_runs_differ_in_keys_that_there_are(name: str, size: str) -> None:
    matrix = shipped(name, size)
    assert matrix.name == (f"{name}-{size}" if size else name)
    for rule in {str(row.guidance): row.guidance for row in matrix.rows}.values():
        assert rule is not None and build(Guidance, dict(rule), "guidance")
    trained = []
    for run in matrix.runs:
        if run.ckpt is None:
            config = as_trained(matrix, run)
            assert identity(config) not in trained, f"{run.name} is another run of the same"
            trained.append(identity(config))


@pytest.mark.parametrize("name", MATRICES)
def test_the_last_run_of_a_matrix_that_ships_is_built_and_has_tasks(name: str) -> None:
    matrix = shipped(name, "")
    config = as_trained(matrix, matrix.runs[-1])
    config["model"]["net"]["init_args"]["layers"] = 1  # they are alike
    planned = Planned(config, Grid(**config["grid"]))
    with torch.device("meta"):
        assert planned.make().blocks and planned.tasks


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_that_ships_is_resolved_and_counted(name: str, size: str, tmp_path: Path) -> None:
    laboratory = Laboratory(shipped(name, size), tmp_path, "cpu")
    laboratory.prepare()
    found = budget(laboratory)
    assert all(cost.flops > 0 and cost.bytes > 0 for costs in found.costs.values() for cost in costs)
    for run in laboratory.matrix.runs:
        if run.ckpt is None:
            assert told(laboratory.resolved[run.name]["model"]) == told(as_trained(laboratory.matrix, run)["model"])


def test_every_interaction_that_ships_stands_in_the_matrix_of_interactions() -> None:
    def named(size: str) -> set[str]:
        runs = shipped("interactions", size).runs
        return {Path(value).stem for run in runs for value in run.keys.values() if str(value).endswith(".yaml")}

    assert named("") | named("paper") == {file.stem for file in (ROOT / "configs" / "interaction").iterdir()}


@pytest.mark.parametrize(("size", "trained", "sampled"), [("smoke", 4, 2), ("hour", 200, 16)])
def test_a_smaller_size_keeps_what_a_matrix_compares_and_takes_its_own_steps(
    size: str, trained: int, sampled: int
) -> None:
    whole, small = shipped("table2", ""), shipped("table2", size)
    assert small.runs == whole.runs and small.compare == whole.compare
    assert [row.guidance for row in small.rows] == [row.guidance for row in whole.rows]
    assert resolved(tuple(small.argv(Run("usual"))))["trainer"]["max_steps"] == trained
    assert {row.sampling.steps for row in small.rows} == {sampled}


def test_table_2_within_the_hour_has_a_hundred_clips_a_row() -> None:
    small = shipped("table2", "hour")
    assert len(small.seeds) * len(small.test.subsets) * small.test.clips >= 100
