"""How many graphs a network's blocks become, compiled as training does; no code is generated for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from ccl.interaction import CCA, TARP, AVLink, Interaction, NoInteraction, Site
from ccl.model import DualStreamTransformer, WanStream
from ccl.types import AV
from helpers.fakes import CHANNELS, GRID

KINDS: dict[str, Callable[[int], Callable[[Site], Interaction]]] = {
    "cca": lambda layers: partial(CCA, align=TARP("proportional"), num_context_audio=2, num_context_video=3),
    "some blocks": lambda layers: partial(AVLink, layers=list(range(layers // 2))),
    "none": lambda layers: NoInteraction,
}


def graphs(layers: int, kind: str) -> tuple[int, dict[str, int]]:
    """Graphs of a training forward and of one without gradients, and where a graph broke."""
    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounter()
    torch.manual_seed(0)
    net = DualStreamTransformer(
        video=WanStream(16, 16, CHANNELS.video),
        audio=WanStream(8, 8, CHANNELS.audio),
        layers=layers,
        head_dim=8,
        text_dim=8,
        interaction=KINDS[kind](layers),
        freq_dim=16,
    )
    for block in net.blocks:
        block.compile(backend=counter)
    clips = 2
    x = AV(
        torch.randn(clips, CHANNELS.video, GRID.t_v, GRID.latent_height, GRID.latent_width),
        torch.randn(clips, CHANNELS.audio, GRID.t_a),
    )
    t, text = AV(torch.rand(clips), torch.rand(clips)), torch.randn(clips, 4, 8)
    net(x, t, text, grid=GRID)
    with torch.no_grad():
        net.eval()(x, t, net.prepare(text), grid=GRID)
    return counter.frame_count, dict(counters["graph_break"])
