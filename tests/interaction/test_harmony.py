"""Harmony's interaction against its definition written out, token by token: moments, and the style of a reference."""

from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ccl.grid import Grid
from ccl.interaction import Framewise, Gate, Harmony, Seen, Site
from ccl.interaction.cross import CrossAttention
from ccl.nn.layers import EPS
from ccl.types import AV, CLOSED, OPEN, Route

WHOLE = Grid(frames=9, fps=24.0, height=32, width=32, latent_rate=50.0)  # t_v 3 of 2 x 2 tokens, t_a 18: k = 6
PART = Grid(frames=17, height=32, width=32)  # t_v 5, t_a 21: k = 4.2
SITE = Site(24, 16, head_dim=AV(8, 8))
A2V, V2A = Route(True, False), Route(False, True)


def awake(module: Any) -> Any:
    """In float64, with random weights everywhere."""
    g = torch.Generator().manual_seed(0)
    for p in module.double().parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.3
    return module


def streams(grid: Grid, seed: int = 1) -> AV[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return AV(*(torch.randn(2, n, d, generator=g, dtype=torch.float64) for n, d in ((grid.s_v, 24), (grid.t_a, 16))))


def voice() -> AV[Any]:
    g = torch.Generator().manual_seed(3)
    return AV(None, torch.randn(2, 4, 16, generator=g, dtype=torch.float64))


def seen(one: Harmony, grid: Grid, x: AV, route: Route = OPEN, **more: Any) -> Seen:
    return Seen(x, x, route, layout=one.layout(grid, torch.device("cpu")), **more)


# The definition


def turned(head: Tensor, places: tuple[float, ...]) -> Tensor:
    """Pairs of a head of 8 numbers: two turn with time, one with height and one with width."""
    angles = [places[0], places[0] * 10_000**-0.5, *places[1:]]
    pairs = [complex(*pair) * cmath.exp(1j * a) for pair, a in zip(head.reshape(4, 2).tolist(), angles, strict=True)]
    return torch.tensor([part for pair in pairs for part in (pair.real, pair.imag)], dtype=torch.float64)


def of_picture(n: int, grid: Grid) -> tuple[float, float, float]:
    i, rest = divmod(n, grid.h * grid.w)
    return float(i), *map(float, divmod(rest, grid.w))


def of_sound(j: int, grid: Grid) -> tuple[float, float, float]:
    return j * grid.t_v / grid.t_a, 0.0, 0.0


def layer(x: Tensor, norm: Any) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + EPS).sqrt() * norm.weight + norm.bias


def rms(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean() + EPS).sqrt() * norm.weight


def asked(one: CrossAttention, x: Tensor, at: Any, context: list[tuple[Tensor, Any]]) -> Tensor:
    """o(A(q x, k C, v C)) of one token x at its place, C being tokens with theirs; without a place nothing turns."""
    q = rms(one.q(layer(x, one.norm_query)), one.norm_q)
    rows = [layer(y, one.norm_source) for y, _ in context]
    keys, values = [rms(one.k(y), one.norm_k) for y in rows], [one.v(y) for y in rows]
    parts = []
    for head in (slice(n, n + one.head_dim) for n in range(0, len(q), one.head_dim)):
        own = q[head] if at is None else turned(q[head], at)
        each = [k[head] if at is None else turned(k[head], place) for k, (_, place) in zip(keys, context, strict=True)]
        weights = [math.exp(float(own @ k) / math.sqrt(one.head_dim)) for k in each]
        parts.append(sum(w * v[head] for w, v in zip(weights, values, strict=True)) / sum(weights))
    return one.o(torch.cat(parts))


def naive(one: Harmony, x: AV, grid: Grid, window: int) -> tuple[Tensor, Tensor]:
    """Both local updates of one clip."""
    frames = AV([n // (grid.h * grid.w) for n in range(grid.s_v)], [j * grid.t_v // grid.t_a for j in range(grid.t_a)])
    places = AV([of_picture(n, grid) for n in range(grid.s_v)], [of_sound(j, grid) for j in range(grid.t_a)])
    updates = []
    for part, rows, others, own, its, at, other in (
        (one.a2v, x.video, x.audio, frames.video, frames.audio, places.video, places.audio),
        (one.v2a, x.audio, x.video, frames.audio, frames.video, places.audio, places.video),
    ):
        near = [[m for m, frame in enumerate(its) if abs(frame - i) <= window] for i in own]
        updates.append(
            torch.stack(
                [asked(part, rows[n], at[n], [(others[m], other[m]) for m in near[n]]) for n in range(len(rows))]
            )
        )
    return updates[0], updates[1]


@torch.no_grad()
@pytest.mark.parametrize("grid", [WHOLE, PART], ids=["k 6", "k 4.2"])
@pytest.mark.parametrize("window", [0, 1])
def test_each_token_reads_what_a_loop_over_tokens_reads(grid: Grid, window: int) -> None:
    one, x = awake(Harmony(SITE, Framewise(window))), streams(grid)
    add = one("before", seen(one, grid, x)).add
    video, audio = naive(one, AV(x.video[1], x.audio[1]), grid, window)
    torch.testing.assert_close(add.video[1], video, rtol=0, atol=1e-12)
    torch.testing.assert_close(add.audio[1], audio, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_reference_reads_all_pictures_and_none_is_nearer_to_it() -> None:
    one, x, z = awake(Harmony(SITE, Framewise())), streams(PART), voice()
    update = one("before", seen(one, PART, x, prefix=z))
    assert update.prefix.video is None
    for token, found in zip(z.audio[1], update.prefix.audio[1], strict=True):
        torch.testing.assert_close(
            found, asked(one.style, token, None, [(y, None) for y in x.video[1]]), rtol=0, atol=1e-12
        )
    for with_it, without in zip(update.add, one("before", seen(one, PART, x)).add, strict=True):
        assert torch.equal(with_it, without)  # the sound learns of it in its self-attention alone


@pytest.mark.parametrize("route", [OPEN, CLOSED, A2V, V2A], ids=["open", "closed", "a2v", "v2a"])
@pytest.mark.parametrize("given", [True, False], ids=["reference", "none"])
def test_a_reference_sees_pictures_where_the_sound_may_and_no_parameter_goes_without_gradient(
    route: Route, given: bool
) -> None:
    one, x = awake(Harmony(SITE, Framewise())), streams(PART)
    source = streams(PART, seed=2).map(Tensor.requires_grad_)
    z = voice() if given else AV(None, None)
    update = one("before", seen(one, PART, x, route, prefix=z)._replace(source=source))
    assert (update.prefix.audio is not None) == given
    if given:
        update.prefix.audio.sum().backward(retain_graph=True)
        assert (source.video.grad is not None) == route.v2a and source.audio.grad is None
    sum(add.sum() for add in (*update.add, update.prefix.audio) if add is not None).backward()
    assert [name for name, p in one.named_parameters() if p.grad is None] == []


def test_without_its_global_path_it_is_the_gate_with_its_windows() -> None:
    one, gate = awake(Harmony(SITE, Framewise(), style=False)), Gate(SITE, Framewise()).double()
    gate.load_state_dict(one.state_dict())
    x, layout = streams(PART), gate.layout(PART, torch.device("cpu"))
    assert one("before", seen(one, PART, x, prefix=voice())).prefix == AV(None, None)
    for a, b in zip(one("before", seen(one, PART, x)).add, gate("after", Seen(x, x, layout=layout)).add, strict=True):
        assert torch.equal(a, b)
