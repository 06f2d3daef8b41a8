"""Guidance rules as tables, and one velocity out of their passes."""

import inspect

import pytest
import torch
from torch import nn

from ccl import guidance
from ccl.grid import Grid
from ccl.guidance import UCG2, UCG3, Guidance, MultiModalCFG, NoGuidance, TextCFG, guided, named, remark
from ccl.model import Output
from ccl.tasks import generation_route
from ccl.types import ALONE, AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Route, Scale, View

RULES = [
    cls for _, cls in inspect.getmembers(guidance, inspect.isclass) if issubclass(cls, Guidance) and cls != Guidance
]
ROUTES = [OPEN, CLOSED, Route(a2v=True, v2a=False), Route(a2v=False, v2a=True)]
GRID = Grid(frames=9)


class FakeNet(nn.Module):
    """A velocity that depends on everything a pass may vary; counts its forwards and its preparations."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.prepared = 0

    def prepare(self, text, *, extras):
        self.prepared += 1
        return text

    def forward(self, x, t, text, *, grid, view, extras=None):
        self.forwards += 1
        batch = len(text) // len(view)
        routes = [(each.route.a2v, each.route.v2a) for each in view]
        open_ = AV(*(torch.tensor([float(r[i]) for r in routes]) for i in range(2)))
        means = x.map(lambda z: z.flatten(1).mean(1))
        word = text.mean((1, 2))

        def one(z, s, seen, other):
            shape = (-1, *[1] * (z.ndim - 1))
            mixed = word + s + (0 if other is None else seen.repeat_interleave(batch) * other)
            return z * 0.5 + torch.sin(mixed).reshape(shape)

        video = None if x.video is None else one(x.video, t.video, open_.video, means.audio)
        audio = None if x.audio is None else one(x.audio, t.audio, open_.audio, means.video)
        return Output(AV(video, audio), {})


def inputs(batch: int = 2):
    torch.manual_seed(0)
    x = AV(torch.randn(batch, 4, 3, 2, 2), torch.randn(batch, 5, 7))
    t = AV(torch.full((batch,), 0.4), torch.full((batch,), 0.4))
    texts = {"positive": torch.randn(batch, 6, 8), "negative": torch.randn(batch, 6, 8)}
    return x, t, texts


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one_in_each_stream(rule, route):
    weights = rule().weights(route).values()
    assert [sum(w[i] for w in weights) for i in range(2)] == pytest.approx([1, 1])


@pytest.mark.parametrize("given,wanted", [(None, AV(True, True)), ("audio", AV(True, True)), ("video", AV(True, True))])
@pytest.mark.parametrize("rule", RULES)
def test_only_routes_that_were_trained_are_sampled(rule, given, wanted):
    route = generation_route(given, wanted)
    assert {key.view for key in rule().weights(route)} <= {View(route), ALONE}


@pytest.mark.parametrize("rule", [TextCFG(Scale(1.0, 1.0)), UCG2(Scale(1.0, 1.0)), NoGuidance()])
def test_scale_one_is_the_conditional_alone(rule):
    assert rule.weights(OPEN) == {Pass(POSITIVE, View(OPEN)): AV(1.0, 1.0)}


def test_three_passes_equal_the_multi_modal_rule_on_equal_passes():
    scales = Scale(5.0, 2.5), Scale(1.5, 3.0)
    assert UCG3(*scales).weights(OPEN) == MultiModalCFG(*scales).weights(OPEN)
    assert UCG3(*scales).weights(OPEN) == {
        Pass(NEGATIVE, ALONE): AV(1 - 5.0 - 1.5, 1 - 2.5 - 3.0),
        Pass(POSITIVE, ALONE): AV(5.0, 2.5),
        Pass(NEGATIVE, View(OPEN)): AV(1.5, 3.0),
    }


def test_three_passes_at_scale_one_are_text_plus_modal_minus_neither():
    weights = UCG3(Scale(1.0, 1.0), Scale(1.0, 1.0)).weights(OPEN)
    assert weights[Pass(NEGATIVE, ALONE)] == AV(-1, -1) and Pass(POSITIVE, View(OPEN)) not in weights


def test_three_passes_become_two_where_the_task_is_closed_already():
    assert UCG3(Scale(4.0, 3.0), Scale(2.0, 2.0)).weights(CLOSED) == TextCFG(Scale(4.0, 3.0)).weights(CLOSED)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batched", [True, False])
def test_guided_velocity_is_the_weighted_sum_of_single_forwards(rule, batched):
    x, t, texts = inputs()
    net, weights = FakeNet(), rule().weights(OPEN)
    out = guided(net, texts, weights, grid=GRID, batched=batched)(x, t)
    singles = [(net(x, t, texts[key.text.video], grid=GRID, view=[key.view]).velocity, w) for key, w in weights.items()]
    for stream in range(2):
        expected = sum(w[stream] * v[stream] for v, w in singles)
        torch.testing.assert_close(out[stream], expected)


def test_passes_of_a_step_are_one_forward_and_text_is_prepared_once():
    x, t, texts = inputs()
    net = FakeNet()
    velocity = guided(net, texts, UCG3().weights(OPEN), grid=GRID)
    for _ in range(3):
        velocity(x, t)
    assert (net.forwards, net.prepared) == (3, 1)


def test_without_cache_the_network_reads_plain_text():
    x, t, texts = inputs()
    net = FakeNet()
    guided(net, texts, UCG2().weights(OPEN), grid=GRID, cached=False)(x, t)
    assert net.prepared == 0


def test_pass_that_weighs_nothing_in_the_generated_stream_is_not_run():
    x, t, texts = inputs()
    net = FakeNet()
    weights = UCG2(Scale(video=4.0, audio=1.0)).weights(OPEN)
    out = guided(net, texts, weights, grid=GRID, generated=AV(False, True), batched=False)(x, t)
    assert net.forwards == 1 and (out.video == 0).all() and (out.audio != 0).any()


def test_absent_stream_costs_nothing_and_stays_absent():
    x, t, texts = inputs()
    weights = UCG2().weights(CLOSED)
    out = guided(FakeNet(), texts, weights, grid=GRID)(AV(None, x.audio), AV(None, t.audio))
    assert out.video is None and out.audio.shape == x.audio.shape


def test_guidance_is_summed_in_float32():
    class Half(FakeNet):
        def forward(self, *args, **kwargs):
            return Output(super().forward(*args, **kwargs).velocity.map(lambda z: z.bfloat16()), {})

    x, t, texts = inputs()
    assert guided(Half(), texts, UCG2().weights(OPEN), grid=GRID)(x, t).map(lambda z: z.dtype) == AV(
        *[torch.float32] * 2
    )


OWN = UCG2(Scale(2.0, 1.5))


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        (None, {}, OWN),
        (None, {"scale": Scale(3.0, 3.0)}, UCG2(Scale(3.0, 3.0))),
        ("ucg2", {}, UCG2(Scale(2.0, 1.5))),
        ("text_cfg", {}, TextCFG(Scale(2.0, 1.5))),
        ("ucg3", {}, UCG3(text=Scale(2.0, 1.5))),
        ("ucg3", {"modal": Scale(1.0, 1.0)}, UCG3(Scale(2.0, 1.5), Scale(1.0, 1.0))),
        ("none", {}, NoGuidance()),
    ],
)
def test_a_name_alone_takes_the_models_own_strengths(name, given, expected):
    rule = named(name, OWN, **given)
    assert type(rule) is type(expected) and rule.weights(OPEN) == expected.weights(OPEN)


def test_strengths_travel_from_three_passes_to_two():
    own = UCG3(Scale(5.0, 4.0), Scale(1.0, 2.0))
    assert named("ucg2", own).weights(OPEN) == UCG2(Scale(5.0, 4.0)).weights(OPEN)
    assert named("multimodal_cfg", own).weights(OPEN) == own.weights(OPEN)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("ucg4", {}, "no guidance 'ucg4', did you mean 'ucg"),
        ("ucg2", {"modal": Scale()}, "guidance 'ucg2' has no such strength: --modal"),
        ("none", {"scale": Scale()}, "guidance 'none' has no such strength: --scale"),
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
        assert "its own tokens alone" in remark(rule, OPEN, "own")
    assert remark(TextCFG(), OPEN, "own") == "" == remark(NoGuidance(), CLOSED, "own")
    # Where no pass leaves anything out, the table is that of text guidance: by the route, or by the model.
    for route, closed in ((CLOSED, "context"), (OPEN, "same"), (Route(True, False), "same")):
        for rule in (UCG2(), UCG3()):
            assert "is text_cfg" in remark(rule, route, closed)
        assert remark(TextCFG(), route, closed) == "" == remark(NoGuidance(), route, closed)
