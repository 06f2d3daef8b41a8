"""A network's blocks, compiled as training does: how many graphs, and what they give. No code is generated for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from ccl.interaction import (
    CCA,
    TARP,
    AVLink,
    Framewise,
    Harmony,
    Interaction,
    LTX2Attention,
    MOVABridge,
    NoInteraction,
    Site,
    UniAVGen,
)
from ccl.model import DualStreamTransformer, WanStream
from ccl.types import ALONE, AV, Skip, View
from helpers.fakes import CHANNELS, GRID

KINDS: dict[str, Callable[[int], Callable[[Site], Interaction]]] = {
    "cca": lambda layers: partial(CCA, align=TARP("proportional"), num_context_audio=2, num_context_video=3),
    "some blocks": lambda layers: partial(AVLink, layers=list(range(layers // 2))),
    "mova": lambda layers: partial(MOVABridge, train_scale=True),
    "ltx2": lambda layers: LTX2Attention,
    "uniavgen": lambda layers: partial(UniAVGen, window=1),
    "harmony": lambda layers: partial(Harmony, align=Framewise()),
    "none": lambda layers: NoInteraction,
}


SKIPS = View(skip=frozenset({Skip("block", frozenset({1})), Skip("self_attention", frozenset({0}))}))


def network(layers: int, kind: str) -> DualStreamTransformer:
    torch.manual_seed(0)
    return DualStreamTransformer(
        video=WanStream(16, 16, CHANNELS.video),
        audio=WanStream(8, 8, CHANNELS.audio),
        layers=layers,
        head_dim=8,
        text_dim=8,
        interaction=KINDS[kind](layers),
        freq_dim=16,
    )


def inputs(clips: int) -> tuple[AV[Tensor], AV[Tensor], Tensor]:
    """Latents, times and text states."""
    x = AV(
        torch.randn(clips, CHANNELS.video, GRID.t_v, GRID.latent_height, GRID.latent_width),
        torch.randn(clips, CHANNELS.audio, GRID.t_a),
    )
    return x, AV(torch.rand(clips), torch.rand(clips)), torch.randn(clips, 4, 8)


def graphs(layers: int, kind: str) -> tuple[int, dict[str, int]]:
    """Graphs of a training forward and of one without gradients, and where a graph broke."""
    torch._dynamo.reset()
    counters.clear()
    counter, net = CompileCounter(), network(layers, kind)
    for block in net.blocks:
        block.compile(backend=counter)
    x, t, text = inputs(2)
    net(x, t, text, grid=GRID)
    with torch.no_grad():
        net.eval()(x, t, net.prepare(text), grid=GRID)
    return counter.frame_count, dict(counters["graph_break"])


@torch.no_grad()
def passes(layers: int, kind: str) -> tuple[AV[Any], AV[Any], int]:
    """Velocities of three passes in one batch, the last of which skips: of the blocks as they are, and compiled; and of
    how many graphs."""
    torch._dynamo.reset()
    counter, net = CompileCounter(), network(layers, kind).eval()
    for p in net.parameters():
        p.normal_(std=0.3)
    x, t, text = inputs(1)
    x, t = x.map(lambda z: z.repeat(3, *[1] * (z.ndim - 1))), t.map(lambda t: t.repeat(3))
    given, how = net.prepare(text.repeat(3, 1, 1)), {"grid": GRID, "view": [View(), ALONE, SKIPS]}
    eager = net(x, t, given, **how).velocity
    for block in net.blocks:
        block.compile(backend=counter)
    compiled = net(x, t, given, **how).velocity
    return eager.map(Tensor.numpy), compiled.map(Tensor.numpy), counter.frame_count
