"""SyncCFG and UCG's static unconditional against a loop written from the formula, on a network of real parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from ccl.guidance import UCG2, SyncCFG, TextCFG, UCGStatic, guided
from ccl.sampling import solve, times
from ccl.types import AV, CLOSED, NEGATIVE, OPEN, POSITIVE, Pass, Route, Scale, View
from helpers.fakes import CHANNELS, GRID, make_net
from helpers.tiny import awake

SCALE = Scale(2.5, 1.5)
A2V, V2A = Route(a2v=True, v2a=False), Route(a2v=False, v2a=True)


@pytest.fixture(scope="module")
def net() -> Any:
    made = make_net(layers=2).eval().requires_grad_(False)
    awake(made)
    return made


def inputs(batch: int = 2) -> tuple[AV[Any], AV[Any], dict[str, Any]]:
    """Noise, nulls and texts."""
    g = torch.Generator().manual_seed(0)
    shapes = AV((batch, CHANNELS.video, GRID.t_v, 2, 2), (batch, CHANNELS.audio, GRID.t_a))
    noise, nulls = (shapes.map(lambda shape: torch.randn(shape, generator=g)) for _ in range(2))
    return noise, nulls, {name: torch.randn(batch, 4, 8, generator=g) for name in ("positive", "negative")}


def naive(net: Any, away: str, noise: AV[Any], nulls: AV[Any], texts: Mapping[str, Any], steps: int) -> AV[Any]:
    """Harmony's v_driven + s (v_joint - v_driven) of each stream, one clip and one forward at a time."""
    clips = []
    for i in range(len(noise.video)):
        z, a = noise.video[i : i + 1], noise.audio[i : i + 1]
        still, silence = nulls.video[i : i + 1], nulls.audio[i : i + 1]
        text, other = (texts[name][i : i + 1] for name in ("positive", away))
        for k in range(steps, 0, -1):
            t, clean = torch.tensor([k / steps]), torch.zeros(1)
            joint = net(AV(z, a), AV(t, t), text, grid=GRID).velocity
            driven_z = net(AV(z, silence), AV(t, clean), other, grid=GRID, view=View(A2V)).velocity.video
            driven_a = net(AV(still, a), AV(clean, t), other, grid=GRID, view=View(V2A)).velocity.audio
            z = z - (driven_z + SCALE.video * (joint.video - driven_z)) / steps
            a = a - (driven_a + SCALE.audio * (joint.audio - driven_a)) / steps
        clips.append((z, a))
    return AV(*(torch.cat(each) for each in zip(*clips, strict=True)))


@pytest.mark.parametrize(("rule", "away"), [(SyncCFG(SCALE), "positive"), (UCGStatic(SCALE), "negative")])
def test_a_sampling_is_that_of_a_loop_written_from_the_formula(net, rule, away):
    noise, nulls, texts = inputs()
    expected = naive(net, away, noise, nulls, texts, 2)
    for batched in (True, False):
        velocity = guided(net, rule, OPEN, texts, grid=GRID, nulls=nulls, batched=batched)
        torch.testing.assert_close(solve(velocity, noise, times(2)), expected, rtol=1e-4, atol=1e-4)
    other = solve(guided(net, UCG2(SCALE), OPEN, texts, grid=GRID), noise, times(2))
    assert (expected.video - other.video).abs().max() > 1e-2 and (expected.audio - other.audio).abs().max() > 1e-2


def test_a_stream_that_drives_does_not_see_the_one_that_it_drives():
    assert UCGStatic(SCALE).passes(OPEN, 0.5) == {
        Pass(POSITIVE, View(OPEN)): AV(2.5, 1.5),
        Pass(NEGATIVE, View(A2V), AV(False, True)): AV(-1.5, 0.0),
        Pass(NEGATIVE, View(V2A), AV(True, False)): AV(0.0, -0.5),
    }


def test_nothing_is_null_where_nothing_is_seen():
    assert UCGStatic(SCALE).passes(CLOSED, 0.5) == TextCFG(SCALE).passes(CLOSED, 0.5)
    assert SyncCFG(SCALE).passes(CLOSED, 0.5) == {Pass(POSITIVE, View(CLOSED)): AV(1.0, 1.0)}


def test_of_a_given_stream_only_the_pass_that_the_other_weighs_in_is_run(net):
    noise, nulls, texts = inputs()
    given = AV(torch.full((2,), 0.4), torch.zeros(2))  # a2v: the sound is clean
    out = guided(net, SyncCFG(SCALE), A2V, texts, grid=GRID, nulls=AV(None, nulls.audio), generated=AV(True, False))(
        noise, given, 0.4
    )
    driven, task = (
        net(AV(noise.video, sound), given, texts["positive"], grid=GRID, view=View(A2V)).velocity.video
        for sound in (nulls.audio, noise.audio)
    )
    torch.testing.assert_close(out.video, driven + SCALE.video * (task - driven), rtol=1e-4, atol=1e-4)
    assert (out.audio == 0).all()
