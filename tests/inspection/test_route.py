"""The table of who sees whom is that of tasks and passes themselves."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from ccl.cli import main
from ccl.grid import Grid
from ccl.guidance import UCG2, UCG3, TextCFG
from ccl.inspection.route import COLOUR, rows_of, svg_of, table_lines
from ccl.inspection.windows import windows_of
from ccl.interaction import TARP
from ccl.tasks import PAPER_TASKS, terms_of
from ccl.types import CLOSED, OPEN, Route


@pytest.mark.parametrize("closed", ["context", "nothing", "own", "same"])
def test_rows_are_the_views_of_terms_and_passes(closed: str) -> None:
    rule = UCG3()
    rows = rows_of(PAPER_TASKS, rule, closed)
    terms = terms_of(PAPER_TASKS)
    assert {row.name: row.view for row in rows if row.kind == "task"} == {n: term.view for n, term in terms.items()}
    for name, term in terms.items():
        found = [row.view for row in rows if (row.kind, row.name) == ("pass", name)]
        assert found == [one.view for one in rule.passes(term.route, 0.5)]
    for row in rows:
        for opened, sees in zip((row.view.route.a2v, row.view.route.v2a), row.sees, strict=True):
            assert ("latents" in sees) == (opened and closed != "same")
            assert ("context" in sees) == (closed == "context") and ("own" in sees) == (closed == "own")


def test_the_papers_paths() -> None:
    """Sec. 4.2: single tasks see context alone; a2v opens one path; joint opens all."""
    found = {row.name: row for row in rows_of(None, TextCFG(), "context") if row.kind == "task"}
    alone, both = ("context",), ("latents", "context")
    assert {name: row.sees for name, row in found.items()} == {
        "single": (alone, alone), "a2v": (both, alone), "v2a": (alone, both), "joint": (both, both),
    }  # fmt: skip
    assert found["a2v"].state == ("learned", "given")
    views = [row.view.route for row in rows_of(None, UCG2(), "context") if (row.kind, row.name) == ("pass", "joint")]
    assert views == [OPEN, CLOSED]


def test_the_drawing_has_a_path_of_its_colour_where_one_is_open() -> None:
    rows = rows_of(None, UCG2(), "context")
    root = ET.fromstring(svg_of(rows, "who & whom"))
    lines = [each.get("stroke") for each in root.iter("{http://www.w3.org/2000/svg}line")]
    expected = [COLOUR[name if getattr(row.view.route, name) else "none"] for row in rows for name in ("a2v", "v2a")]
    assert lines == expected
    assert len(table_lines(rows)) == 1 + len(rows)


def test_the_verb_tells_of_a_config_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["inspect", "route", "--config", "configs/joint.yaml", "-o", str(tmp_path / "route.svg")]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "joint" in said and "context tokens" in said and "negative prompt" in said
    ET.parse(tmp_path / "route.svg")


def test_windows_drift_as_the_loop_says() -> None:
    grid = Grid(frames=81, fps=16.0)
    for one in windows_of(grid):
        middles = [0.5 / 16, *((1 + 4 * (i - 1) + 2) / 16 for i in range(1, grid.t_v))]
        centres = TARP(one.centre).centres(grid)
        drift = [(m + 0.5) / grid.latent_rate - at for m, at in zip(centres, middles, strict=True)]
        np.testing.assert_allclose(one.drift, drift)
        seen = [sum(abs(j - m) <= 3 * grid.c // 2 for m in centres) for j in range(grid.t_a)]
        low = [m - 3 * grid.c // 2 for m in centres]
        seen = [sum(a <= j < a + 3 * grid.c for a in low) for j in range(grid.t_a)]
        np.testing.assert_array_equal(one.seen, seen)
    paper, proportional, true = windows_of(grid)
    assert "half a window" in str(paper) and abs(paper.drift[-1]) > abs(proportional.drift[-1]) >= 0
    assert np.abs(true.drift).max() < 1.01 / grid.latent_rate


def test_the_verb_tells_of_windows_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "alignment", "--config", "configs/joint.yaml", "-o", str(tmp_path / "w.png")]) == 0
    said = capsys.readouterr().out
    assert "t_v 20 latent frames, t_a 96 audio tokens" in said
    assert "proportional" in said and "<- this config" in said
    assert (tmp_path / "w.png").stat().st_size < 60_000
    assert Route() == OPEN
