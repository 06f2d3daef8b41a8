"""Commands of `ccl` in processes forked from this one: imports, which cost more than most commands, are paid once.

A process can be killed at a moment of the clock, or just before the n-th time it changes a file: an audit hook counts
those, so that a moment between two renames is as likely as any other and comes again with the same seed. The same hook
can fill the disk.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ccl import cli

MODULES = (
    *(
        "ccl.cli.fit",
        "ccl.cli.verbs",
        "ccl.cli.evaluate",
        "ccl.cli.shards",
        "ccl.cli.costs",
        "ccl.demo",
        "ccl.evaluation",
    ),
    *("lightning.pytorch.strategies", "lightning.pytorch.loggers", "torchdata.stateful_dataloader", "torchmetrics"),
    *("torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict"),
)
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MEMORY = 12 * 2**30  # bytes that a command may ask for, so that one that asks for all does not take the machine


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        status: of exit; negative for a signal.
        said: all it wrote, both streams.
        errors: what it wrote on standard error.
        seconds: that it took.
        peak: bytes of memory it held at most, all of its processes together excepted.
        changes: times it was about to change a file.
        late: it was ended because it took too long.
        orphans: processes of it that lived on.
        outside: files that it was about to change elsewhere than in its folder.
    """

    status: int
    said: str
    errors: str
    seconds: float
    peak: int
    changes: int
    late: bool = False
    orphans: int = 0
    outside: tuple[str, ...] = ()


def warm_up() -> None:
    """Import once what the commands import."""
    for module in MODULES:
        importlib.import_module(module)


def run(
    command: str,
    folder: Path,
    *,
    timeout: float = 120,
    at_change: int | None = None,
    after: float | None = None,
    full_at: int | None = None,
    ranks: int = 1,
    main: Callable[[list[str]], int] = cli.main,
) -> Outcome:
    """Run a command line in a folder.

    Args:
        command: without `ccl`; words with a space between.
        folder: to work in; temporary files go to its `tmp`.
        timeout: seconds, after which it is ended.
        at_change: kill it before this change of a file, counted from 0.
        after: kill it after so many seconds.
        full_at: from this change on the disk is full: nothing new can be made.
        ranks: processes that train together; all are killed as one.
        main: what takes the words of the command line.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    files = log, errors, counts, elsewhere = [
        folder / "tmp" / name for name in (".out", ".err", ".changes", ".outside")
    ]
    for file in files:
        file.write_bytes(b"")
    sys.stdout.flush()
    sys.stderr.flush()
    begin = time.monotonic()
    port, group, children = free_port(), 0, []
    for rank in range(ranks):
        place = {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
        place |= {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        child = _fork(command.split(), folder, at_change, full_at, place if ranks > 1 else {}, group, main)
        group = group or child
        children.append(child)
    late = threading.Event()

    def end(reason: threading.Event | None = None) -> None:
        if reason:
            reason.set()
        for child in children:
            _kill(child)

    timers = [threading.Timer(timeout, end, [late])] + ([threading.Timer(after, end)] if after is not None else [])
    for timer in timers:
        timer.start()
    status, peak, left = 0, 0, set(children)
    while left:
        child, code, usage = os.wait4(-1, 0)
        if child not in left:
            continue
        left.discard(child)
        peak = max(peak, usage.ru_maxrss * 1024)
        if code and not status:
            status = os.waitstatus_to_exitcode(code)
            for other in left:  # it would wait for ever
                _kill(other)
    for timer in timers:
        timer.cancel()
    seconds = time.monotonic() - begin
    orphans = _end_group(group)
    said = log.read_text(errors="replace") + errors.read_text(errors="replace")
    changes = len(counts.read_bytes())
    outside = tuple(dict.fromkeys(elsewhere.read_text(errors="replace").splitlines()))
    for file in files:
        file.unlink()
    return Outcome(status, said, said[-4000:], seconds, peak, changes, late.is_set(), orphans, outside)


def _fork(
    argv: Sequence[str],
    folder: Path,
    at_change: int | None,
    full_at: int | None,
    place: dict[str, str],
    group: int,
    main: Callable[[list[str]], int],
) -> int:
    if child := os.fork():
        return child
    status = 1
    try:
        os.setpgid(0, group)
        os.chdir(folder)
        for number, name in ((0, os.devnull), (1, "tmp/.out"), (2, "tmp/.err")):
            descriptor = os.open(name, os.O_RDWR | os.O_APPEND)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.update(place, TMPDIR=str(folder / "tmp"), COLUMNS="120", CCL_WEIGHTS=str(folder / "weights"))
        tempfile.tempdir = str(folder / "tmp")  # it remembers that of the process which this one was forked from
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv, sys.modules["__main__"] = ["ccl", *argv], ModuleType("__main__")  # what spawned workers import anew
        sys.dont_write_bytecode = True  # of a user's module, beside it
        sys.addaudithook(_counter(folder, at_change, full_at))
        status = main(list(argv))
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _counter(folder: Path, at_change: int | None, full_at: int | None) -> Any:
    """A hook that notes each change of a file in `folder` by this process, which it ends before that of `at_change`.

    Files that are changed elsewhere are noted by name.
    """
    here, inside = os.getpid(), str(folder.resolve())
    note, elsewhere = (os.open(folder / "tmp" / name, os.O_WRONLY | os.O_APPEND) for name in (".changes", ".outside"))
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not (len(args) > 2 and isinstance(args[2], int) and args[2] & WRITING):
                return
        elif event not in CHANGES:
            return
        if os.getpid() != here or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = Path(inside, os.fsdecode(args[0]))
        if not path.is_relative_to(inside):
            if not path.is_relative_to("/dev"):
                os.write(elsewhere, os.fsencode(path) + b"\n")
            return
        if count == at_change:
            os.kill(here, signal.SIGKILL)
        count += 1
        os.write(note, b".")
        if full_at is not None and count > full_at and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(args[0]))

    return hook


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _end_group(group: int, patience: float = 8.0) -> int:
    """Wait for what a command started, and end what does not end by itself; how many that were."""
    deadline = time.monotonic() + patience
    while (left := _members(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        _kill(process)
    return len(left)


def _members(group: int) -> list[int]:
    """Processes of a group that are at work, not waiting to be counted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[2]) == group:
            found.append(int(entry.parent.name))
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
