"""What holds for each test process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

# Before torch is imported: several processes run side by side, and threads that wait for each other cost ten times the
# work.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports make a million objects that stay: nobody looks through them for garbage, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
