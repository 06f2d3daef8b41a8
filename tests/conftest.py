"""What holds for each test process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import jaxtyping
import pytest

from helpers.checked import once

# Before torch is imported: several processes run side by side, and threads that wait for each other cost ten times the
# work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
jaxtyping.jaxtyped = once  # before CCL is imported, each function of which it wraps


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
    """The longest first, which have more time than usual: one of them at the end would keep one process busy alone."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
