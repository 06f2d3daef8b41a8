"""A killed run, and one that a signal has ended, goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.fakes import make_shards
from helpers.trainings import differences, losses, train_all

TWO_WORKERS = {"workers": 2, "accumulate": 2, "size": 2, "steps": 6, "per": "sample"}


def started_from(run: Path) -> list[str | None]:
    return [start["from"] for start in json.loads((run / "run.json").read_text())["starts"]]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "more", [TWO_WORKERS, pytest.param({}, marks=pytest.mark.slow)], ids=["two workers", "no workers"]
)
def test_a_run_killed_at_any_step_and_resumed_equals_one_that_was_not(tmp_path: Path, more: dict[str, Any]) -> None:
    options: dict[str, Any] = {"shards": str(make_shards(tmp_path)), "steps": 9, "size": 3, **more}
    each = options.get("accumulate", 1)
    batch = random.randrange(3 * each + 1, options["steps"] * each)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ways: list[dict[str, Any]] = [{"kill": batch}, {"stop": batch}, {}]
    one, two, three = (options | {"folder": str(killed), "ckpt_path": "last"} | way for way in ways)  # the first begins
    train_all(tmp_path, [options | {"folder": str(whole)}, one], [two], [three])
    step = -(-batch // each)  # in which the signals came
    saved = (step - 1) // 3 * 3
    assert started_from(killed) == [None, f"step={saved:06d}.ckpt", f"step={step:06d}.ckpt"]
    assert losses(whole) == losses(killed), f"killed at batch {batch}"
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, killed)]
    assert any(key.startswith("ema.net.") for key in states[0]["state_dict"])
    assert differences(*states) == [], f"killed at batch {batch}"


@pytest.mark.timeout(300)
def test_every_interaction_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The tests above try CCA. A trunk, of a number or of layers, is saved with the blocks that share it; a loss whose
    weight falls goes on falling from where it was."""
    runs, kinds, shards = [], ("mova", "ltx2", "uniavgen", "harmony"), str(make_shards(tmp_path))
    for kind in kinds:
        options = {"shards": shards, "steps": 3, "save": 100, "size": 3, "interaction": kind}
        stopped = options | {"folder": str(tmp_path / f"{kind}, stopped")}
        runs += [options | {"folder": str(tmp_path / f"{kind}, whole")}, stopped | {"stop": 2}]
        runs += [stopped | {"ckpt_path": "last"}]
    train_all(tmp_path, runs)
    for kind in kinds:
        whole, stopped = (tmp_path / f"{kind}, {how}" for how in ("whole", "stopped"))
        assert started_from(stopped) == [None, "step=000002.ckpt"] and losses(whole) == losses(stopped)
        states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, stopped)]
        assert any("trunk." in key for key in states[0]["state_dict"]) == (kind in ("mova", "ltx2"))
        assert differences(*states) == []
