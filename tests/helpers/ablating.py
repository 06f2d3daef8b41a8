"""Matrices whose jobs cost nothing, and jobs that processes of a launcher can be sent."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl.ablation.jobs import Job, Laboratory
from ccl.ablation.launchers import local
from ccl.ablation.launchers.schedule import Schedule
from ccl.ablation.matrix import Matrix, Row, Run, Testing

CONFIG = {"seed_everything": 0, "model": {"seed": 0, "width": 8, "pretrained": None}, "trainer": {"max_steps": 4}}


def matrix(rows: int = 4, **changes: Any) -> Matrix:
    """Two runs, of which rows come in turn."""
    given = {
        "name": "toy",
        "about": "a toy",
        "seeds": (0, 1),
        "config": (Path("configs/joint.yaml"),),
        "runs": (Run("gate", {"model.width": 8}), Run("ccl", {"model.width": 8})),
        "rows": tuple(Row(f"row{n}", ("gate", "ccl")[n % 2]) for n in range(rows)),
        "test": Testing(clips=2),
        "scores": {"mouth": {}},
    }
    return Matrix(**{**given, **changes})


class Toy(Laboratory):
    """A laboratory that trains and scores nothing, but counts what it was asked to do in `asked`."""

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().split() if file.is_file() else []

    def metrics(self) -> list[Any]:
        return []

    def _train(self, job: Job) -> dict[str, Any]:
        self._ask(job)
        weights = self.path(job) / "model" / "model.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text(json.dumps(self.config(job)))
        from ccl.files import sha256

        return {"weights": sha256(weights)}

    def _score(self, job: Job) -> dict[str, Any]:
        self._ask(job)
        self.path(job).mkdir(parents=True, exist_ok=True)
        (self.path(job) / "scores.jsonl").write_text(job.name)
        return {"scored": self.scored}

    def _ask(self, job: Job) -> None:
        with (self.folder / "asked").open("a") as file:
            file.write(f"{job.name}\n")


def toy(folder: Path, given: Matrix | None = None, config: dict[str, Any] | None = None) -> Toy:
    """One that is prepared."""
    found = given or matrix()
    made = Toy(found, folder, "cpu", {run.name: config or CONFIG for run in found.runs})
    made.prepare()
    return made


@dataclass(frozen=True)
class Counted:
    """A job that leaves a line in a file of its name, and may kill its process on the way.

    Args:
        folder: of the files.
        kill: name of the job that is killed the first time that it is begun.
        wrong: name of the job that cannot be done.
        whole: whether the whole family is killed, the process that began this one first.
    """

    folder: Path
    kill: str = ""
    wrong: str = ""
    whole: bool = False

    def __call__(self, job: Job) -> None:
        file = self.folder / job.folder
        before = file.read_text() if file.exists() else ""
        file.write_text(f"{before}begun\n")
        if job.name == self.kill and not before:
            if self.whole:
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if job.name == self.wrong:
            raise ValueError(f"{job.name} cannot be done")
        file.write_text(f"{file.read_text()}done\n")

    def done(self, job: Job) -> bool:
        file = self.folder / job.folder
        return file.exists() and file.read_text().endswith("done\n")


def jobs(rows: int) -> list[Job]:
    """A run and so many rows that need it."""
    return [Job("runs", "run", 0), *(Job("rows", f"row{n}", 0, ("runs/run-s0",)) for n in range(rows))]


if __name__ == "__main__":  # a launcher in a process of its own, that may be killed with all its workers
    work = Counted(Path(sys.argv[1]), kill=sys.argv[2], whole=True)
    local.run(Schedule(jobs(4), work.done), work, workers=1)
