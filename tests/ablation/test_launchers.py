"""Launchers do every job once, in its order, whatever is killed on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccl.ablation.jobs import Job
from ccl.ablation.launchers import local, slurm
from ccl.ablation.launchers import ray as on_ray
from ccl.ablation.launchers.schedule import ATTEMPTS, Schedule
from ccl.ablation.verb import parse
from ccl.cli.errors import UsageError
from helpers import ROOT, TESTS, ablating
from helpers.ablating import Counted, jobs, matrix, toy

TABLE2 = ROOT / "configs" / "ablation" / "table2.yaml"


def left(work: Counted, some: list[Job]) -> dict[str, str]:
    return {job.folder: (work.folder / job.folder).read_text() for job in some if (work.folder / job.folder).exists()}


def test_a_run_and_twenty_rows_are_done_once_each(tmp_path: Path) -> None:
    work, some = Counted(tmp_path), jobs(20)
    schedule = Schedule(some, work.done)
    local.run(schedule, work, workers=2)
    assert schedule.done == {job.name for job in some}
    assert left(work, some) == dict.fromkeys([job.folder for job in some], "begun\ndone\n")


def test_towards_the_end_the_runs_that_are_left_go_before_rows() -> None:
    """Table 2 in its three seeds, a run four times as long as a row: two workers are never left with one run."""
    runs = {"gate": 1, "tarp": 1, "ccl": 3}
    every = [
        job
        for seed in range(3)
        for run, rows in runs.items()
        for job in (
            Job("runs", run, seed),
            *(Job("rows", f"{run}{row}", seed, (f"runs/{run}-s{seed}",)) for row in range(rows)),
        )
    ]

    def clock(workers: int) -> tuple[float, list[str]]:
        schedule, now, ends, order = Schedule(every, lambda job: False, workers), 0.0, [], []
        while True:
            while len(ends) < 2 and (job := schedule.next()) is not None:
                ends.append((now + (4 if job.kind == "runs" else 1), job.name, job))
                order.append(job.name)
            if not ends:
                return now, order
            ends.sort(key=lambda end: end[:2])
            now, _, job = ends.pop(0)
            schedule.finish(job)

    in_order, _ = clock(1)  # as one worker would have it
    at_most, order = clock(2)
    assert at_most < in_order and at_most <= (9 * 4 + 15) / 2 + 0.5
    assert order.index("rows/gate0-s0") < order.index("runs/gate-s1")  # something to look at early


def test_a_worker_that_is_killed_costs_its_job_another_beginning(tmp_path: Path) -> None:
    work, some = Counted(tmp_path, kill="rows/row1-s0"), jobs(3)
    schedule = Schedule(some, work.done)
    local.run(schedule, work, workers=1)
    assert not schedule.failed
    assert left(work, some).pop("row1-s0") == "begun\nbegun\ndone\n"


def test_a_launcher_that_is_killed_with_its_worker_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, ablating.__file__, str(tmp_path), "rows/row1-s0"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    killed = subprocess.run(command, env=environ, check=False)
    assert killed.returncode == -9
    work, some = Counted(tmp_path), jobs(4)
    before = left(work, some)
    assert before == {"run-s0": "begun\ndone\n", "row0-s0": "begun\ndone\n", "row1-s0": "begun\n"}
    schedule = Schedule(some, work.done)
    assert schedule.found == {"runs/run-s0", "rows/row0-s0"}
    local.run(schedule, work, workers=1)
    assert left(work, some)["row0-s0"] == "begun\ndone\n"
    assert left(work, some)["row1-s0"] == "begun\nbegun\ndone\n"


def test_what_waits_for_a_job_that_failed_is_left_and_the_rest_is_done(tmp_path: Path) -> None:
    some = [*jobs(2), Job("runs", "other", 0)]
    work = Counted(tmp_path, wrong="runs/run-s0")
    schedule = Schedule(some, work.done)
    local.run(schedule, work, workers=1)
    assert schedule.failed == {"runs/run-s0": "runs/run-s0 cannot be done"}
    assert [job.name for job in schedule.left()] == ["rows/row0-s0", "rows/row1-s0"]
    assert schedule.done == {"runs/other-s0"}


def test_a_job_whose_process_always_dies_fails_at_last() -> None:
    schedule = Schedule(jobs(0), lambda job: False)
    for _ in range(ATTEMPTS):
        job = schedule.next()
        assert job is not None
        schedule.die(job, "its process was killed by signal 9")
    assert schedule.next() is None
    assert "3 times" in schedule.failed["runs/run-s0"]


def test_a_job_array_has_a_task_for_each_run_and_seed_that_is_not_done(tmp_path: Path, monkeypatch) -> None:
    """A stand-in for sbatch keeps the script that it is given; stand-ins for srun run its tasks."""
    laboratory = toy(tmp_path / "toy")
    first = slurm.tasks(laboratory)[0]
    assert [job.name for job in first] == ["runs/gate-s0", "rows/row0-s0", "rows/row2-s0"]
    for job in first:
        laboratory.do(job)
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, text in {
        "sbatch": f'cp "$1" {tmp_path}/given; echo Submitted batch job 7',
        "srun": f'echo "$@" >> {tmp_path}/ran; exit 138',
        "scontrol": f'echo "$@" >> {tmp_path}/queued',
    }.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    said = slurm.submit(laboratory, ["toy.yaml", "--threads", "1"], "--partition=gpu --time=1:00", at_once=2)
    assert said.startswith("Submitted batch job 7; ")
    lines = (tmp_path / "given").read_text().splitlines()
    assert {"#SBATCH --array=1,2,3%2", "#SBATCH --partition=gpu", "#SBATCH --time=1:00"} <= set(lines)
    place = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}
    ended = subprocess.run(["bash", str(tmp_path / "given")], env={**os.environ, **place}, check=False)
    assert ended.returncode == 138
    assert (tmp_path / "ran").read_text().endswith("-m ccl ablate toy.yaml --threads 1 --task 2\n")
    assert (tmp_path / "queued").read_text() == "requeue 9\n"  # its time was over, its step is saved


def test_the_cluster_flags_stand_alone_or_take_options() -> None:
    given = parse([str(TABLE2), "--slurm"])
    assert (given.slurm, given.ray) == ("", None)
    assert parse([str(TABLE2), "--slurm=--partition=gpu --time=1:00"]).slurm == "--partition=gpu --time=1:00"
    assert parse([str(TABLE2), "--ray", "-j", "4"]).ray == ""
    assert parse([str(TABLE2), "--ray", "head:6379"]).ray == "head:6379"


def test_without_sbatch_it_is_told_where_the_script_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no sbatch on this machine; .*slurm\.sh is what it would be given"):
        slurm.submit(toy(tmp_path / "toy", matrix(2)), [], "", at_once=None)


def test_a_killed_ray_worker_costs_its_job_another_beginning(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the [ray] extra is not installed")
    work, some = Counted(tmp_path, kill="rows/row1-s0"), jobs(3)
    schedule = Schedule(some, work.done)
    on_ray.run(schedule, work, workers=2)
    assert not schedule.failed
    assert schedule.done == {job.name for job in some}
    assert left(work, some)["row1-s0"] == "begun\nbegun\ndone\n"
