"""One progress bar for all verbs: on a terminal a bar with the time left, in a log a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT = 60.0  # seconds between lines where there is no terminal


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr that goes when it is done, moved by progress(done, total, what is being done)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    console = Console(stderr=True)
    if not console.is_terminal:
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
        sys.stderr.write(f"{what}: {n} of {of}, about {left / 60:.0f} min left {now}\n")
        sys.stderr.flush()

    return say
