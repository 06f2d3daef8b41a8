"""One progress bar for all that takes long: on a terminal a bar, in a log a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT = 60.0  # seconds between lines where there is no terminal

Advance = Callable[[int, int], None]
"""A progress report: how much is done, of how much."""


@contextmanager
def bar(what: str, *, said: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on stderr that goes when it is done, moved by progress(done, total, what is being done).

    Args:
        what: is done.
        said: in a log too, before it begins: of what a command does that was asked for something else, as the world
            that a training makes first.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        if said:
            write(what)
        yield heartbeat(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeftColumn(),
        TextColumn("{task.fields[now]}", markup=False),  # ids may hold brackets
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, now="")
        yield lambda n, of, now="": shown.update(task, completed=n, total=of, now=now)


def heartbeat(what: str) -> Callable[..., None]:
    """Lines for a log: none in the first minute."""
    begun = last = time.monotonic()

    def say(n: int, of: int, now: str = "") -> None:
        nonlocal last
        if (at := time.monotonic()) - last < HEARTBEAT or not n:
            return
        last = at
        left = (at - begun) / n * (of - n)
        write(f"{what}: {n} of {of}, about {left / 60:.0f} min left {now}".rstrip())

    return say


def write(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
