"""MOVA's bridge against its definition written out: positions, rotation and softmax, query by query."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ccl.grid import Grid
from ccl.interaction import MOVABridge, NoInteraction, Seen, Site
from ccl.interaction.mova import Bridge, moments
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.nn.layers import EPS
from ccl.planning.count import by_part
from ccl.planning.follow import Counting
from ccl.types import ALONE, AV, CLOSED, OPEN, Route, View

GRID = Grid(frames=9, fps=24.0, height=16, width=32, latent_rate=50.0)  # t_v 3, 1 x 2 tokens; t_a 18
SITE = Site(24, 16, head_dim=AV(8, 4))
CPU = torch.device("cpu")
A2V, V2A = Route(True, False), Route(False, True)


def awake(module: Any) -> Any:
    """In float64, with random weights everywhere."""
    g = torch.Generator().manual_seed(0)
    for p in module.double().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3
    return module


def streams(seed: int = 1) -> AV[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return AV(*(torch.randn(2, n, d, generator=g, dtype=torch.float64) for n, d in ((GRID.s_v, 24), (GRID.t_a, 16))))


def seen(bridge: MOVABridge, x: AV, route: Route = OPEN, scale: float | None = None) -> Seen:
    shared = None if scale is None else AV(*[torch.full((2, 1, 1), scale, dtype=torch.float64)] * 2)
    return Seen(x, x, route, layout=bridge.layout(GRID, CPU), shared=shared)


# The definition


def position(stream: str, token: int, *, bias: bool) -> float:
    """In audio tokens: s i of a latent frame i, or the moment at which it begins; j of an audio token j."""
    if stream == "audio":
        return float(token)
    i = token // (GRID.h * GRID.w)
    if bias:
        return GRID.latent_rate * (0.0 if i == 0 else 1 / GRID.fps + (i - 1) * 4 / GRID.fps)
    return GRID.latent_rate / (GRID.fps / 4) * i


def turned(x: Tensor, at: float) -> list[float]:
    """One head of one token: number i with number i + p / 2."""
    half = len(x) // 2
    pairs = [complex(x[i], x[i + half]) * complex(math.cos(a), math.sin(a))
             for i in range(half) for a in [at * 10_000 ** (-2 * i / len(x))]]  # fmt: skip
    return [z.real for z in pairs] + [z.imag for z in pairs]


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def naive(one: Bridge, x: Tensor, y: Tensor, *, names: tuple[str, str], bias: bool) -> Tensor:
    """One clip's update: of each query and head a softmax over all tokens of the other stream."""
    p = one.head_dim
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    y = y * one.y_norm.weight + one.y_norm.bias
    q, k, v = rms(one.q(x), one.norm_q.weight), rms(one.k(y), one.norm_k.weight), one.v(y)
    rows = []
    for i in range(len(x)):
        parts = []
        for head in (slice(at, at + p) for at in range(0, q.shape[1], p)):
            mine, scores = turned(q[i, head], position(names[0], i, bias=bias)), []
            for j in range(len(y)):
                theirs = turned(k[j, head], position(names[1], j, bias=bias))
                scores.append(sum(a * b for a, b in zip(mine, theirs, strict=True)) / math.sqrt(p))
            weights = [math.exp(s - max(scores)) for s in scores]
            parts.append(sum(w / sum(weights) * value for w, value in zip(weights, v[:, head], strict=True)))
        rows.append(one.o(torch.cat(parts)))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True], ids=["uniform", "first frame bias"])
def test_each_stream_reads_the_other_as_a_double_loop_does(bias: bool) -> None:
    bridge, x = awake(MOVABridge(SITE, first_frame_bias=bias)), streams()
    add = bridge("before", seen(bridge, x)).add
    video = naive(bridge.a2v, x.video[1], x.audio[1], names=("video", "audio"), bias=bias)
    audio = naive(bridge.v2a, x.audio[1], x.video[1], names=("audio", "video"), bias=bias)
    torch.testing.assert_close(add.video[1], video, rtol=0, atol=1e-9)
    torch.testing.assert_close(add.audio[1], audio, rtol=0, atol=1e-9)


def test_a_frame_lies_at_the_audio_token_that_begins_with_it() -> None:
    """24 pictures a second, 50 tokens a second: frames of 4 pictures are 8.33 tokens long, one picture is 2.08."""
    frame, picture = 50 / 6, 50 / 24
    assert moments(GRID, first_frame_bias=False).tolist() == pytest.approx([0, frame, 2 * frame])
    assert moments(GRID, first_frame_bias=True).tolist() == pytest.approx([0, picture, picture + frame])


# Routes, the scale, the layers


@torch.no_grad()
def test_a_closed_direction_adds_nothing_and_the_other_one_is_the_same() -> None:
    bridge, x = awake(MOVABridge(SITE)).eval(), streams()
    both, a2v, v2a = (bridge("before", seen(bridge, x, route)).add for route in (OPEN, A2V, V2A))
    assert torch.equal(a2v.video, both.video) and a2v.audio is None
    assert torch.equal(v2a.audio, both.audio) and v2a.video is None
    assert bridge("before", seen(bridge, x, CLOSED)).add == AV(None, None)


@torch.no_grad()
def test_what_is_told_of_attention_is_what_the_update_is_made_of() -> None:
    bridge, x = awake(MOVABridge(SITE)), streams()
    given = seen(bridge, x)
    update, told = bridge("before", given).add, bridge.attention("before", given)
    for one, add, weights, y in (
        (bridge.a2v, update.video, told.video.other, x.audio),
        (bridge.v2a, update.audio, told.audio.other, x.video),
    ):
        v = one.v(one.y_norm(y)).unflatten(-1, (-1, one.head_dim))
        torch.testing.assert_close(one.o(torch.einsum("bhlm,bmhp->blhp", weights, v).flatten(2)), add)


def test_the_trained_scale_is_one_number_of_the_network_and_multiplies_every_update() -> None:
    net = network(2, train_scale=True)
    assert [name for name, _ in net.named_parameters() if "scale" in name] == ["trunk.scale"]
    assert net.trunk.scale.item() == 1 and network(2).trunk is None
    bridge, x = awake(MOVABridge(SITE, train_scale=True)), streams()
    plain, twice = (bridge("before", seen(bridge, x, scale=scale)).add for scale in (None, 2.0))
    for a, b in zip(plain, twice, strict=True):
        torch.testing.assert_close(2 * a, b)


def network(depth: int, audio: int | None = None, interaction: Any = MOVABridge, **kwargs: Any) -> Any:
    return DualStreamTransformer(
        video=WanStream(24, 32, 4),
        audio=WanStream(16, 24, 6, layers=audio),
        **{"layers": depth, "head_dim": 8, "text_dim": 8, "freq_dim": 16},
        interaction=partial(interaction, **kwargs),
    )


def inputs() -> tuple[AV, AV, Tensor]:
    g = torch.Generator().manual_seed(1)
    z = AV(torch.randn(2, 4, GRID.t_v, GRID.latent_height, GRID.latent_width, generator=g),
           torch.randn(2, 6, GRID.t_a, generator=g))  # fmt: skip
    return z, AV(torch.tensor([0.3, 0.8]), torch.tensor([0.3, 0.8])), torch.randn(2, 5, 8, generator=g)


def test_it_stands_in_the_first_blocks_and_where_there_are_both_streams() -> None:
    for net in (network(4, layers=2), network(4, audio=2), network(4, audio=2, layers=2)):
        assert [block.interaction.active for block in net.blocks] == [True, True, False, False]
        assert not any([*block.interaction.parameters()] for block in net.blocks[2:])
    with pytest.raises(ValueError, match="MOVABridge's layers is 0; it must be a whole number of at least 1"):
        MOVABridge(SITE, layers=0)


@torch.no_grad()
def test_streams_of_unequal_depth_are_themselves_where_the_routes_are_closed() -> None:
    net, (z, t, text) = network(3, audio=2).eval(), inputs()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.1
    both, apart = (net(z, t, text, grid=GRID, view=view).velocity for view in (View(), ALONE))
    for i, name in enumerate(AV._fields):
        one, at = (AV(**{"video": None, "audio": None} | {name: pair[i]}) for pair in (z, t))
        assert torch.equal(net(one, at, text, grid=GRID).velocity[i], apart[i])
        assert (both[i] - apart[i]).abs().max() > 1e-3
    mixed = net(z, t, text, grid=GRID, view=[View(V2A), View()]).velocity
    (
        torch.testing.assert_close(mixed.video[1], both.video[1]),
        torch.testing.assert_close(mixed.video[0], apart.video[0]),
    )


@torch.no_grad()
def test_the_plan_counts_the_products_of_both_directions() -> None:
    def counted(interaction: Any) -> dict[str, Any]:
        with Counting() as counter:
            network(2, interaction=interaction)(*inputs(), grid=GRID)
        return by_part(counter, [1, 1])

    alone, with_it = counted(NoInteraction), counted(MOVABridge)
    assert {part: flops for part, flops in with_it.items() if "interaction" not in part} == alone
    v, a, clips, blocks = GRID.s_v, GRID.t_a, 2, 2
    for part, (n, w), (m, y) in (("a2v", (v, 24), (a, 16)), ("v2a", (a, 16), (v, 24))):
        assert with_it[f"interaction {part}"].linear == blocks * clips * 2 * (2 * n * w * w + 2 * m * y * w)
