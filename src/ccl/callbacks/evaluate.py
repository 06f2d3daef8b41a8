"""Scores while training goes on: what `ccl evaluate` says of the weights of a step, in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ccl import arguments
from ccl.callbacks.losslog import LossLog
from ccl.callbacks.preview import sampled_from
from ccl.files import FileError, write_whole
from ccl.storage.checkpoint import AtomicCheckpointIO, complete_checkpoints, step_of
from ccl.types import Batch

# The command, of lower priority, and ended with the training: of one that is killed, too, the pipe closes.
BESIDE = """\
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
os.nice(int(sys.argv.pop(1)))
runpy.run_module("ccl", run_name="__main__", alter_sys=True)
"""
# What a launcher tells a training's processes of each other: the evaluation is none of them.
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "NODE_RANK", "MASTER_", "TORCHELASTIC_", "SLURM_")
MODEL, AT, LOG = "model", "at.json", "log.txt"  # in an evaluation's folder
OWN = ("--ckpt", "--name", "--out", "-o")  # flags of `ccl evaluate` that are no options
FACTS = ("config.yaml", "run.json", "words.txt")  # of a run, by which its weights are built


@dataclass
class Running:
    """An evaluation under way: of which step, after which batch, where, and by which process."""

    step: int
    batch: int
    folder: Path
    process: subprocess.Popen[bytes]


class Evaluate(Callback):
    """Scores generated rows every N optimizer steps and at the last one, as `ccl evaluate --ckpt` of the step's
    checkpoint would.

    The weights (their average where the EMA callback keeps one) are written into evaluations/step_N of the run, scored
    by a process of its own while training goes on, and removed; clips, scores and report.html stay there. Values go to
    the loggers as `eval/COLUMN`, and to losses.jsonl as a line that holds `evaluation` in place of losses. There is one
    at a time: what would begin while another is at work is left out, and said. No fault of an evaluation ends the
    training; each is told once. What a kill interrupts goes on with the training.

    Args:
        every: optimizer steps between evaluations.
        metrics: as of `ccl evaluate --metrics`.
        rows: of each subset of the test set, its first ones.
        testset: as of `--testset`; None is what `ccl evaluate --ckpt` takes of itself.
        steps: of the solver; None is the model's.
        device: of sampling and scoring: cpu or cuda; None is cuda where there is one, beside the training.
        threads: that the process computes with.
        nice: by how much its priority is lower than the training's.
        wait: seconds for which a training that is finished waits for the last one.
        options: more of `ccl evaluate`: ["--protocol", "own.yaml"].
    """

    def __init__(
        self,
        metrics: list[str],
        every: int = 1000,
        rows: int = 8,
        testset: str | None = None,
        steps: int | None = None,
        device: str | None = None,
        threads: int = 1,
        nice: int = 10,
        wait: float = 600.0,
        options: list[str] | None = None,
    ) -> None:
        if not metrics:
            raise ValueError("Evaluate's metrics are empty; name some of `ccl evaluate --metrics`")
        for name, value in (("every", every), ("rows", rows), ("threads", threads)):
            arguments.number(f"Evaluate's {name}", value, 1, arguments.MOST, whole=True)
        arguments.number("Evaluate's nice", nice, 0, 19, whole=True)
        arguments.number("Evaluate's wait", wait, 0)
        if own := next((flag for flag in options or [] if flag.partition("=")[0] in OWN), None):
            raise ValueError(f"Evaluate's options have {own}, which it gives itself")
        self.metrics, self.every, self.rows, self.testset, self.steps = list(metrics), every, rows, testset, steps
        self.device, self.threads, self.nice, self.wait, self.options = device, threads, nice, wait, options or []
        self._running: Running | None = None
        self._told: set[str] = set()
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on with what a kill has interrupted; what is of steps that are made again is dropped."""
        if not trainer.is_global_zero:
            return
        for model in sorted(home(trainer).glob(f"step_*/{MODEL}")):
            whole = complete_checkpoints(model / "checkpoints")
            if self._running is None and whole and step_of(whole[0]) <= trainer.global_step:
                with suppress(OSError, ValueError, KeyError):
                    at = json.loads((model.parent / AT).read_text())
                    self.begin(model.parent, at["step"], at["batch"])
                    continue
            shutil.rmtree(model, ignore_errors=True)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self._running and self._running.process.poll() is not None:
            self.finish(trainer)
        step = trainer.global_step
        if step == self._step or (step % self.every and step != trainer.max_steps):
            return
        busy = trainer.strategy.broadcast(None if self._running is None else self._running.step)
        if busy is not None:
            rank_zero_warn(f"no evaluation at step {step}: that of step {busy} is still at work")
            return
        net, text = sampled_from(pl_module)  # by all processes: sharded weights are gathered
        if trainer.is_global_zero:
            folder = home(trainer) / f"step_{step:06d}"
            try:
                write_snapshot(folder, Path(trainer.default_root_dir), net, text, step, pl_module.batches - 1)
                self.begin(folder, step, pl_module.batches - 1)
            except (OSError, FileError) as error:  # a full disk must not end a training
                shutil.rmtree(folder / MODEL, ignore_errors=True)
                rank_zero_warn(f"no evaluation at step {step}: {error}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._running is None:
            return
        running = self._running
        if trainer.max_steps > 0 and trainer.global_step < trainer.max_steps:  # it was stopped, and may go on
            self.leave()
            sys.stderr.write(f"ccl: the evaluation of step {running.step} is left; it goes on when the training does\n")
            return
        if running.process.poll() is None and self.wait:
            sys.stderr.write(f"ccl: waiting for the evaluation of step {running.step}, at most {self.wait:g} s\n")
        try:
            running.process.wait(self.wait)
        except subprocess.TimeoutExpired:
            self.leave()
            command = shlex.join(["ccl", *self.command(running.folder, running.step)])
            sys.stderr.write(f"ccl: the evaluation of step {running.step} is left; it goes on with: {command}\n")
        else:
            self.finish(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.leave()  # after an error Lightning calls no teardown

    def begin(self, folder: Path, step: int, batch: int) -> None:
        """Start the process that scores a folder's snapshot."""
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHED)}
        theirs |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        theirs["PYTHONUNBUFFERED"] = "1"  # its log is in the order in which it spoke, and its last line its last word
        command = [sys.executable, "-c", BESIDE, str(self.nice), *self.command(folder, step)]
        with (folder / LOG).open("wb") as log:
            # A session of its own: Ctrl-C is the training's.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=theirs, start_new_session=True
            )
        self._running = Running(step, batch, folder, process)

    def command(self, folder: Path, step: int) -> list[str]:
        """What follows `ccl`."""
        flags = {"--testset": self.testset, "--steps": self.steps, "--device": self.device, "--limit": self.rows}
        given = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
        what = ["evaluate", "--ckpt", str(folder / MODEL), "--name", called(step), "-o", str(folder)]
        return [*what, "--metrics", *self.metrics, *given, *self.options]

    def finish(self, trainer: Any) -> None:
        """Log what a process that has ended has found, or tell why it found nothing; remove the snapshot."""
        assert self._running is not None
        running, self._running = self._running, None
        try:
            if (status := running.process.wait()) == 0:
                values, faults = found_in(running.folder, called(running.step))
                self.log_scores(trainer, running, values)
            else:
                faults = [last_words(running.folder / LOG, status)]
        except (OSError, ValueError, KeyError) as error:  # somebody has been in its folder, or the disk is full
            faults = [f"what it found cannot be read or kept: {error}"]
        for fault in faults:
            if fault not in self._told:
                self._told.add(fault)
                rank_zero_warn(f"evaluation of step {running.step}: {fault}")
        close(running)
        shutil.rmtree(running.folder / MODEL, ignore_errors=True)

    def log_scores(self, trainer: Any, running: Running, values: dict[str, float]) -> None:
        """A line beside the losses, and figures for the loggers."""
        for log in (callback for callback in trainer.callbacks if isinstance(callback, LossLog)):
            log.add_scores(running.batch, running.step, values)
        for logger in trainer.loggers:  # where the losses of this step are, which Lightning counts from 0
            logger.log_metrics({f"eval/{name}": value for name, value in values.items()}, running.step - 1)

    def leave(self) -> None:
        """End the process; its snapshot stays, from which it goes on."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()
            close(self._running)
            self._running = None


def called(step: int) -> str:
    """What tables call the weights of a step."""
    return f"step {step}"


def home(trainer: Any) -> Path:
    """Where a run's evaluations lie."""
    return Path(trainer.default_root_dir) / "evaluations"


def close(running: Running) -> None:
    """Our end of the pipe."""
    if running.process.stdin is not None:
        running.process.stdin.close()


def write_snapshot(folder: Path, run: Path, net: Any, text: Any, step: int, batch: int) -> None:
    """The weights of a step as a run's folder with one checkpoint, whole once that is there.

    Args:
        folder: of the evaluation; what an earlier one left there is removed.
        run: whose facts go with them.
        net: network.
        text: encoder.
        step: of the weights.
        batch: after which they are so.

    Raises:
        OSError, FileError: it cannot be written, or the run has no config.
    """
    if not (run / FACTS[0]).is_file():
        raise FileError(f"{run} has no {FACTS[0]}, by which its weights could be sampled; train with `ccl fit`")
    shutil.rmtree(folder, ignore_errors=True)
    model = folder / MODEL
    (model / "checkpoints").mkdir(parents=True)
    write_whole(folder / AT, json.dumps({"step": step, "batch": batch}))
    for name in FACTS:
        if (run / name).is_file():
            write_whole(model / name, (run / name).read_bytes())
    parts = {"net": net, "text": text}
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    checkpoint = {"state_dict": state, "global_step": step}
    AtomicCheckpointIO().save_checkpoint(checkpoint, model / "checkpoints" / f"step={step:06d}.ckpt")


def found_in(folder: Path, name: str) -> tuple[dict[str, float], list[str]]:
    """What `ccl evaluate` says of the model of this name, and nothing of the true clips beside it.

    Returns:
        Values by column, those of a subset as SUBSET/COLUMN and by several protocols as PROTOCOL/COLUMN, and why a
        column has none.
    """

    def by(method: str) -> str | None:
        """The protocol of a system's row, "" of one alone; None of another's."""
        known = method == name or method.startswith(f"{name} / ")
        return method.removeprefix(name).removeprefix(" / ") if known else None

    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if by(line["method"]) is not None]
    whole = {"all", "mean"} if len({line["subset"] for line in lines}) > 1 else {line["subset"] for line in lines}
    values = {}
    for line in (line for line in lines if line["value"]):
        subset = "" if line["subset"] in whole else line["subset"]
        values["/".join(filter(None, (by(line["method"]), subset, line["column"])))] = float(line["value"])
    files = sorted(folder.glob("protocols/*/scores.jsonl")) or [folder / "scores.jsonl"]
    every = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in every if by(row["method"]) is not None]
    scored = {row["metric"] for row in rows if row["value"] is not None}
    empty = dict.fromkeys((row["metric"], row["reason"]) for row in rows if row["metric"] not in scored)
    return values, [f"{metric} has no value: {reason}" for metric, reason in empty]


def last_words(log: Path, status: int) -> str:
    """Why a process ended: its last line, or the signal that ended it."""
    if status < 0:
        return f"it was ended by signal {-status}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with status {status}, without a word"
