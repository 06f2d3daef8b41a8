"""The cost of a clip, against the arithmetic of the method."""

from __future__ import annotations

import pytest
import torch

from ccl import planning
from ccl.cli.planned import Model, Planned
from ccl.guidance import UCG2, UCG3, Interval, NoGuidance, guided
from ccl.planning.follow import Live, faked, inputs
from ccl.sampling import evaluated, times
from ccl.types import OPEN
from helpers.fakes import GRID
from helpers.plans import short, tiny


def test_a_clip_takes_83_petaflops_in_two_passes_and_125_in_three(paper: Planned, model: Model) -> None:
    for rule, petaflops in ((UCG2(), 83), (UCG3(), 125)):
        size = sum(part.all for part in model.sizes.values())
        cost = planning.clip(model.short, size, paper.grid, rule, evaluated(times(50), "unipc"))
        # Closed passes project no tokens of the other stream, and text is projected once: a little less.
        assert 0.96 * petaflops < cost.flops / 1e15 < petaflops
        assert cost.weights == 2 * size


@pytest.mark.slow
def test_heuns_solver_evaluates_twice_a_step_but_for_the_last() -> None:
    net = short()
    heun, once = (planning.clip(net, 1, GRID, UCG2(), evaluated(times(50), name)) for name in ("heun", "unipc"))
    assert (heun.evaluations, once.evaluations) == (99, 50)
    assert heun.flops == pytest.approx(once.flops * 99 / 50)


def test_a_rule_that_is_taken_for_a_while_costs_its_passes_then_alone() -> None:
    """Of 4 steps, at 1, 3/4, 1/2 and 1/4, two lie in the interval: 2 x 3 + 2 x 1 passes, 2 on average."""
    net, asked = short(), evaluated(times(4), "euler")
    three, one = (planning.clip(net, 1, GRID, rule, asked) for rule in (UCG3(), NoGuidance()))
    mixed = planning.clip(net, 1, GRID, Interval(UCG3(), NoGuidance(), 0.5, 0.75), asked)
    assert (three.passes, one.passes, mixed.passes, mixed.evaluations) == (3, 1, 2, 4)
    assert mixed.flops == (three.flops + one.flops) / 2
    assert mixed.rest == three.rest > one.rest


@pytest.mark.slow
def test_the_memory_of_a_deeper_network_is_told_from_shorter_ones() -> None:
    """Keys and values of a batch are put together for one layer at a time, so that all layers hold as much."""
    net = short(lambda: tiny(4))
    with faked(net, range(4), GRID) as whole, torch.no_grad():
        x, told, states = inputs(whole, GRID, 1, 512)
        velocity = guided(whole, UCG3(), OPEN, {"positive": states, "negative": states}, grid=GRID)
        with Live(whole.parameters()) as live:
            velocity(x, told, 0.5), velocity(x, told, 0.5)
    assert planning.clip(net, 1, GRID, UCG3(), [0.5]).rest == pytest.approx(live.peak, rel=2e-3)
