"""Blocks that wait on the CPU: who is where and when, and that nothing else changes.

The copies are real on a CPU too, one after the other; what a GPU's streams make of them is for `make gpu`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.generation import Pipeline
from ccl.model import DualStreamTransformer
from helpers.fakes import GRID, make_batch, make_net
from helpers.tiny import PROMPTS, awake, tiny_pipeline

CPU = torch.device("cpu")


@torch.no_grad()
def forward(net: DualStreamTransformer, *, prepared: bool = False) -> Any:
    g = torch.Generator().manual_seed(0)
    z = make_batch(0, range(2)).latents
    t = z.map(lambda x: torch.rand(len(x), generator=g))
    text: Any = torch.randn(2, 6, 8, generator=g)
    return net(z, t, net.prepare(text) if prepared else text, grid=GRID).velocity


def awoken(kind: str = "cca", layers: int = 3) -> DualStreamTransformer:
    net = make_net(kind, layers)
    awake(net)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("prepared", [False, True], ids=["text", "prepared"])
def test_velocities_are_the_same_to_the_last_bit_evaluation_after_evaluation(layers: int, prepared: bool) -> None:
    net, other = awoken(layers=layers), awoken(layers=layers)
    other.offload_blocks(CPU)
    for _ in range(3):
        for a, b in zip(forward(net, prepared=prepared), forward(other, prepared=prepared), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["mova", "ltx2"])
def test_what_several_blocks_share_is_always_there(kind: str) -> None:
    net, other = awoken(kind), awoken(kind)
    other.offload_blocks(CPU)
    for a, b in zip(forward(net), forward(other), strict=True):
        assert torch.equal(a, b)


def test_the_next_block_is_fetched_before_one_works_and_takes_the_place_of_one_that_has_worked() -> None:
    net = awoken(layers=3)
    net.offload_blocks(CPU)
    assert net.offload is not None
    forward(net)
    once = [("fetch", 0), ("fetch", 1), ("release", 0), ("fetch", 2), ("release", 1), ("fetch", 0), ("release", 2)]
    assert list(net.offload.log) == once
    forward(net)  # whose first block is there already
    assert list(net.offload.log)[len(once) :] == once[1:4] + once[4:] == list(net.offload.log)[1 : len(once)]


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_two_blocks_at_most_are_there_and_the_one_that_works_is(layers: int) -> None:
    net = awoken(layers=layers)
    net.offload_blocks(CPU)
    offload = net.offload
    assert offload is not None and len(offload.places) == 2
    assert all(len(place) == max(len(one.bytes) for one in offload.waiting) for place in offload.places)
    seen: list[int] = []

    def look(block: Any, given: Any) -> None:
        i = list(net.blocks).index(block)
        there = {place.untyped_storage().data_ptr() for place in offload.places}
        homes = [
            {p.untyped_storage().data_ptr() for p in (*other.parameters(), *other.buffers())} for other in net.blocks
        ]
        assert len(homes[i]) == 1 and homes[i] < there
        assert not any(home & there for j, home in enumerate(homes) if j != i)
        seen.append(i)

    for block in net.blocks:
        block.register_forward_pre_hook(look)
    forward(net)
    assert seen == list(range(layers))


def test_weights_at_rest_are_those_on_the_cpu_even_behind_an_error() -> None:
    net = awoken()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    net.offload_blocks(CPU)
    assert net.offload is not None

    def fail(block: Any, given: Any) -> None:
        raise RuntimeError("in the midst")

    hook = net.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the midst"):
        forward(net)
    hook.remove()
    for place in net.offload.places:
        place.fill_(255)  # not a number, in any type
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def test_numbers_of_both_widths_lie_beside_each_other() -> None:
    net, other = awoken(), awoken()
    for one in (net, other):
        one.blocks[0].video.self_attn.q.to(torch.bfloat16)
        one.blocks[2].audio.ffn.to(torch.bfloat16)
    other.offload_blocks(CPU)
    with torch.autocast("cpu", torch.bfloat16):
        for a, b in zip(forward(net), forward(other), strict=True):
            assert torch.equal(a, b)


def test_a_pipeline_makes_the_same_clip() -> None:
    usual, pipe = tiny_pipeline(), tiny_pipeline()
    pipe = Pipeline(
        pipe.net, pipe.text, pipe.codec, pipe.grid, guidance=pipe.guidance, steps=pipe.steps, offload="blocks"
    )
    for _ in range(2):  # a second list of prompts goes on with the network where it lies
        a, b = usual(PROMPTS[0]), pipe(PROMPTS[0])
        assert (a.video == b.video).all() and (abs(a.audio - b.audio) < 1e-2).all()
    assert pipe.net.offload is not None
