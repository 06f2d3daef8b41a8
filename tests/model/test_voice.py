"""A reference voice: tokens before those of the sound, which these read and which nothing is generated of."""

from __future__ import annotations

from functools import partial
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from ccl.grid import Grid
from ccl.interaction import Framewise, Harmony, NoInteraction, OviFusion
from ccl.model import DualStreamTransformer, Voice, WanStream
from ccl.types import ALONE, AV, OPEN, Route, Skip, View
from helpers.fakes import CHANNELS, GRID, KINDS, interaction
from helpers.tiny import awake

N = 5
A2V, V2A = Route(True, False), Route(False, True)
SKIPS = View(skip=frozenset({Skip("self_attention", frozenset({0})), Skip("block", frozenset({1}))}))


def network(make: Any = NoInteraction, video: bool = True) -> DualStreamTransformer:
    net = DualStreamTransformer(
        video=WanStream(16, 24, CHANNELS.video) if video else None, audio=WanStream(8, 16, CHANNELS.audio),
        layers=2, head_dim=8, text_dim=8, interaction=make if video else None, freq_dim=16, rescale="none",
    )  # fmt: skip
    awake(net)
    return net.eval().double()


def clips(count: int, grid: Grid = GRID, seed: int = 0) -> tuple[AV[Any], AV[Any], Tensor]:
    """Latents, times and text states."""
    g = torch.Generator().manual_seed(seed)
    shapes = AV((CHANNELS.video, grid.t_v, grid.latent_height, grid.latent_width), (CHANNELS.audio, grid.t_a))
    x = shapes.map(lambda shape: torch.randn(count, *shape, generator=g, dtype=torch.float64))
    times = shapes.map(lambda _: torch.rand(count, generator=g, dtype=torch.float64))
    return x, times, torch.randn(count, 3, 8, generator=g, dtype=torch.float64)


def voice(there: list[bool], seed: int = 1) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(there), CHANNELS.audio, N, generator=g, dtype=torch.float64)
    return {"voice": Voice(latents, torch.tensor(there))}


@torch.no_grad()
def test_the_sound_reads_it_as_a_clean_beginning_of_its_own() -> None:
    """A stream alone, of a clip that is longer by as much and begins with it; only differences of positions count."""
    longer = Grid(frames=13, height=16, width=16)
    assert longer.t_a - N == GRID.t_a
    net, (x, t, text), brought = network(video=False), clips(2), voice([True, True])
    ours = net(AV(None, x.audio), AV(None, t.audio), text, grid=GRID, view=ALONE, extras=brought).velocity.audio
    whole = torch.cat([brought["voice"].latents, x.audio], 2)
    times = torch.cat([torch.zeros(2, N), t.audio[:, None].expand(-1, GRID.t_a)], 1)
    theirs = net(AV(None, whole), AV(None, times), text, grid=longer, view=ALONE).velocity.audio
    torch.testing.assert_close(ours, theirs[..., N:], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS, "ovi"])
def test_clips_with_one_and_without_run_together_as_they_do_apart(kind: str) -> None:
    net = network(OviFusion if kind == "ovi" else partial(interaction, kind=kind))
    views = [View(OPEN), ALONE, View(A2V), View(V2A), SKIPS]
    (x, t, text), there = clips(2 * len(views)), [True, False] * len(views)
    brought = voice(there)["voice"]
    together = net(x, t, text, grid=GRID, view=views, extras={"voice": brought}).velocity
    for row in range(len(there)):
        one = slice(row, row + 1)
        own = {"voice": Voice(*(z[one] for z in brought))} if there[row] else {}
        single = net(x.map(lambda z, one=one: z[one]), t.map(lambda z, one=one: z[one]), text[one], grid=GRID,
                     view=views[row // 2], extras=own).velocity  # fmt: skip
        for a, b in zip(together, single, strict=True):
            torch.testing.assert_close(a[one], b, rtol=0, atol=1e-10)


@torch.no_grad()
def test_pictures_know_of_it_by_the_sound_alone() -> None:
    net, (x, t, text) = network(partial(interaction, kind="gate")), clips(1)
    ours, theirs = voice([True]), voice([True], seed=2)
    for view, moved in ((View(OPEN), True), (ALONE, False), (View(V2A), False)):
        a, b = (net(x, t, text, grid=GRID, view=view, extras=one).velocity for one in (ours, theirs))
        assert not torch.equal(a.audio, b.audio)
        assert torch.equal(a.video, b.video) != moved


@torch.no_grad()
@pytest.mark.parametrize("route", [OPEN, A2V], ids=["open", "closed"])
def test_harmonys_reference_tells_the_sound_of_the_pictures_where_it_may(route: Route) -> None:
    net = network(partial(Harmony, align=Framewise()))
    for block in net.blocks:  # no other way
        block.interaction.v2a.o.weight.zero_()
        block.interaction.v2a.o.bias.zero_()
        block.interaction.a2v.o.weight.zero_()
        block.interaction.a2v.o.bias.zero_()
    (x, t, text), (other, _, _) = clips(1), clips(1, seed=3)
    for brought, told in ((voice([True]), route == OPEN), ({}, False)):
        a, b = (
            net(AV(video, x.audio), t, text, grid=GRID, view=View(route), extras=brought).velocity.audio
            for video in (x.video, other.video)
        )
        assert torch.equal(a, b) != told


@pytest.mark.parametrize(
    ("brought", "said"),
    [
        (torch.zeros(2, 6, 5), r"extras\['voice'\] is a Tensor; it must be a ccl.model.Voice\(latents, there\)"),
        (Voice(torch.zeros(2, 4, 5), torch.ones(2)), r"have shape \(2, 4, 5\), and `there` \(2,\); \(2, 6, n\) and"),
        (Voice(torch.zeros(2, 6, 5), torch.ones(1)), r"have shape \(2, 6, 5\), and `there` \(1,\); \(2, 6, n\) and"),
    ],
)
def test_what_is_none_is_said(brought: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x, t, text = clips(2)
    with pytest.raises(ValueError, match=said):
        network()(x, t, text, grid=GRID, extras={"voice": brought})
