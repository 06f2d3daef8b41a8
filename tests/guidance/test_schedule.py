"""A strength that changes with time: its factors, what it makes of rules that are sums, and of one that is none."""

from __future__ import annotations

import math

import pytest
import torch

from ccl.guidance import (
    UCG2,
    UCG3,
    Interval,
    LTX2Guidance,
    MultiModalCFG,
    NoGuidance,
    Schedule,
    SyncCFG,
    TextCFG,
    guided,
    occurring,
    remark,
)
from ccl.types import ALONE, AV, NEGATIVE, OPEN, POSITIVE, Pass, Scale, View
from helpers.guiding import GRID, FakeNet, inputs

WHOLE = Pass(POSITIVE, View(OPEN))


@pytest.mark.parametrize(
    ("factors", "shape", "at"),
    [
        ([0.0, 1.0], "linear", {1.0: 0.0, 0.75: 0.25, 0.5: 0.5, 0.0: 1.0}),
        ([0.0, 1.0], "cosine", {1.0: 0.0, 0.75: (1 - math.sqrt(0.5)) / 2, 0.5: 0.5, 0.0: 1.0}),
        ([1.0, 3.0, 0.0], "linear", {1.0: 1.0, 0.75: 2.0, 0.5: 3.0, 0.25: 1.5, 0.0: 0.0}),
        ([1.0, 3.0, 3.0], "cosine", {1.0: 1.0, 0.75: 2.0, 0.5: 3.0, 0.3: 3.0}),
    ],
)
def test_factors_lie_evenly_from_noise_to_clean(factors, shape, at):
    rule = Schedule(UCG2(), factors, shape)
    assert {t: rule.factor(t) for t in at} == pytest.approx(at)


def test_of_a_rule_that_leads_away_from_one_prediction_it_is_the_strength():
    """Half of what 5 and 3 add is what 3 and 2 add."""
    half = Schedule(UCG2(Scale(5.0, 3.0)))
    assert half.passes(OPEN, 0.5) == UCG2(Scale(3.0, 2.0)).passes(OPEN, 0.5)
    x, times, texts = inputs()
    outs = [guided(FakeNet(), r, OPEN, texts, grid=GRID)(x, times, 0.5) for r in (half, UCG2(Scale(3.0, 2.0)))]
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize(
    "rule", [UCG3(), SyncCFG(), LTX2Guidance(), Interval(UCG2(), TextCFG(), 0.5), Schedule(UCG2())]
)
@pytest.mark.parametrize("t", [0.7, 0.4])
def test_any_rule_is_taken_part_of_the_way_from_the_conditional(rule, t):
    x, times, texts = inputs()
    nulls = x.map(lambda z: torch.full_like(z, 0.25))

    def velocity(of):
        net = FakeNet()
        return guided(net, of, OPEN, texts, grid=GRID, nulls=nulls)(x, times, t), net.forwards

    (part, forwards), (whole, _), (c, _) = map(velocity, (Schedule(rule, [0.3, 0.3]), rule, NoGuidance()))
    torch.testing.assert_close(part, AV.zip(lambda c, z: c + 0.3 * (z - c), c, whole), rtol=1e-4, atol=1e-4)
    assert forwards == 1
    torch.testing.assert_close(velocity(Schedule(rule, [1.0, 1.0]))[0], whole, rtol=0, atol=0)


def test_passes_are_those_that_weigh_something():
    assert Schedule(UCG2()).passes(OPEN, 1.0) == {WHOLE: AV(1.0, 1.0)}
    assert len(Schedule(UCG3(), [0.5, 1.0]).passes(OPEN, 1.0)) == 4  # the conditional is added, which UCG3 has not
    assert len(Schedule(UCG3(), [0.5, 1.0]).passes(OPEN, 0.0)) == 3
    both = occurring(Schedule(UCG2()), OPEN, [1.0, 0.5], AV(True, True))
    assert both == [WHOLE, Pass(NEGATIVE, ALONE)]


def test_it_is_refused_or_told_as_the_rule_within():
    with pytest.raises(ValueError, match="take ucg3"):
        remark(Schedule(Interval(TextCFG(), MultiModalCFG())), OPEN, "context")
    assert remark(Schedule(UCG2()), OPEN, "nothing") == remark(UCG2(), OPEN, "nothing") != ""
    assert Schedule(UCG3()).conditional_at_one is False
    assert Schedule(UCG2(Scale(2.0, 2.0))).record() == {
        "rule": "Schedule",
        "inside": {"rule": "UCG2", "scale": {"video": 2.0, "audio": 2.0}},
        "factors": [0.0, 1.0],
        "shape": "linear",
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"factors": [1.0]}, "factors are 1; there must be two or more"),
        ({"factors": [1.0, -1.0]}, r"factors\[1\] is -1\.0; it must be a number of at least 0"),
        ({"factors": [1.0, math.nan]}, r"factors\[1\] is nan"),
    ],
)
def test_a_schedule_that_is_none_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Schedule(UCG2(), **wrong)
