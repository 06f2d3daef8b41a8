"""Rules by name, what they are on another kind of model, and passes that a model cannot take."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from ccl import guidance
from ccl.guidance import (
    UCG2,
    UCG3,
    Guidance,
    Interval,
    LTX2Guidance,
    MultiModalCFG,
    NoGuidance,
    OviCFG,
    SyncCFG,
    TextCFG,
    UCGStatic,
    check_passes,
    named,
    occurring,
    remark,
    rules,
    table,
)
from ccl.types import ALONE, AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Route, Scale, Skip, View

OWN = UCG2(Scale(2.0, 1.5))
BOTH = AV(True, True)


def test_an_exported_rule_that_has_a_name_is_found_by_it(monkeypatch):
    assert set(rules()) == {"none", "text_cfg", "ucg2", "ucg3", "ucg_static", "multimodal_cfg", "synccfg", "dual_cfg"}
    assert all(vars(rule)["name"] == name for name, rule in rules().items())

    class New(UCG2):
        name = "new"

    class Nameless(UCG2):
        """Inherits a name, which is not its own."""

    for cls in (New, Nameless):
        monkeypatch.setattr(guidance, cls.__name__, cls, raising=False)
    monkeypatch.setattr(guidance, "__all__", [*guidance.__all__, "New", "Nameless"])
    assert rules()["new"] is New and rules()["ucg2"] is UCG2
    assert type(named("new", OWN)) is New


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        (None, {}, OWN),
        (None, {"scale": Scale(3.0, 3.0)}, UCG2(Scale(3.0, 3.0))),
        ("ucg2", {}, UCG2(Scale(2.0, 1.5))),
        (UCG2, {}, UCG2(Scale(2.0, 1.5))),
        ("text_cfg", {}, TextCFG(Scale(2.0, 1.5))),
        ("ucg3", {}, UCG3(text=Scale(2.0, 1.5))),
        ("ucg3", {"modal": Scale(1.0, 1.0)}, UCG3(Scale(2.0, 1.5), Scale(1.0, 1.0))),
        ("none", {}, NoGuidance()),
    ],
)
def test_a_name_alone_takes_the_models_own_strengths(name, given, expected):
    rule = named(name, OWN, **given)
    assert type(rule) is type(expected) and rule.passes(OPEN, 0.5) == expected.passes(OPEN, 0.5)


def test_strengths_travel_from_three_passes_to_two():
    own = UCG3(Scale(5.0, 4.0), Scale(1.0, 2.0))
    assert named("ucg2", own).record() == UCG2(Scale(5.0, 4.0)).record()
    assert named("multimodal_cfg", own).passes(OPEN, 0.5) == own.passes(OPEN, 0.5)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("ucg4", {}, "no guidance 'ucg4' .did you mean 'ucg"),
        ("ucg2", {"modal": Scale()}, "guidance 'ucg2' has no such strength: --modal"),
        ("none", {"scale": Scale()}, "guidance 'none' has no such strength: --scale"),
        (Interval, {}, "guidance 'Interval' needs inside too; write a YAML file"),
    ],
)
def test_a_rule_that_cannot_be_is_told(name, given, words):
    with pytest.raises(ValueError, match=words):
        named(name, OWN, **given)


def test_a_rule_under_another_name_is_refused_or_told():
    with pytest.raises(ValueError, match="take ucg3"):
        remark(MultiModalCFG(), OPEN, "context")
    assert remark(MultiModalCFG(), OPEN, "nothing") == ""
    assert "multimodal_cfg" in remark(UCG3(), OPEN, "nothing") and "gates" in remark(UCG2(), OPEN, "nothing")
    for rule in (UCG2(), UCG3(), TextCFG(), NoGuidance()):
        assert remark(rule, OPEN, "context") == ""
    for rule in (UCG2(), UCG3(), MultiModalCFG()):
        assert "has its own tokens alone" in remark(rule, OPEN, "own")
    assert remark(TextCFG(), OPEN, "own") == "" == remark(NoGuidance(), CLOSED, "own")
    # Where no pass leaves anything out, the table is that of text guidance: by the route, or by the model.
    for route, closed in ((CLOSED, "context"), (OPEN, "same"), (Route(True, False), "same")):
        for rule in (UCG2(), UCG3()):
            assert "is text_cfg" in remark(rule, route, closed)
        assert remark(TextCFG(), route, closed) == "" == remark(NoGuidance(), route, closed)


def test_a_rule_that_is_taken_for_a_while_is_refused_or_told_all_the_same():
    assert remark(Interval(UCG2(), TextCFG(), 0.5), OPEN, "context", (1.0, 0.2)) == ""
    assert remark(Interval(UCG2(), UCG2(), 0.5), OPEN, "nothing") == remark(UCG2(), OPEN, "nothing")
    with pytest.raises(ValueError, match="take ucg3"):
        remark(Interval(TextCFG(), MultiModalCFG(), 0.5), OPEN, "context")


def test_what_skips_a_block_stands_for_silence_or_combines_otherwise_is_no_text_guidance():
    for rule in (OviCFG(layer=1), LTX2Guidance(layer=0)):
        assert remark(rule, OPEN, "same") == ""
    for closed in ("context", "own", "nothing"):
        assert remark(SyncCFG(), OPEN, closed) == "" == remark(UCGStatic(), OPEN, closed)


def test_what_leads_away_from_a_static_partner_is_another_rule_where_there_is_none():
    for route, closed in ((CLOSED, "context"), (OPEN, "same")):
        assert remark(UCGStatic(), route, closed).endswith("is text_cfg of that strength")
        assert remark(SyncCFG(), route, closed) == "nothing is left out in any pass of synccfg here, so it is none"


def test_passes_of_a_sampling_are_those_of_all_its_times_that_weigh_in_what_is_generated():
    rule = Interval(UCG3(), TextCFG(), low=0.5)
    assert set(occurring(rule, OPEN, [1.0, 0.6], BOTH)) == set(UCG3().passes(OPEN, 1.0))
    assert set(occurring(rule, OPEN, [1.0, 0.4], BOTH)) == {*UCG3().passes(OPEN, 1.0), *TextCFG().passes(OPEN, 1.0)}
    only = occurring(UCG2(Scale(video=4.0, audio=1.0)), OPEN, [1.0], AV(False, True))
    assert only == [Pass(POSITIVE, View(OPEN))]


def test_a_stream_that_is_null_in_a_pass_may_weigh_nothing_there():
    class Wrong(Guidance):
        def passes(self, route, t):
            null = Pass(NEGATIVE, View(route), null=AV(False, True))
            return table((Pass(POSITIVE, View(route)), AV(2.0, 2.0)), (null, AV(-1.0, -1.0)))

    with pytest.raises(ValueError, match="guidance Wrong gives audio the weight -1 in a pass in which audio is null"):
        occurring(Wrong(), OPEN, [0.5], BOTH)
    assert len(occurring(SyncCFG(), OPEN, [0.5], BOTH)) == 3


def test_a_pass_that_a_network_cannot_take_is_refused_in_a_sentence():
    def refuses(one: Pass) -> str:
        return "its gates cannot be closed" if one.view == ALONE else ""

    net = SimpleNamespace(blocks=[0] * 4, interaction=SimpleNamespace(refuses=refuses))
    check = partial(check_passes, net=net)
    check(TextCFG(), list(TextCFG().passes(OPEN, 0.5)))
    with pytest.raises(ValueError, match="guidance ucg2: its gates cannot be closed"):
        check(UCG2(), list(UCG2().passes(OPEN, 0.5)))
    check(OviCFG(layer=3), list(OviCFG(layer=3).passes(OPEN, 0.5)))
    with pytest.raises(ValueError, match="guidance OviCFG skips layer 4; this network has 4, counted from 0"):
        check(OviCFG(layer=4), [Pass(NEGATIVE, View(OPEN, skip=frozenset({Skip("block", frozenset({4}))})))])
