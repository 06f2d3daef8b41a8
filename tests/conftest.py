"""What holds for each test process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import jaxtyping
import pytest

from helpers import parsed
from helpers.checked import once

# Before torch is imported: several processes run side by side, and threads that wait for each other cost ten times the
# work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
jaxtyping.jaxtyped = once  # before CCL is imported, each function of which it wraps
parsed.remember()
# No test cuts the power, and a disk takes up to 25 ms to be sure of a file, thousands of times.
os.fsync = lambda descriptor: None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports make a million objects that stay: nobody looks through them for garbage, then or later.

    What tests make is looked through less often than usual, which took a tenth of the time of those that read configs.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, which have more time than usual: one of them at the end would keep one process busy alone.

    Then those that fork: a process begins a server for it, which imports for seconds what it did, and of two processes
    the one that has the first half of all tests has all of them.
    """
    items.sort(key=lambda item: (item.get_closest_marker("timeout") is None, not forks(getattr(item, "module", None))))


@cache
def forks(module: ModuleType | None) -> bool:
    """Whether a file of tests uses `helpers.forked`."""
    return module is not None and any(
        getattr(value, "__module__", "") == "helpers.forked" for value in vars(module).values()
    )


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or Triton's library reports at the end, in eighty lines, what was never looked through
