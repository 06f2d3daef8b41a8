"""MOVA's dual-condition rule against its Eq. 6, written out, and by hand."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ccl.guidance import UCG2, DualCFG, TextCFG, check_passes, guided, remark
from ccl.types import ALONE, AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Route, Scale, View
from helpers.guiding import GRID, FakeNet, inputs

TEXT, MODAL = Scale(5.0, 4.0), Scale(2.0, 3.0)
A2V = Route(a2v=True, v2a=False)


def test_three_passes_weigh_what_the_formula_says():
    assert DualCFG(TEXT, MODAL).passes(OPEN, 0.5) == {
        Pass(POSITIVE, View(OPEN)): AV(5.0, 4.0),
        Pass(NEGATIVE, View(OPEN)): AV(-3.0, -1.0),
        Pass(NEGATIVE, ALONE): AV(-1.0, -2.0),
    }


def test_a_case_reckoned_by_hand():
    """Of 1 without both, 3 with the other stream, 7 with both: 1 + 2 * 2 + 5 * 4 = 25 and 1 + 3 * 2 + 4 * 4 = 23."""
    rule, number = DualCFG(TEXT, MODAL), {ALONE: 1.0, (NEGATIVE, View(OPEN)): 3.0, (POSITIVE, View(OPEN)): 7.0}
    weights = rule.passes(OPEN, 0.5)
    v = {one: torch.full((2, 4, 3), number.get((one.text, one.view), number[ALONE])) for one in weights}
    x = torch.randn(2, 4, 3)
    out = rule.combine({one: AV(z, z) for one, z in v.items()}, weights, AV(x, x), 0.5, AV(x, x))
    torch.testing.assert_close(out, AV(torch.full_like(x, 25.0), torch.full_like(x, 23.0)))


@pytest.mark.parametrize("route", [OPEN, A2V])
def test_a_velocity_is_that_of_the_formula(route):
    x, times, texts = inputs()
    net = FakeNet()
    out = guided(net, DualCFG(TEXT, MODAL), route, texts, grid=GRID)(x, times, 0.4)
    assert net.forwards == 1  # of three passes, each text prepared once
    assert len(net.prepared) == 2

    def v(text, view):
        return net(x, times, [texts[text]], grid=GRID, view=[view]).velocity

    neither, seen, both = v("negative", ALONE), v("negative", View(route)), v("positive", View(route))
    for i in range(2):
        s_b, s_t = MODAL.pair[i], TEXT.pair[i]
        expected = neither[i] + s_b * (seen[i] - neither[i]) + s_t * (both[i] - seen[i])
        torch.testing.assert_close(out[i], expected)


def test_equal_strengths_are_ucg_in_two_passes_and_a_closed_task_leaves_the_text():
    assert DualCFG(TEXT, TEXT).passes(OPEN, 0.5) == UCG2(TEXT).passes(OPEN, 0.5)
    assert DualCFG(TEXT, MODAL).passes(CLOSED, 0.5) == TextCFG(TEXT).passes(CLOSED, 0.5)


def test_it_is_for_whatever_can_be_closed_and_told_elsewhere():
    rule = DualCFG(TEXT, MODAL)
    assert remark(rule, OPEN, "nothing") == remark(rule, OPEN, "context") == ""
    assert remark(rule, OPEN, "same") == remark(UCG2(), OPEN, "same").replace("ucg2", "dual_cfg")
    assert "has its own tokens alone" in remark(rule, OPEN, "own")

    def refuses(one: Pass) -> str:
        return "its streams are one softmax, which cannot be closed" if one.view == ALONE else ""

    net = SimpleNamespace(blocks=[0] * 4, interaction=SimpleNamespace(refuses=refuses))
    check = partial(check_passes, rule, net=net)
    with pytest.raises(ValueError, match="guidance dual_cfg: its streams are one softmax"):
        check(list(rule.passes(OPEN, 0.5)))
    check(list(DualCFG(TEXT, Scale(1.0, 1.0)).passes(OPEN, 0.5)))
