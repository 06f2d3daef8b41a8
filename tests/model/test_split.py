"""A clip that is split over two processes (Ulysses) against the same clip on one: outputs, losses and gradients."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from ccl.contracts.sites import CHANNELS, CLIPS, GRID, inputs
from ccl.grid import Grid
from ccl.interaction import Interaction, Site, Update
from ccl.model import DualStreamTransformer, Voice, WanStream
from ccl.model.recompute import Checkpointing
from ccl.nn.split import Split
from ccl.types import ALONE, AV, CLOSED, OPEN, VOICE, Route, Skip, View
from helpers import ROOT
from helpers.contracts import subject
from helpers.pair import on_two

FILES = sorted((ROOT / "configs" / "interaction").glob("*.yaml"))
NEAR = 1e-5  # of the largest number of what is compared, in float32

WHOLE = (View(OPEN),)
# Streams that are given, closed routes, tokens that attend to themselves alone, a block that is left out.
MIXED = (
    View(OPEN, skip=frozenset({Skip("self_attention", frozenset({0}))})),
    View(Route(True, False), detach=AV(False, True)),
    View(Route(False, True), skip=frozenset({Skip("block", frozenset({1}))})),
    ALONE,
)
CASES: dict[str, tuple[tuple[View, ...], Checkpointing]] = {
    "whole": (WHOLE, False),
    "in chunks": (MIXED, False),
    "recomputed": (WHOLE, True),
    "recomputed but for attention": (WHOLE, "attention"),
}


# Of one interaction with each way of computing a block again: the exchanges are the block's.
STEPS = [(file, case) for case in CASES for file in FILES if case in ("whole", "in chunks") or file.stem == "cca"]


def step(net: DualStreamTransformer, views: tuple[View, ...], video: bool = True) -> dict[str, Tensor]:
    """Velocities, losses and gradients of a step with a voice, of frames that have times of their own."""
    clips, g = CLIPS * len(views), torch.Generator().manual_seed(7)
    x, t, text = inputs(clips)
    t = t._replace(video=torch.rand(clips, GRID.t_v, generator=g))
    voice = Voice(torch.randn(clips, CHANNELS.audio, 3, generator=g), torch.arange(clips) % 2 == 0)
    extras = net.interaction.example(GRID, clips) | {VOICE: voice}
    if not video:
        x, t = AV(None, x.audio), AV(None, t.audio)
    out = net.train()(x, t, text, grid=GRID, view=views, extras=extras)
    found = {f"velocity.{i}": v for i, v in enumerate(out.velocity) if v is not None}
    wanted = [torch.randn(v.shape, generator=g) for v in found.values()]
    loss = sum((v - w).square().mean() for v, w in zip(found.values(), wanted, strict=True))
    (loss + sum(x.mean() for x in out.losses.values())).backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {name: x.detach() for name, x in {**found, **out.losses, **grads}.items()}


def stepped(file: Path, case: str, group: Any = None) -> dict[str, Tensor]:
    views, checkpointing = CASES[case]
    net = subject(file).network(checkpointing=checkpointing)
    net.split_over(group)
    return step(net, views)


def split_steps() -> dict[Any, dict[str, Tensor]]:
    """All cases on this process."""
    group = dist.group.WORLD
    found: dict[Any, Any] = {(file.stem, case): stepped(file, case, group) for file, case in STEPS}
    net = subject(FILES[1]).network()
    net.split_over(group)
    found["sound alone"] = step(net, (View(CLOSED),), video=False)
    return found


@cache
def both() -> list[dict[Any, dict[str, Tensor]]]:
    """What each of two processes computes."""
    return on_two(split_steps)


def assert_same(case: Any, one: dict[str, Tensor]) -> None:
    """What is returned is the same on each of the processes, and the mean of their gradients is that of one."""
    first, second = (found[case] for found in both())
    assert first.keys() == second.keys() == one.keys()
    assert sum(name.startswith("blocks.") for name in one) > 20
    for name, x in one.items():
        returned = name.startswith("velocity") or "." not in name
        for ours in (first[name], second[name]) if returned else [(first[name] + second[name]) / 2]:
            gap, most = float((ours - x).abs().max()), float(x.abs().max())
            assert gap <= NEAR * max(most, 1e-2), f"{name}: {gap:.2g} of {most:.2g}"


@pytest.mark.parametrize(("file", "case"), STEPS, ids=lambda value: getattr(value, "stem", value))
def test_two_processes_compute_of_a_clip_what_one_does(file: Path, case: str) -> None:
    assert_same((file.stem, case), stepped(file, case))


def test_sound_alone_is_computed_as_if_there_were_nothing_to_split() -> None:
    assert_same("sound alone", step(subject(FILES[1]).network(), (View(CLOSED),), video=False))


class Own(Interaction):
    """Somebody's, who has not thought of it."""

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, where: Any, seen: Any) -> Update:
        return Update(AV(None, None))


def test_what_does_not_divide_is_refused_in_a_sentence_with_its_numbers() -> None:
    net = subject(ROOT / "configs" / "interaction" / "cca.yaml").network(meta=True)
    with pytest.raises(ValueError, match=r"the video stream's 4 heads do not divide among the 3 processes that share"):
        net.split_over(ProcessGroup(0, 3))
    net.split_over(ProcessGroup(0, 4))
    with pytest.raises(ValueError, match=r"a latent frame's 2 x 3 tokens do not divide among the 4 processes"):
        net.layout(GRID, torch.device("cpu"))
    streams: dict[str, Any] = {"layers": 1, "head_dim": 8, "text_dim": 8, "freq_dim": 16, "interaction": Own}
    own = DualStreamTransformer(video=WanStream(16, 16, 4), audio=WanStream(16, 16, 6), **streams)
    own.split_over(ProcessGroup(0, 2))
    with pytest.raises(ValueError, match=r"Own does not say how it reads a clip that is split over processes"):
        own.layout(GRID, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"this network has no video stream"):
        DualStreamTransformer(audio=WanStream(16, 16, 6), **streams).split_over(ProcessGroup(0, 2))


def test_every_process_holds_an_equal_run_of_each_frames_tokens() -> None:
    grid = Grid(frames=9, height=32, width=64)
    tokens = torch.arange(grid.t_v * grid.h * grid.w)
    runs = [Split(ProcessGroup(rank, 4), rank, 4, grid.t_v).own(tokens, 0) for rank in range(4)]
    assert [run[:4].tolist() for run in runs] == [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]]
    assert sorted(torch.cat(runs).tolist()) == tokens.tolist()
