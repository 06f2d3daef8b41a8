"""Processes forked from one that has imported what most tests need, which costs far more than what they do.

That one is the standard library's fork server, begun when first asked for: forked from the test's own process, they
would inherit the locks of its threads.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from faults.process import MODULES

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*MODULES, "ccl.generation.pipeline", "omegaconf", "webdataset"])
FROM_OUTSIDE = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")


def start(function: Callable[..., Any], *args: Any, log: Path | None = None, **environ: str) -> BaseProcess:
    """A process that calls a function, in this folder and environment, and leads a group of its own.

    Args:
        function: if it returns a whole number, the process exits with that.
        args: of it.
        log: file to which all it says is appended.
        environ: variables beside those of this process, of which those that tell a training its place are left out.
    """
    place = {key: value for key, value in os.environ.items() if key not in FROM_OUTSIDE} | environ
    process = CONTEXT.Process(target=_begin, args=(place, log, function, args))
    process.start()
    return process


def _begin(environ: dict[str, str], log: Path | None, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    gc.freeze()  # what the server has imported
    os.fsync = lambda descriptor: None  # as in conftest.py
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if log is not None:
        said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(said, stream)
    status = function(*args)
    sys.exit(status if isinstance(status, int) else 0)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function returns in a process of its own."""
    here, there = CONTEXT.Pipe()
    process = start(_answer, there, function, args, kwargs)
    there.close()
    try:
        value, error = here.recv()
    finally:
        here.close()
        process.join()
    assert error is None, error
    return value


def _answer(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        pipe.send((function(*args, **kwargs), None))
    except BaseException:
        pipe.send((None, traceback.format_exc()))


@dataclass
class Holder:
    """Another process that holds something."""

    process: BaseProcess
    pipe: Connection

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def let_go(self) -> None:
        """Have it let go and end."""
        self.pipe.close()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@contextlib.contextmanager
def holding(lock: Callable[..., AbstractContextManager[Any]], *args: Any) -> Iterator[Holder]:
    """Another process that is inside of `lock(*args)`, until it is told to let go, is killed, or this block ends."""
    here, there = CONTEXT.Pipe()
    other = Holder(start(_hold, there, lock, args), here)
    there.close()
    here.recv()
    try:
        yield other
    finally:
        other.let_go()


def _hold(pipe: Connection, lock: Callable[..., AbstractContextManager[Any]], args: tuple[Any, ...]) -> None:
    with lock(*args):
        pipe.send(None)
        with contextlib.suppress(EOFError):
            pipe.recv()
