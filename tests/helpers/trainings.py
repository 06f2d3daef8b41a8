"""Runs tests/helpers/driver.py and reads what its trainings left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

DRIVER = Path(__file__).with_name("driver.py")
FROM_OUTSIDE = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")


def train_all(folder: Path, runs: list[dict[str, Any]], timeout: float = 200) -> list[list[int]]:
    """Make the runs, one after the other; the exit status of each of their processes."""
    spec = folder / "spec.json"
    spec.write_text(json.dumps(runs))
    env = {key: value for key, value in os.environ.items() if key not in FROM_OUTSIDE}
    process = subprocess.Popen(
        [sys.executable, DRIVER, spec],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        log, _ = process.communicate(timeout=timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    statuses = json.loads(spec.with_suffix(".out").read_text()) if process.returncode == 0 else None
    expected = [[-9 if "kill" in run else 0] * run.get("ranks", 1) for run in runs]
    assert statuses == expected, f"{statuses}, not {expected}\n{log[-5000:]}"
    return statuses


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
