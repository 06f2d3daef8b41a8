"""The contract of every interaction in configs/interaction, and the windowed attention against a naive loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import ccl.interaction as public
from ccl.contracts import Clause, outcomes
from ccl.contracts.interaction import CLAUSES
from ccl.contracts.sites import Sites
from ccl.grid import Grid
from ccl.interaction import (
    CCA,
    TARP,
    AVLink,
    Framewise,
    Gate,
    Global,
    Harmony,
    Interaction,
    LTX2Attention,
    MOVABridge,
    Seen,
    Site,
    UniAVGen,
)
from ccl.interaction.cross import CrossAttention
from ccl.nn.rope import rotate
from ccl.types import AV, CLOSED, OPEN, Route
from helpers import ROOT, contracts

GRID = Grid(frames=17, height=32, width=48)  # t_v 5, 2 x 3 tokens, t_a 21, c 4
SITE = Site(64, 32, AV(16, 8))
ROUTES = [OPEN, CLOSED, Route(True, False), Route(False, True)]
ALIGNS = [TARP("paper"), TARP("proportional"), TARP("true"), TARP("paper", "shift"), TARP("paper", "clamp"), Global()]


CCAS = [partial(CCA, align=align, num_context_audio=3, num_context_video=5) for align in ALIGNS] + [
    partial(CCA, align=TARP(), num_context_audio=3, num_context_video=5, **option)
    for option in ({"own_projections": False}, {"rotate": "temporal"}, {"rotate": "full"})
]
GATES = [partial(Gate, align=align) for align in ALIGNS]
CROSS = CCAS + GATES


@contracts.every("interaction")
def test_contract(part: Path, clause: Clause) -> None:
    contracts.hold(part, clause)


def test_every_interaction_has_a_config() -> None:
    named = {contracts.cls_of(file) for file in (ROOT / "configs" / "interaction").glob("*.yaml")}
    ours = {cls for name in public.__all__ if isinstance(cls := getattr(public, name), type)}
    assert {cls for cls in ours if issubclass(cls, Interaction)} - {Interaction} <= named


OPTIONS = [
    *CCAS[2:],
    GATES[4],
    partial(AVLink, closed="own"),
    partial(Harmony, align=Framewise(0), style=False),
    partial(LTX2Attention, head_dim=4, audio_stride=4),
    partial(MOVABridge, layers=1, first_frame_bias=True, train_scale=True),
    partial(UniAVGen, window=0, pictures="frame", mask="unsupervised"),
    partial(UniAVGen, window=None, pictures="all", mask="none"),
]


@pytest.mark.parametrize("make", OPTIONS, ids=lambda make: make.func.__name__)
def test_every_option_keeps_the_contract(make) -> None:
    assert [came for came in outcomes(CLAUSES, Sites(make)) if came.state != "ok"] == []


def randomised(make) -> Interaction:
    torch.manual_seed(0)
    interaction = make(SITE)
    for p in interaction.parameters():
        nn.init.normal_(p, std=0.3)
    return interaction


def streams(seed: int = 1) -> AV[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return AV(torch.randn(2, GRID.s_v, 64, generator=g), torch.randn(2, GRID.t_a, 32, generator=g))


def updates(interaction: Interaction, x: AV, source: AV | None = None, route: Route = OPEN, **kwargs) -> AV:
    """The interaction's updates, what is not there written as zeros."""
    layout = interaction.layout(GRID, torch.device("cpu"))
    torch.manual_seed(5)
    time, trunk = x.map(lambda x: torch.tensor([[0.04], [0.7]])), interaction.trunk()
    seen = Seen(x, x if source is None else source, route, time, layout, shared=trunk and trunk(time), **kwargs)
    out = interaction(interaction.at[0] if interaction.at else "after", seen).add
    return AV.zip(lambda x, u: torch.zeros_like(x) if u is None else torch.zeros_like(x) + u, x, out)


@pytest.mark.parametrize("make", CROSS)
def test_gradient_flows_to_the_other_stream_where_the_route_is_open(make) -> None:
    interaction = randomised(make)
    for route in ROUTES:
        x, source = streams(), streams(2).map(lambda s: s.requires_grad_())
        out = updates(interaction, x, source=source, route=route)
        (out.video.square().mean() + out.audio.square().mean()).backward()
        assert (source.audio.grad is not None) == route.a2v
        assert (source.video.grad is not None) == route.v2a


def naive(direction: CrossAttention, x, source, see: torch.Tensor, rope, context) -> torch.Tensor:
    """Cross-attention with a full (l x m) mask and the context tokens behind: what the windows must equal."""
    d = direction.head_dim
    q = rotate(direction.norm_q(direction.q(direction.norm_query(x))).unflatten(-1, (-1, d)), rope[0])
    y = direction.norm_source(source)
    k = rotate(direction.norm_k(direction.k(y)).unflatten(-1, (-1, d)), rope[1])
    v = direction.v(y).unflatten(-1, (-1, d))
    scores = torch.einsum("blhd,bmhd->bhlm", q, k).masked_fill(~see, -torch.inf)
    if context is not None:
        scores = torch.cat([scores, torch.einsum("blhd,nhd->bhln", q, context[0])], -1)
        v = torch.cat([v, context[1].expand(len(v), *context[1].shape)], 1)
    out = torch.einsum("bhlm,bmhd->blhd", (scores * d**-0.5).softmax(-1), v)
    return direction.o(out.flatten(2))


def visible(align) -> AV[torch.Tensor]:
    """Who sees whom, as (s_v, t_a) and (t_a, s_v) masks."""
    size = GRID.h * GRID.w
    if isinstance(align, Global):
        a2v = torch.ones(GRID.t_v, GRID.t_a, dtype=torch.bool)
        v2a = torch.ones(GRID.t_a, GRID.t_v, dtype=torch.bool)
    else:
        a2v = torch.zeros(GRID.t_v, GRID.t_a, dtype=torch.bool)
        for row, keys, inside in zip(a2v, *align.windows(GRID), strict=True):
            row[keys[inside]] = True
        v2a = torch.arange(GRID.t_v) == (torch.arange(GRID.t_a) * GRID.t_v // GRID.t_a)[:, None]
    return AV(a2v.repeat_interleave(size, 0), v2a.repeat_interleave(size, 1))


@pytest.mark.parametrize("make", [m for m in CROSS if getattr(m.keywords["align"], "edges", "mask") != "clamp"])
def test_windowed_attention_equals_masked_attention(make) -> None:
    interaction, x = randomised(make).eval(), streams()
    see, rope = visible(interaction.align), interaction.layout(GRID, torch.device("cpu")).rope
    context = interaction.constants()
    out = updates(interaction, x)
    video = naive(interaction.a2v, x.video, x.audio, see.video, rope.video, context.video)
    audio = naive(interaction.v2a, x.audio, x.video, see.audio, rope.audio, context.audio)
    torch.testing.assert_close(out.video, video, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.audio, audio, rtol=1e-5, atol=1e-5)


def test_shared_projections_put_the_tokens_in_the_sources_width() -> None:
    own = CCA(SITE, TARP(), num_context_audio=3, num_context_video=5)
    shared = CCA(SITE, TARP(), num_context_audio=3, num_context_video=5, own_projections=False)
    assert own.a2v.context.tokens.shape == (3, 64) and shared.a2v.context.tokens.shape == (3, 32)
    assert own.v2a.context.tokens.shape == (5, 32) and shared.v2a.context.tokens.shape == (5, 64)


def test_context_tokens_alone_answer_on_a_closed_route_and_the_gate_adds_zero() -> None:
    x = streams()
    assert all(u.any() for u in updates(randomised(CCAS[0]), x, route=CLOSED))
    assert all(not u.any() for u in updates(randomised(GATES[0]), x, route=CLOSED))


@pytest.mark.parametrize("count", [-1, 2**63])
def test_numbers_of_context_tokens_that_cannot_be_are_told(count: int) -> None:
    for name in ("num_context_audio", "num_context_video"):
        with pytest.raises(ValueError, match=f"^{name} is {count}; it must be a whole number from 0 to 1,048,576"):
            CCA(SITE, align=TARP(), **{name: count})


def test_default_init_of_the_output_is_an_option() -> None:
    interaction = CCA(SITE, TARP(), init="default")
    assert interaction.a2v.o.weight.any() and updates(interaction, streams()).video.any()


def test_bfloat16_autocast_stays_near_float32() -> None:
    interaction, x = randomised(CCAS[0]).eval(), streams()
    exact = updates(interaction, x)
    with torch.autocast("cpu", torch.bfloat16):
        near = updates(interaction, x)
    for a, b in zip(near, exact, strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.02
