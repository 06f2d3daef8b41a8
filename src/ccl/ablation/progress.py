"""What is seen of jobs while they run, from the files they write: whoever does them, and wherever."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ccl.ablation.jobs import TESTSET, Job, Laboratory
from ccl.ablation.launchers.schedule import Schedule
from ccl.ablation.matrix import RUNS
from ccl.progress import HEARTBEAT
from ccl.storage.run import holds_losses

TAIL = 4096  # bytes of a log that are looked at: about twenty steps


class Stand(NamedTuple):
    """How far a job is.

    Args:
        done: of `total`, in steps or clips.
        total: of them.
        said: the loss, or what is being done.
    """

    done: int
    total: int
    said: str = ""


def stand(laboratory: Laboratory, job: Job) -> Stand:
    """How far a job is, by its files."""
    folder = laboratory.path(job)
    if job.kind == RUNS:
        step, loss = last_losses(folder / "losses.jsonl")
        return Stand(step, laboratory.steps(job), f"loss {loss:.3f}" if loss is not None else "")
    clips = sum(1 for line in (laboratory.folder / TESTSET).read_text().splitlines() if line)
    made = sum(1 for path in (folder / "clips").glob("*.json") if not path.name.startswith("."))
    scored = scores_of(folder / "scores.jsonl")
    return Stand(made + scored, 2 * clips, f"{made} of {clips} clips" if not scored else f"scored {scored} of {clips}")


def last_losses(path: Path) -> tuple[int, float | None]:
    """The last step of a run and the mean loss of the last few; half a line is none."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return 0, None
    for line in lines[:-1]:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if holds_losses(found):
            rows.append(found)
    losses = [row["loss"] for row in rows if isinstance(row.get("loss"), float)]
    return (rows[-1]["step"] if rows else 0), (sum(losses) / len(losses) if losses else None)


def scores_of(path: Path) -> int:
    """How many clips have scores."""
    try:
        return len({json.loads(line)["id"] for line in path.read_text().splitlines()})
    except (OSError, ValueError, KeyError):
        return 0


@contextmanager
def display(laboratory: Laboratory) -> Iterator[Callable[[Schedule], None]]:
    """A line for each running job, with its step, loss and time left, and one for all of them; in a log, a line each
    time a job is over and one a minute."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(laboratory, console) as show:
            yield show
    else:
        yield _lines(laboratory)


@contextmanager
def _bars(laboratory: Laboratory, console: Any) -> Iterator[Callable[[Schedule], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120) as shown:
        whole = shown.add_task(laboratory.matrix.name, total=len(laboratory.jobs), now="")
        lines: dict[str, TaskID] = {}

        def show(schedule: Schedule) -> None:
            for name in [name for name in lines if name not in schedule.running]:
                shown.remove_task(lines.pop(name))
            for name, job in schedule.running.items():
                at = stand(laboratory, job)
                if name not in lines:
                    lines[name] = shown.add_task(f"  {name}", now="", completed=at.done, total=at.total)
                shown.update(lines[name], completed=at.done, total=at.total, now=at.said)
            failed = f"{len(schedule.failed)} failed" if schedule.failed else ""
            shown.update(whole, completed=len(schedule.done), now=failed)

        yield show


def _lines(laboratory: Laboratory) -> Callable[[Schedule], None]:
    begun = last = time.monotonic()
    told: set[str] = set()

    def show(schedule: Schedule) -> None:
        nonlocal last
        told.update(schedule.found)
        for name in sorted((schedule.done | schedule.failed.keys()) - told):
            over = len(schedule.done)
            _say(f"{name}: {schedule.failed.get(name, 'done')} ({over} of {len(schedule.jobs)})")
            told.add(name)
        if (now := time.monotonic()) - last < HEARTBEAT:
            return
        last = now
        for name, job in schedule.running.items():
            at = stand(laboratory, job)
            _say(f"{name}: {at.done} of {at.total}{f', {at.said}' if at.said else ''}, {(now - begun) / 60:.0f} min")

    return show


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def failures(schedule: Schedule, logs: Path) -> list[str]:
    """What failed, and what was left for it, in sentences."""
    said: Mapping[str, str] = schedule.failed
    lines = [f"{name} failed: {why}; {logs / name}.log has all it said" for name, why in said.items()]
    if waits := [job.name for job in schedule.left()]:
        lines.append(f"not done, as what they need has failed: {', '.join(waits)}")
    return lines
