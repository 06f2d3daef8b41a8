"""docs/curves.md: its table is what its logs say, its commands are commands, and any run's curves can be drawn."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from ccl.cli.fit import resolve
from helpers import ROOT

PAGE = (ROOT / "docs" / "curves.md").read_text()


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "curves.py"))


def test_the_pages_table_is_what_its_logs_say(curves: dict[str, Any]) -> None:
    assert curves["table"](curves["logs"]([]), "joint") in PAGE
    assert (ROOT / "docs" / "curves.png").stat().st_size <= 100_000


def test_the_pages_trainings_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (small,) = re.findall(r'^SMALL="(.*)"$', PAGE, flags=re.M)
    lines = re.findall(r"^ccl fit (.*\$SMALL.*)$", PAGE, flags=re.M)
    configs = [resolve(shlex.split(line.replace("$SMALL", small))) for line in lines]
    assert [config["name"] for config in configs] == ["world", "real", "fast"]
    assert all(config["trainer"]["val_check_interval"] == 10 for config in configs)


def test_any_runs_curves_are_drawn_and_its_first_and_last_told(curves: dict[str, Any], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(1, 11):
        rows.append({"batch": step - 1, "step": step, "task": "joint", "video": 1 / step, "audio": 2.0})
        rows.append({"batch": step - 1, "step": step, "task": "v2a", "audio": 9.0})
        found = {"joint/video": 1.0, "joint/video/t0.00-0.50": step, "joint/video/t0.50-1.00": 0.5, "joint/audio": 2.0}
        rows.append({"batch": step - 1, "step": step, "validation": found})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = curves["logs"]([tmp_path / "mine"])
    curves["draw"](runs, "joint", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert curves["table"](runs, "joint").splitlines()[2:] == [  # and nothing of another task
        "| mine | video | 0.750, 0.106 | 1.000, 1.000 | 1.000, 10.000 | 0.500, 0.500 |",
        "| mine | audio | 2.000, 2.000 | 2.000, 2.000 |  |  |",
    ]
