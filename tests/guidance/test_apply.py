"""One velocity out of a rule's passes: what runs, how often, on which text; and passes on a network of real parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.guidance import UCG2, UCG3, Guidance, Interval, NoGuidance, OviCFG, SyncCFG, TextCFG, guided
from ccl.guidance.base import table
from ccl.model import DualStreamTransformer, Output
from ccl.types import AV, CLOSED, OPEN, POSITIVE, Pass, Route, Scale, Skip, View
from helpers.fakes import CHANNELS, make_net
from helpers.fakes import GRID as TINY
from helpers.guiding import GRID, FakeNet, inputs
from helpers.tiny import awake


def test_passes_of_a_step_are_one_forward_and_each_text_is_prepared_once():
    x, times, texts = inputs()
    net = FakeNet()
    velocity = guided(net, UCG3(), OPEN, texts, grid=GRID)
    for t in (0.9, 0.5, 0.1):
        velocity(x, times, t)
    assert net.forwards == 3
    assert len(net.prepared) == 2
    assert net.prepared[0] is texts["negative"] and net.prepared[1] is texts["positive"]


def test_a_text_is_prepared_where_a_pass_first_reads_it():
    x, times, texts = inputs()
    net = FakeNet()
    velocity = guided(net, Interval(UCG2(), NoGuidance(), high=0.5), OPEN, texts, grid=GRID)
    counts = []
    for t in (1.0, 0.6, 0.5, 0.4):
        velocity(x, times, t)
        counts.append(len(net.prepared))
    assert counts == [1, 1, 2, 2]


def test_without_cache_the_network_reads_plain_text():
    x, times, texts = inputs()
    net = FakeNet()
    guided(net, UCG2(), OPEN, texts, grid=GRID, cached=False)(x, times, 0.4)
    assert net.prepared == []


def test_pass_that_weighs_nothing_in_the_generated_stream_is_not_run():
    x, times, texts = inputs()
    net = FakeNet()
    rule = UCG2(Scale(video=4.0, audio=1.0))
    velocity = guided(net, rule, OPEN, texts, grid=GRID, generated=AV(False, True), batched=False)
    out = velocity(x, times, 0.4)
    assert net.forwards == 1 and (out.video == 0).all() and (out.audio != 0).any()


def test_absent_stream_costs_nothing_and_stays_absent():
    x, times, texts = inputs()
    velocity = guided(FakeNet(), UCG2(), CLOSED, texts, grid=GRID)
    out = velocity(AV(None, x.audio), AV(None, times.audio), 0.4)
    assert out.video is None and out.audio.shape == x.audio.shape


def test_guidance_is_summed_in_float32():
    class Half(FakeNet):
        def forward(self, *args: Any, **kwargs: Any) -> Output:
            return Output(super().forward(*args, **kwargs).velocity.map(lambda z: z.bfloat16()), {})

    x, times, texts = inputs()
    out = guided(Half(), UCG2(), OPEN, texts, grid=GRID)(x, times, 0.4)
    assert out.map(lambda z: z.dtype) == AV(torch.float32, torch.float32)


# On a network of real parts


class One(Guidance):
    """A single pass."""

    def __init__(self, one: Pass) -> None:
        self.one = one

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return table((self.one, AV(*(0.0 if null else 1.0 for null in self.one.null))))


@pytest.fixture
def net() -> DualStreamTransformer:
    made = make_net(layers=3).eval().requires_grad_(False)
    awake(made)
    return made


def real(batch: int = 2) -> tuple[AV[Any], AV[Any], dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    shapes = AV((batch, CHANNELS.video, TINY.t_v, 2, 2), (batch, CHANNELS.audio, TINY.t_a))
    x = shapes.map(lambda shape: torch.randn(shape, generator=g))
    texts = {name: torch.randn(batch, 4, 8, generator=g) for name in ("positive", "negative", "empty")}
    return x, x.map(lambda z: torch.full((batch,), 0.4)), texts


def skipping(what: Any, *layers: int) -> One:
    return One(Pass(POSITIVE, View(skip=frozenset({Skip(what, frozenset(layers))}))))


@pytest.mark.parametrize("cached", [True, False])
def test_passes_of_a_network_are_what_single_forwards_give(net: DualStreamTransformer, cached: bool):
    x, times, texts = real()
    nulls = x.map(lambda z: torch.ones_like(z))
    for rule in (UCG2(), UCG3(), TextCFG(), SyncCFG(), OviCFG(layer=1)):
        together, single = (
            guided(net, rule, OPEN, texts, grid=TINY, nulls=nulls, cached=c, batched=b)(x, times, 0.4)
            for c, b in ((cached, True), (False, False))
        )
        torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-4)


def test_a_skipped_block_is_a_network_without_it(net: DualStreamTransformer):
    x, times, texts = real()
    out = guided(net, skipping("block", 1), OPEN, texts, grid=TINY)(x, times, 0.4)
    whole = net(x, times, texts["positive"], grid=TINY).velocity
    del net.blocks[1]
    without = net(x, times, texts["positive"], grid=TINY).velocity
    torch.testing.assert_close(out, without, rtol=0, atol=0)
    assert not torch.allclose(out.video, whole.video)


def test_self_attention_that_is_skipped_gives_each_token_its_own_value(net: DualStreamTransformer):
    x, times, texts = real()
    out = guided(net, skipping("self_attention", 0, 2), OPEN, texts, grid=TINY)(x, times, 0.4)
    for i in (0, 2):
        for block in (net.blocks[i].video, net.blocks[i].audio):
            own = block.self_attn
            own.forward = lambda x, *_, own=own: own.o(own.v(x))
    expected = net(x, times, texts["positive"], grid=TINY).velocity
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_each_stream_reads_a_text_of_its_own(net: DualStreamTransformer):
    x, times, texts = real()
    for cached in (True, False):
        rule = One(Pass(AV("negative", "empty"), View(CLOSED)))
        out = guided(net, rule, CLOSED, texts, grid=TINY, cached=cached)(x, times, 0.4)
        each = (net(x, times, texts[name], grid=TINY, view=View(CLOSED)).velocity for name in ("negative", "empty"))
        torch.testing.assert_close(out, AV(next(each).video, next(each).audio), rtol=1e-5, atol=1e-5)


def test_a_text_may_be_another_in_each_stream(net: DualStreamTransformer):
    x, times, texts = real()
    texts["negative"] = AV(texts["negative"], texts["empty"])
    for cached in (True, False):
        out = guided(net, TextCFG(), OPEN, texts, grid=TINY, cached=cached)(x, times, 0.4)
        v, u = (net(x, times, texts[name], grid=TINY).velocity for name in ("positive", "negative"))
        torch.testing.assert_close(out.video, 4 * v.video - 3 * u.video, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(out.audio, 3 * v.audio - 2 * u.audio, rtol=1e-4, atol=1e-4)


def test_a_null_stream_is_clean_and_the_other_one_sees_it(net: DualStreamTransformer):
    x, times, texts = real()
    nulls = AV(None, torch.full_like(x.audio, 0.5))
    rule = One(Pass(POSITIVE, View(), null=AV(False, True)))
    velocity = guided(net, rule, OPEN, texts, grid=TINY, nulls=nulls, generated=AV(True, False))
    seen = net(AV(x.video, nulls.audio), AV(times.video, torch.zeros(2)), texts["positive"], grid=TINY).velocity
    torch.testing.assert_close(velocity(x, times, 0.4).video, seen.video, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(seen.video, net(x, times, texts["positive"], grid=TINY).velocity.video)


def test_what_a_text_needs_is_kept_once_whatever_the_passes(net: DualStreamTransformer):
    x, times, texts = real()
    kept: list[Any] = []
    prepare = net.prepare

    def watched(text: Any, **kwargs: Any) -> Any:
        kept.append(prepare(text, **kwargs))
        return kept[-1]

    net.prepare = watched  # type: ignore[method-assign]
    velocity = guided(net, UCG3(), OPEN, texts, grid=TINY)
    velocity(x, times, 0.4), velocity(x, times, 0.3)
    assert [len(one.blocks[0].text.video[0]) for one in kept] == [2, 2]  # two clips, two texts, three passes
