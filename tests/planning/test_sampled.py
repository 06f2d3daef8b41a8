"""The cost of a clip, against the arithmetic of the method."""

from __future__ import annotations

import pytest

from ccl import planning
from ccl.cli.planned import Planned
from ccl.guidance import UCG2, UCG3
from helpers.fakes import GRID
from helpers.plans import tiny


def test_a_clip_takes_83_petaflops_in_two_passes_and_125_in_three(
    paper: Planned, sizes: dict[str, planning.Size]
) -> None:
    for rule, petaflops in ((UCG2(), 83), (UCG3(), 125)):
        size = sum(part.all for part in sizes.values())
        cost = planning.clip(paper.make, 40, size, paper.grid, rule, steps=50, solver="unipc")
        # Closed passes project no tokens of the other stream, and text is projected once: a little less.
        assert 0.96 * petaflops < cost.flops / 1e15 < petaflops
        assert cost.weights == 2 * size


def test_heuns_solver_evaluates_twice_a_step_but_for_the_last() -> None:
    heun, once = (planning.clip(tiny, 2, 1, GRID, UCG2(), steps=50, solver=solver) for solver in ("heun", "unipc"))
    assert (heun.evaluations, once.evaluations) == (99, 50)
    assert heun.flops == pytest.approx(once.flops * 99 / 50)
