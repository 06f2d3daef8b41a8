"""Networks whose blocks differ, against what torch counts of them on real tensors and what lives in their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccl import planning
from ccl.grid import Grid
from ccl.interaction import NoInteraction
from ccl.interaction.base import Interaction, Seen, Site, Update, Where
from ccl.model import DualStreamTransformer
from ccl.model.adapter import freeze
from ccl.model.stream import WanStream
from ccl.nn.attention import attention, heads
from ccl.planning.follow import Live, inputs
from ccl.types import ALONE, AV, Skip, View
from helpers.fakes import CHANNELS
from helpers.plans import short

GRID = Grid(frames=33, height=32, width=32)  # 36 video and 42 audio tokens: more than a width has channels
TEXT = 6


class Sparse(Interaction):
    """Video reads audio, in layers 1 and 3 alone; its modules are called like a stream's."""

    def __init__(self, site: Site, layers: tuple[int, ...] = (1, 3)) -> None:
        super().__init__()
        self.layer, self.active = site.layer, site.layer in layers
        if self.active:
            self.video = nn.Linear(site.audio, site.video)
            self.ffn = nn.Sequential(nn.Linear(site.video, 64), nn.GELU(), nn.Linear(64, site.video))

    def forward(self, where: Where, seen: Seen) -> Update:
        if not seen.route.a2v:
            return Update(AV(None, None))
        add = self.ffn(seen.x.video + self.video(seen.source.audio).mean(1, keepdim=True))
        return Update(AV(add, None), {"size": add.square().mean((1, 2))})


class Fused(Interaction):
    """Both streams' heads read the other stream beside the text; what all layers are told of the times is shared."""

    at = ("text",)

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.head_dim, self.backend = site.head_dim.video, site.backend
        self.k_fusion, self.v_fusion = nn.Linear(site.audio, site.video), nn.Linear(site.audio, site.video)

    def trunk(self) -> nn.Module:
        return Trunk()

    def forward(self, where: Where, seen: Seen) -> Update:
        k, v = (heads(layer(seen.source.audio), self.head_dim) for layer in (self.k_fusion, self.v_fusion))
        q = seen.q.video.to(v.dtype)
        return Update(AV(attention(q, k, v, backend=self.backend) * seen.shared.to(v.dtype), None))


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 1)

    def forward(self, times: AV[Any]) -> Tensor:
        return self.scale(times.audio.mean(1, keepdim=True).to(self.scale.weight.dtype))[:, :, None, None]


def network(
    make: Callable[[Site], Interaction],
    layers: int,
    audio: int | None = None,
    *,
    frozen: bool = False,
    checkpointing: Any = False,
) -> DualStreamTransformer:
    """A small network, of whose streams the one of sound may end before the other."""
    net = DualStreamTransformer(
        video=WanStream(width=32, ffn=64, channels=CHANNELS.video),
        audio=WanStream(width=16, ffn=32, channels=CHANNELS.audio, layers=audio),
        **{"layers": layers, "head_dim": 8, "text_dim": 8, "freq_dim": 16},
        interaction=make,
        checkpointing=checkpointing,
    )
    if frozen:
        freeze("backbones", net, nn.Module())
    return net


def counted(net: DualStreamTransformer, view: View | list[View], batch: int = 2) -> int:
    """What torch counts of the whole network on real tensors, attention written out as products."""
    for module in net.modules():
        if hasattr(module, "backend"):
            module.backend = "naive"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*inputs(net, GRID, batch, TEXT), grid=GRID, view=view)
    return counter.get_total_flops()


NETWORKS: dict[str, Callable[..., DualStreamTransformer]] = {
    "at 2 of 5 layers": lambda **kwargs: network(Sparse, 5, **kwargs),
    "streams of 4 and 3": lambda **kwargs: network(Fused, 4, 3, **kwargs),
}


SKIPPING = View(skip=frozenset({Skip("block", frozenset({1, 2})), Skip("self_attention", frozenset({0}))}))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("view", [View(), ALONE, SKIPPING], ids=["open", "alone", "skipping"])
def test_flops_are_what_torch_counts_of_the_whole_network(make: Callable[..., Any], view: View) -> None:
    table = planning.forward_flops(short(make), GRID, view, text=TEXT, batch=2)
    assert planning.total(table) == counted(make(), view)


def test_blocks_of_a_kind_are_told_by_how_they_are_made() -> None:
    assert short(NETWORKS["at 2 of 5 layers"]).kinds == (0, 1, 0, 1, 0)
    assert short(NETWORKS["streams of 4 and 3"]).kinds == (0, 0, 0, 1)
    assert short(lambda: network(NoInteraction, 3)).kinds == (0, 0, 0)
    net = short(lambda: network(Sparse, 5))
    assert net.alike([View(skip=frozenset({Skip("block", frozenset({2}))}))]) == [0, 1, 2, 1, 0]
    assert sum(net.block_sizes) == sum(p.numel() for p in network(Sparse, 5).blocks.parameters())


def test_queries_of_the_text_are_its_own_and_the_fusion_is_the_interactions() -> None:
    """By hand: of 4 layers the streams' products are those of a network without interaction, 3 have a fusion."""
    view, batch = View(), 2
    table = planning.forward_flops(short(NETWORKS["streams of 4 and 3"]), GRID, view, text=TEXT, batch=batch)
    apart = planning.forward_flops(short(lambda: network(NoInteraction, 4, 3)), GRID, view, text=TEXT, batch=batch)
    fusion = table.pop("interaction")
    trunk = 2 * batch
    assert fusion.linear == 3 * 2 * (2 * batch * GRID.t_a * 16 * 32) + trunk
    assert fusion.core == 3 * 2 * (2 * batch * GRID.s_v * GRID.t_a * 32)
    assert table == apart
    text = apart["video cross_attn"]
    assert text.linear == 4 * (2 * 2 * batch * (GRID.s_v + TEXT) * 32 * 32)  # q and o, k and v


def test_modules_of_an_interaction_are_its_own_whatever_they_are_called() -> None:
    make = NETWORKS["at 2 of 5 layers"]
    table = planning.forward_flops(short(make), GRID, text=TEXT)
    apart = planning.forward_flops(short(lambda: network(NoInteraction, 5)), GRID, text=TEXT)
    assert table.pop("interaction").linear == 2 * 2 * (GRID.t_a * 16 * 32 + 2 * GRID.s_v * 32 * 64)
    assert table == apart
    sizes, fused = (planning.parameters(NETWORKS[name]()) for name in NETWORKS)
    assert sizes["interaction"].all == 2 * (17 * 32 + 33 * 64 + 65 * 32)
    assert fused["interaction"].all == 3 * 2 * (17 * 32) + 2  # the trunk's two with them
    assert set(sizes) == set(fused) == {"video", "audio", "interaction"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frozen", "checkpointing"),
    [
        ("at 2 of 5 layers", True, False),
        ("at 2 of 5 layers", False, True),
        ("streams of 4 and 3", False, False),
        ("streams of 4 and 3", True, True),
        ("streams of 4 and 3", False, "attention"),
        ("at 2 of 5 layers", True, "attention"),
    ],
)
def test_a_step_of_the_whole_network_lives_as_planned(name: str, frozen: bool, checkpointing: Any) -> None:
    make = NETWORKS[name]
    net = make(frozen=frozen, checkpointing=checkpointing)
    for p in net.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    args = inputs(net, GRID, 4, TEXT)
    net.layout(GRID, torch.device("cpu"))
    with Live(net.parameters()) as live:
        v, losses = net(*args, grid=GRID)
        (v.video.square().mean() + v.audio.square().mean() + sum(x.mean() for x in losses.values())).backward()
    planned = planning.activations(
        short(lambda: make(frozen=frozen)), GRID, batch=4, text=TEXT, bf16=False, checkpointing=checkpointing
    )
    assert planned == pytest.approx(live.peak, rel=0.03)
