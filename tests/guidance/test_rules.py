"""Every rule of configs/guidance through the contract, for a while too; then what is particular to each."""

from pathlib import Path

import pytest
import torch
import yaml

from ccl.cli.parts import build
from ccl.contracts import Clause, outcomes
from ccl.contracts.guidance import CLAUSES
from ccl.guidance import (
    UCG2,
    UCG3,
    Guidance,
    Interval,
    LTX2Guidance,
    MultiModalCFG,
    NoGuidance,
    OviCFG,
    TextCFG,
    guided,
)
from ccl.tasks import PAPER_TASKS, terms_of
from ccl.types import ALONE, AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Route, Scale, Skip, View
from helpers import ROOT, contracts
from helpers.guiding import GRID, FakeNet, inputs

FILES = sorted((ROOT / "configs" / "guidance").glob("*.yaml"))
ROUTES = [OPEN, CLOSED, Route(a2v=True, v2a=False), Route(a2v=False, v2a=True)]


def read(file: Path) -> Guidance:
    return build(Guidance, yaml.safe_load(file.read_text()), file.name)


SHIPPED = {file.stem: read(file) for file in FILES}
PARTLY = {f"{name} for a while": Interval(rule, NoGuidance(), 0.3, 0.5) for name, rule in SHIPPED.items()}
RULES = SHIPPED | PARTLY
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
every_shipped_rule = pytest.mark.parametrize("rule", SHIPPED.values(), ids=SHIPPED)


@contracts.every("guidance")
def test_contract(part: Path, clause: Clause) -> None:
    contracts.hold(part, clause)


@pytest.mark.parametrize("rule", PARTLY.values(), ids=PARTLY)
def test_a_rule_for_a_while_keeps_the_contract(rule) -> None:
    assert [came for came in outcomes(CLAUSES, lambda: rule) if came.state != "ok"] == []


@every_shipped_rule
def test_strengths_of_one_are_the_conditional_alone_where_a_rule_says_so(rule):
    told, rule = rule.conditional_at_one, next(iter(rule.parts), rule)  # the one that guides
    ones = {name: Scale(1.0, 1.0) for name, value in vars(rule).items() if isinstance(value, Scale)}
    for route in ROUTES[:1] + ROUTES[2:]:
        conditional = {Pass(POSITIVE, View(route)): AV(1.0, 1.0)}
        assert (type(rule)(**ones).passes(route, 0.5) == conditional) == told


@every_shipped_rule
def test_a_rule_for_a_while_is_the_conditional_at_strengths_of_one_where_both_of_its_rules_are(rule):
    for either in (Interval(rule), Interval(NoGuidance(), rule)):
        assert either.conditional_at_one == rule.conditional_at_one


@every_rule
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("t", [0.4, 0.9])
def test_passes_of_one_batch_are_what_single_forwards_give(rule, cached, t):
    x, times, texts = inputs()
    nulls = x.map(lambda z: torch.full_like(z, 0.25))
    net, weights, v = FakeNet(), rule.passes(OPEN, t), {}
    for one in weights:
        seen = [AV(*(b if null else a for a, b, null in zip(*pair, one.null, strict=True)))
                for pair in ((x, nulls), (times, times.map(torch.zeros_like)))]  # fmt: skip
        v[one] = net(*seen, [AV(*(texts[text] for text in one.text))], grid=GRID, view=[one.view]).velocity
    expected = rule.combine(v, weights, x, t, times)
    for batched in (True, False):
        own = FakeNet()
        out = guided(own, rule, OPEN, texts, grid=GRID, nulls=nulls, batched=batched, cached=cached)(x, times, t)
        torch.testing.assert_close(out, expected)
        assert own.forwards == (1 if batched else len(weights))
        assert len(own.prepared) == (len({text for one in weights for text in one.text}) if cached else 0)


@pytest.mark.parametrize("route", [term.route for term in terms_of(PAPER_TASKS).values()], ids=str)
@every_shipped_rule
def test_only_routes_that_were_trained_are_sampled(rule, route):
    driven = {
        Pass(POSITIVE, View(term.route), term.whole) for term in terms_of(PAPER_TASKS).values() if any(term.whole)
    }
    seen = {Pass(POSITIVE, View(one.view.route), one.null) for one in rule.passes(route, 0.5)}
    assert seen <= {Pass(POSITIVE, View(route)), Pass(POSITIVE, ALONE)} | driven


def test_ovis_negative_pass_leaves_a_block_out():
    without = View(OPEN, skip=frozenset({Skip("block", frozenset({11}))}))
    assert SHIPPED["ovi"].passes(OPEN, 0.5) == {
        Pass(POSITIVE, View(OPEN)): AV(4.0, 3.0),
        Pass(NEGATIVE, without): AV(-3.0, -2.0),
    }
    with pytest.raises(ValueError, match="layer is -1; it must be a whole number"):
        OviCFG(layer=-1)


def test_three_passes_equal_the_multi_modal_rule_on_equal_passes():
    scales = Scale(5.0, 2.5), Scale(1.5, 3.0)
    assert UCG3(*scales).passes(OPEN, 0.5) == MultiModalCFG(*scales).passes(OPEN, 0.5)
    assert UCG3(*scales).passes(OPEN, 0.5) == {
        Pass(NEGATIVE, ALONE): AV(1 - 5.0 - 1.5, 1 - 2.5 - 3.0),
        Pass(POSITIVE, ALONE): AV(5.0, 2.5),
        Pass(NEGATIVE, View(OPEN)): AV(1.5, 3.0),
    }


def test_three_passes_at_scale_one_are_text_plus_modal_minus_neither():
    weights = UCG3(Scale(1.0, 1.0), Scale(1.0, 1.0)).passes(OPEN, 0.5)
    assert weights[Pass(NEGATIVE, ALONE)] == AV(-1, -1) and Pass(POSITIVE, View(OPEN)) not in weights


def test_three_passes_become_two_where_the_task_is_closed_already():
    three = UCG3(Scale(4.0, 3.0), Scale(2.0, 2.0)).passes(CLOSED, 0.5)
    assert three == TextCFG(Scale(4.0, 3.0)).passes(CLOSED, 0.5)


def test_an_interval_takes_one_rule_from_low_to_high_and_another_outside():
    rule = Interval(UCG3(), TextCFG(), low=0.25, high=0.75)
    inside, outside = UCG3().passes(OPEN, 0.5), TextCFG().passes(OPEN, 0.5)
    for t, passes in {1.0: outside, 0.76: outside, 0.75: inside, 0.5: inside, 0.25: inside, 0.24: outside}.items():
        assert rule.passes(OPEN, t) == passes
    assert Interval(UCG3()).passes(OPEN, 0.5) == inside and Interval(UCG3()).outside.record() == {"rule": "NoGuidance"}


def test_an_interval_combines_as_the_rule_of_that_time():
    x, times, texts = inputs()
    rule = Interval(LTX2Guidance(), UCG2(), low=0.5)
    for t, own in ((0.6, LTX2Guidance()), (0.4, UCG2())):
        outs = [guided(FakeNet(), each, OPEN, texts, grid=GRID)(x, times, t) for each in (rule, own)]
        torch.testing.assert_close(*outs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"low": 0.6, "high": 0.5}, "high is 0.5; it must be a number from 0.6 to 1"),
        ({"low": -1.0}, "low is -1.0; it must be a number from 0 to 1"),
    ],
)
def test_an_interval_that_is_none_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Interval(UCG2(), **wrong)


def test_what_a_record_cannot_hold_is_told():
    class Odd(UCG2):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.net = frozenset({3, 1}), FakeNet()

    with pytest.raises(ValueError, match="Odd keeps a FakeNet as `net`, which no record of a clip can hold"):
        Odd().record()
    odd = Odd()
    del odd.net
    assert odd.record() == {"rule": f"{__name__}.Odd", "scale": {"video": 4.0, "audio": 3.0}, "layers": [1, 3]}
