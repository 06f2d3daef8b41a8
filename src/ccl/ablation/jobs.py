"""What of a matrix is to be done: a job trains one run, or makes and scores one row's clips, for one seed.

A job is done when its result is whole and follows from the YAML as it now is: NAME.json beside its folder holds the
hash. So a matrix that was stopped at any moment goes on, a finished job is not repeated, and a changed one is done
anew, what it had made being set aside, from where it comes back when the change is taken back. A run that another
matrix beside this one has trained is copied from there, and so are the clips of an equal row, which are scored anew.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ccl.ablation.identity import digest, identity, modules, shipped, sums
from ccl.ablation.matrix import ROWS, RUNS, Matrix, flags, numbered, record
from ccl.ablation.states import WEIGHTS, copy_whole, holds_weights, made_beside, read_state, write_state
from ccl.files import LOCK, one_writer, sha256, write_whole
from ccl.spelling import counted

TESTSET, PROTOCOL, MATRIX = "test.jsonl", "protocol.yaml", "matrix.yaml"
ASIDE, LOGS = "aside", "logs"


class Stopped(Exception):  # noqa: N818 - a signal is no error
    """A training that a signal has ended, saved; it goes on from there.

    Args:
        status: the exit status, 128 and the signal's number.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"stopped by signal {status - 128}")
        self.status = status


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Args:
        kind: "runs" to train, "rows" to sample and score.
        of: the name of the run or row.
        seed: of the matrix.
        needs: names of jobs that come before it.
    """

    kind: str
    of: str
    seed: int
    needs: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Of its result, below that of its kind."""
        return numbered(self.of, self.seed)

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.folder}"


@dataclass(frozen=True)
class Laboratory:
    """A matrix in its folder. Small, so that it can be sent to another process.

    Args:
        matrix: what is done.
        folder: of everything.
        device: of sampling and scoring; None is what there is.
        resolved: config of each run, as `ccl fit` resolves it, filled in by `prepare`.
    """

    matrix: Matrix
    folder: Path
    device: str | None = None
    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All of them, in order: seed after seed, each run followed by its rows."""
        return tuple(self._jobs())

    def _jobs(self) -> Iterator[Job]:
        for seed in self.matrix.seeds:
            for run in self.matrix.runs:
                training = Job(RUNS, run.name, seed)
                if run.ckpt is None:
                    yield training
                needs = (training.name,) if run.ckpt is None else ()
                yield from (Job(ROWS, row.name, seed, needs) for row in self.matrix.rows if row.run == run.name)

    def prepare(self) -> None:
        """Resolve what every run trains with, and write down what all jobs share.

        Raises:
            UsageError: a config cannot be read, or there is no such test set or metric.
        """
        from ccl.cli.fit import resolve
        from ccl.cli.front import config_files
        from ccl.cli.own import reachable

        for run in self.matrix.runs:
            if run.ckpt is None and run.name not in self.resolved:
                argv = self.matrix.argv(run)
                with reachable(config_files(argv), argv):
                    self.resolved[run.name] = resolve(argv)
        with one_writer(self.folder, wait=True, name=f"{LOCK}.shared"):
            for name, text in self._shared().items():
                if not (path := self.folder / name).is_file() or path.read_text() != text:
                    write_whole(path, text)
        self.metrics()

    def _shared(self) -> dict[str, str]:
        """Text of the files that all jobs share."""
        protocol = {name: node or None for name, node in self.matrix.scores.items()}
        return {
            TESTSET: testset_text(self.matrix),
            PROTOCOL: yaml.safe_dump(protocol, sort_keys=False),
            MATRIX: yaml.safe_dump(record(self.matrix), sort_keys=False),
        }

    def metrics(self) -> list[Any]:
        """The metrics, made anew."""
        from ccl.cli.metrics import metrics_of
        from ccl.cli.protocols import Protocol
        from ccl.rows import read_rows

        asked = dict.fromkeys(("precision", "whisper", "reference", "batch_size"))
        given = {"metrics": list(self.matrix.scores) or None, "device": self.device}
        protocol = Protocol("matrix", self.folder / PROTOCOL) if self.matrix.scores else None
        return metrics_of(Namespace(**asked, **given), read_rows(self.folder / TESTSET, give=()), protocol=protocol)

    # What follows from what.

    def hash(self, job: Job) -> str | None:
        """Of everything that a job's result follows from; None of a row whose run is not trained yet."""
        if job.kind == RUNS:
            return digest([identity(self.config(job)), sums(self.config(job)["model"].get("pretrained"))])
        row = self.matrix.row(job.of)
        run = self.matrix.run(row.run)
        if run.ckpt is not None:
            made_by: Any = sums(run.ckpt or shipped())
        else:
            training = Job(RUNS, run.name, job.seed)
            if not self.done(training):
                return None
            made_by = [self.hash(training), self.state(training)["weights"]]
        sampling = {key: value for key, value in vars(row.sampling).items() if value is not None}  # as in `identity`
        how = [row.guidance, sampling, job.seed, sha256(self.folder / TESTSET)]
        return digest([made_by, how])

    def config(self, job: Job) -> dict[str, Any]:
        """The resolved config of a run's job."""
        config = self.resolved[job.of]
        return {**config, "seed_everything": job.seed, "model": {**config["model"], "seed": job.seed}}

    def path(self, job: Job) -> Path:
        """The folder of a job's result."""
        return self.folder / job.kind / job.folder

    def state(self, job: Job) -> dict[str, Any]:
        """What is known of a job's result; empty where it was never begun."""
        return read_state(self.path(job))

    def _say(self, job: Job, **facts: Any) -> None:
        write_state(self.path(job), **facts)

    def done(self, job: Job) -> bool:
        """Whether the result is whole, and follows from the matrix as it is."""
        state = self.state(job)
        if not state.get("whole") or state["hash"] != self.hash(job):
            return False
        if job.kind == RUNS:
            return holds_weights(self.path(job), state)
        return (self.path(job) / "scores.jsonl").is_file() and state["scored"] == self.scored

    def beside(self, job: Job) -> Path | None:
        """The folder of an equal run, which another matrix beside this one has trained; None where there is none."""
        if job.kind != RUNS or self.path(job).exists():
            return None
        return made_beside(self.folder, RUNS, str(self.hash(job)), holds_weights)

    @property
    def scored(self) -> str:
        """What scores follow from, besides clips."""
        return digest([{name: node or {} for name, node in self.matrix.scores.items()}])

    # Doing it.

    def do(self, job: Job) -> None:
        """Do a job, or go on with it, or find it done.

        Raises:
            Stopped: a signal has ended it.
        """
        if not first_process():  # of several that train one run together
            if not self.done(job) and job.kind == RUNS:
                self._train(job)
            return
        with one_writer(self.folder / job.kind, wait=True, name=f"{LOCK}.{job.folder}"):
            if self.done(job):
                return
            now = self.hash(job)
            assert now is not None, f"{job.name} was begun before its run was trained"
            self._set_aside(job, now)
            if self.done(job):  # it has come back
                return
            if found := self.beside(job):
                copy_whole(found, self.path(job))
                write_state(self.path(job), **read_state(found), copied_from="/".join(found.parts[-3:]))
                return
            before, begun = self.state(job).get("seconds", 0.0), time.monotonic()
            self._say(job, hash=now, whole=False, seconds=before)
            try:
                facts = self._train(job) if job.kind == RUNS else self._score(job)
            finally:
                seconds = before + time.monotonic() - begun
                self._say(job, hash=now, whole=False, seconds=seconds)
            self._say(job, hash=now, whole=True, seconds=seconds, **facts)

    def _set_aside(self, job: Job, now: str) -> None:
        """Make room for another result; one that was made for `now` before comes back."""
        here, state = self.path(job), self.path(job).with_name(f"{job.folder}.json")
        aside = self.folder / ASIDE / job.kind
        was = self.state(job).get("hash")
        if was is not None and was != now:
            aside.mkdir(parents=True, exist_ok=True)
            for path in (here, state):
                if path.exists():
                    path.rename(aside / path.name.replace(job.folder, f"{job.folder}.{was}", 1))
        if not here.exists() and (back := aside / f"{job.folder}.{now}").exists():
            back.rename(here)
            if (old := aside / f"{job.folder}.{now}.json").exists():
                old.rename(state)

    def _train(self, job: Job) -> dict[str, Any]:
        import torch

        from ccl.cli import fit
        from ccl.storage.checkpoint import complete_checkpoints, last_checkpoint, step_of
        from ccl.storage.model_folder import export

        folder, run = self.path(job), self.matrix.run(job.of)
        place = {"name": job.folder, "runs_dir": str(folder.parent), "ckpt_path": "last"}
        own = {"seed_everything": job.seed, "model.seed": job.seed, "trainer.enable_progress_bar": False, **place}
        saved = complete_checkpoints(folder / "checkpoints")
        if not saved or step_of(saved[-1]) < self.steps(job):
            argv = [*self.matrix.argv(run), *flags(own)]
            if status := fit.main(argv):
                raise Stopped(status)
        if first_process():
            trust = modules(self.config(job))
            # As it was trained: a rounded model's clips are not this run's.
            export(last_checkpoint(folder / "checkpoints"), folder / "model", dtype=torch.float32, trust=trust)
            return {"weights": sha256(folder / "model" / WEIGHTS)}
        return {}

    def steps(self, job: Job) -> int:
        """Of a training."""
        return int(self.resolved[job.of]["trainer"]["max_steps"])

    def _clips(self, job: Job) -> Path:
        """The folder of a row's clips, with those of an equal row beside this matrix, if there are any."""
        clips = self.path(job) / "clips"
        if clips.exists():
            return clips
        there = made_beside(self.folder, ROWS, str(self.hash(job)), lambda row, state: (row / "clips").is_dir())
        if there is not None:
            clips.parent.mkdir(parents=True, exist_ok=True)
            copy_whole(there / "clips", clips)  # of which each is looked at before it is taken for finished
        return clips

    def _score(self, job: Job) -> dict[str, Any]:
        from ccl.cli.machine import best_device
        from ccl.cli.parts import build
        from ccl.cli.testsets import about
        from ccl.evaluation import score
        from ccl.generation import Pipeline
        from ccl.generation.generate import generate_files
        from ccl.guidance import Guidance
        from ccl.rows import read_rows

        row, out, file = self.matrix.row(job.of), self.path(job), self.folder / TESTSET
        run = self.matrix.run(row.run)
        model = self.path(Job(RUNS, run.name, job.seed)) / "model" if run.ckpt is None else (run.ckpt or shipped())
        device = self.device or best_device()
        pipe = Pipeline.load(model, device=device, trust=modules(self.resolved.get(run.name)))
        rule = None if row.guidance is None else build(Guidance, row.guidance, f"guidance of {row.name}")
        how, clips = row.sampling, self._clips(job)
        generate_files(
            pipe, read_rows(file, give=how.give), clips,
            guidance=rule, steps=how.steps, shift=how.shift, task=how.task, batch_size=how.batch_size, seed=job.seed,
        )  # fmt: skip
        rows, metrics = read_rows(file, give=()), self.metrics()
        said = f"{self.matrix.test.set}, {file.name} sha256 {sha256(file)[:16]}; {counted(len(rows), 'row')}"
        score({row.name: clips}, rows, metrics, out, about=about(said, device))
        return {"scored": self.scored, "lacking": [metric.name for metric in metrics if metric.missing()]}


def testset_text(matrix: Matrix) -> str:
    """The rows that are scored, as JSONL; media are named from the root, as the file moves with the folder."""
    from ccl.cli.errors import UsageError
    from ccl.cli.testsets import testset_of
    from ccl.rows import PATHS, write_rows
    from ccl.rows import Row as Asked

    asked = matrix.test
    media = {one for row in matrix.rows for one in row.sampling.give if one != "text"}
    every = testset_of(asked.set).rows(give=tuple(sorted(media)))
    there = list(dict.fromkeys(row.subset for row in every))
    if unknown := [name for name in asked.subsets or () if name not in there]:
        raise UsageError(f"the test set {asked.set} has no subset '{unknown[0]}'; there are: {', '.join(there)}")
    kept: dict[str, list[Asked]] = {name: [] for name in asked.subsets or there}
    for row in every:
        if row.subset in kept and len(kept[row.subset]) < (asked.clips or len(every)):
            kept[row.subset].append(row)
    usual = vars(Asked("usual"))
    lines = []
    for row in (row for rows in kept.values() for row in rows):
        line = {key: value for key, value in vars(row).items() if value != usual[key]}
        lines.append({key: str(Path(value).resolve()) if key in PATHS else value for key, value in line.items()})
    return write_rows(lines)


def first_process() -> bool:
    """Whether this is the process that writes, of those that train a run together."""
    from ccl.storage.run import is_first_process

    return is_first_process()
