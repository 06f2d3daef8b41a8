"""The step cache: when a prediction is taken again, what that costs, and that no clip meets another's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.guidance import UCG2, Interval, NoGuidance, TextCFG, guided
from ccl.guidance.stepcache import StepCache
from ccl.model import DualStreamTransformer
from ccl.sampling import solve, times
from ccl.types import AV, NEGATIVE, OPEN, POSITIVE, Pass, Scale
from helpers.fakes import CHANNELS, make_net
from helpers.fakes import GRID as TINY
from helpers.guiding import GRID, FakeNet, inputs
from helpers.tiny import awake

ONE, TWO = Pass(POSITIVE), Pass(NEGATIVE)


def sound(*sizes: float) -> AV[Any]:
    """Clips of one number each, of sound alone."""
    return AV(None, torch.tensor(sizes).reshape(-1, 1, 1).expand(-1, 1, 4).clone())


class Runs:
    """Predicts 100 for the first forward, 110 for the second, ...; writes down who was run."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    def __call__(self, passes: Any, rows: Any) -> dict[Pass, AV[Any]]:
        self.rows.append(tuple(rows))
        return {one: sound(*[90.0 + 10 * len(self.rows)] * len(rows)) for one in passes}


def test_a_prediction_is_taken_again_while_the_clip_is_near_where_it_was_made():
    """At 10, 10.4, 10.9, 11.4 and 11.6 with a bound of a tenth: 11.4 is further than 1 from 10, 11.6 near 11.4."""
    cache, runs = StepCache(0.1), Runs()
    v = [float(cache([ONE], sound(x), runs)[ONE].audio[0, 0, 0]) for x in (10.0, 10.4, 10.9, 11.4, 11.6)]
    assert v == [100.0, 100.0, 100.0, 110.0, 110.0]
    assert runs.rows == [(0,), (0,)]
    assert cache.taken.tolist() == [3] and cache.asked == 5
    assert cache.off.tolist() == pytest.approx([10 / 110])  # 100 was still taken at 10.9, where it is 110 at 11.4
    assert cache.said(0) == (
        "of 5 passes 3 were taken from the step cache; where one was run again, "
        "its prediction had changed by 9.1% at most"
    )


def test_each_clip_of_a_batch_has_a_memory_of_its_own():
    """The second moves at each step by half of its size, the first by nothing."""
    cache, runs = StepCache(0.1), Runs()
    v = [cache([ONE, TWO], sound(10.0, x), runs)[TWO].audio[:, 0, 0].tolist() for x in (1.0, 1.5, 2.25)]
    assert v == [[100.0, 100.0], [100.0, 110.0], [100.0, 120.0]]
    assert runs.rows == [(0, 1), (1,), (1,)]
    assert cache.taken.tolist() == [4, 0] and cache.asked == 6
    assert cache.off[0] == 0


def test_the_stream_that_is_further_decides_and_an_unknown_pass_is_run():
    cache, runs = StepCache(0.1), Runs()
    cache([ONE], AV(sound(1.0).audio, sound(1.0).audio), lambda *of: {ONE: AV(*[runs(*of)[ONE].audio] * 2)})
    cache([ONE], AV(sound(1.0).audio, sound(2.0).audio), lambda *of: {ONE: AV(*[runs(*of)[ONE].audio] * 2)})
    assert runs.rows == [(0,), (0,)]
    cache, runs = StepCache(0.1), Runs()
    cache([ONE], sound(1.0), runs), cache([ONE, TWO], sound(1.0), runs)
    assert runs.rows == [(0,), (0,)] and cache.taken.tolist() == [1]


@pytest.mark.parametrize("bound", [-0.1, 1.5, float("nan")])
def test_a_bound_that_is_none_is_refused(bound: float):
    with pytest.raises(ValueError, match=r"the bound of the step cache is .*; it must be a number from 0 to 1"):
        StepCache(bound)


# Samplings


@pytest.fixture(scope="module")
def net() -> DualStreamTransformer:
    made = make_net(layers=2).eval().requires_grad_(False)
    awake(made)
    return made


def drawn(batch: int = 2) -> tuple[AV[Any], dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    shapes = AV((batch, CHANNELS.video, TINY.t_v, 2, 2), (batch, CHANNELS.audio, TINY.t_a))
    noise = shapes.map(lambda shape: torch.randn(shape, generator=g))
    return noise, {name: torch.randn(batch, 4, 8, generator=g) for name in ("positive", "negative")}


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_at_a_bound_of_zero_a_sampling_is_bit_equal(net: DualStreamTransformer, solver: str):
    noise, texts = drawn()
    for cached in (True, False):
        with_it, without = (
            solve(
                guided(net, UCG2(), OPEN, texts, grid=TINY, cached=cached, steps=steps), noise, times(4), solver=solver
            )
            for steps in (StepCache(0.0), None)
        )
        assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


@pytest.mark.parametrize("rule", [UCG2(Scale(2.0, 2.0)), Interval(TextCFG(), NoGuidance(), 0.5)])
@pytest.mark.parametrize("cached", [True, False])
def test_a_clip_beside_another_is_what_it_is_alone(net: DualStreamTransformer, rule: Any, cached: bool):
    """Though the one moves faster than the other, so that they are run at different steps."""
    noise, texts = drawn()
    noise = noise.map(lambda z: z * torch.tensor([0.2, 2.0]).reshape(-1, *[1] * (z.ndim - 1)))

    def sampled(rows: slice) -> tuple[AV[Any], StepCache]:
        steps = StepCache(0.3)
        own = {name: states[rows] for name, states in texts.items()}
        velocity = guided(net, rule, OPEN, own, grid=TINY, cached=cached, steps=steps)
        return solve(velocity, noise.map(lambda z: z[rows]), times(8)), steps

    together, steps = sampled(slice(None))
    for row in range(2):
        alone, own = sampled(slice(row, row + 1))
        torch.testing.assert_close(AV(*(z[row : row + 1] for z in together)), alone, rtol=1e-4, atol=1e-4)
        assert own.taken.tolist() == [steps.taken[row]]
        torch.testing.assert_close(own.off[0], steps.off[row], rtol=1e-3, atol=1e-4)
    assert 0 < int(steps.taken[1]) != int(steps.taken[0]) > 0


def test_a_step_whose_passes_are_all_taken_again_costs_no_forward():
    x, told, texts = inputs()
    net, steps = FakeNet(), StepCache(0.1)
    velocity = guided(net, UCG2(), OPEN, texts, grid=GRID, steps=steps)
    first = velocity(x, told, 0.4)
    again = velocity(x.map(lambda z: z * 1.05), told, 0.3)
    assert net.forwards == 1 and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    velocity(x.map(lambda z: z * 1.2), told, 0.2)
    assert net.forwards == 2 and steps.taken.tolist() == [2, 2] and steps.asked == 6
