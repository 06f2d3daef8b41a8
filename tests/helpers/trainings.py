"""Trainings in processes of their own, for tests that kill one or run two at once, and what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.driver import train
from helpers.forked import start


def train_all(folder: Path, *processes: list[dict[str, Any]], timeout: float = 300) -> None:
    """Make runs, one after the other, each list of them by processes of its own.

    What one makes again need not be prepared again: a sharded run takes seconds to find how to shard each operation.
    """
    log, end = folder / "trainings.log", time.monotonic() + timeout
    statuses = [_train(runs, log, end) for runs in processes]
    expected = [[-9 if "kill" in runs[-1] else 0] * runs[-1].get("ranks", 1) for runs in processes]
    assert statuses == expected, f"{statuses}, not {expected}\n{log.read_text()[-5000:]}"


def _train(runs: list[dict[str, Any]], log: Path, end: float) -> list[int | None]:
    """Runs by as many processes; when one fails the others, which would wait for it for ever, are ended."""
    count, port = runs[-1].get("ranks", 1), str(free_port())
    # As Lightning's own launcher would set them.
    one = {"NODE_RANK": "0", "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [one | {"LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"} for rank in range(count)]
    processes = [start(_one_after_the_other, runs, log=log, **(place if count > 1 else {})) for place in places]
    left = list(processes)
    try:
        while left and wait([process.sentinel for process in left], end - time.monotonic()):
            left = [process for process in left if process.is_alive()]
            if any(process.exitcode for process in processes):
                for process in left:
                    process.kill()
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
    return [process.exitcode for process in processes]


def _one_after_the_other(runs: list[dict[str, Any]]) -> None:
    for options in runs:
        train(**options)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def flat(x: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a checkpoint."""
    if isinstance(x, dict | list | tuple):
        items = x.items() if isinstance(x, dict) else enumerate(x)
        return {k: v for key, value in items for k, v in flat(value, f"{path}/{key}").items()}
    return {path: x}


def differences(a: Any, b: Any) -> list[str]:
    """Where two checkpoints are not the same to the last bit."""
    a, b = flat(a), flat(b)
    same = {k: torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items() if k in b}
    return [key for key in a.keys() | b.keys() if not same.get(key, False)]


def assert_same_losses(folder: Path, other: Path) -> None:
    """The same tasks, and losses to 1e-5: sums are taken in another order."""
    ours, theirs = losses(folder), losses(other)
    assert [row["task"] for row in ours] == [row["task"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        numbers = {key: value for key, value in b.items() if key != "task"}
        assert {key: a[key] for key in numbers} == pytest.approx(numbers, rel=1e-5)
