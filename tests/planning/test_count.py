"""Parameters and FLOPs, against the arithmetic of the method and what torch counts on real tensors at a small size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ccl import planning
from ccl.cli.fit import resolve
from ccl.cli.planned import Model, Needs, Planned
from ccl.grid import Grid
from ccl.interaction import AVLink
from ccl.model import DualStreamTransformer, WanStream
from ccl.model.adapter import freeze
from ccl.planning.follow import inputs
from ccl.tasks import PAPER_TASKS
from ccl.types import ALONE, WHOLE, View
from helpers.fakes import CHANNELS, GRID
from helpers.plans import GB, T, argv, short, tiny


def test_parameters_are_the_methods(sizes: dict[str, planning.Size]) -> None:
    billions = {part: size.all / GB for part, size in sizes.items()}
    assert billions["video"] == pytest.approx(14.288, abs=5e-4)
    assert billions["audio"] == pytest.approx(1.88, abs=5e-3)
    assert billions["A2V"] + billions["V2A"] == pytest.approx(3.545, abs=3e-3)  # the arithmetic leaves norms out
    assert billions["context projections"] == pytest.approx(2.286, abs=5e-4)
    assert billions["context tokens"] == pytest.approx(0.0095, abs=5e-5)
    assert all(size.trained == size.all for size in sizes.values())


def test_flops_of_a_forward_are_the_methods(forward: planning.Table) -> None:
    def of(*words: str) -> float:
        return sum(flops.total for part, flops in forward.items() if all(word in part for word in words)) / T

    assert of("video") == pytest.approx(731.5, rel=1e-3)
    assert of("audio") == pytest.approx(0.7, abs=0.05)
    assert of("interaction") == pytest.approx(101.6, rel=1e-3)
    assert of("interaction a2v") / 40 == pytest.approx(1.955, rel=1e-3)
    assert of("interaction v2a") / 40 == pytest.approx(0.585, rel=2e-3)
    assert of("video self_attn") / 40 == pytest.approx(10.87, rel=1e-3)
    assert of("video cross_attn") / 40 == pytest.approx(2.19, rel=3e-3)
    assert of("video ffn") / 40 == pytest.approx(5.23, rel=1e-3)
    assert forward["ends"].total / T < 0.1
    assert of("interaction") / (of("video") + of("audio")) == pytest.approx(0.139, abs=5e-4)


def test_the_final_run_takes_about_9000_hours(forward: planning.Table) -> None:
    step = planning.training_flops(forward, checkpointing=True)
    assert step == pytest.approx(4 * planning.total(forward), rel=1e-3)
    assert 320 * 12_000 * step == pytest.approx(1.28e22, rel=5e-3)
    assert 320 * 12_000 * step / (0.4 * 989e12) / 3600 == pytest.approx(9000, rel=5e-3)


def test_closed_directions_are_cheaper_and_the_mean_lies_between(
    paper: Planned, model: Model, forward: planning.Table
) -> None:
    closed = planning.total(planning.forward_flops(model.short, paper.grid, ALONE))
    tables = {WHOLE: forward}

    def of(view: View) -> planning.Table:
        return tables[view] if view in tables else planning.forward_flops(model.short, paper.grid, view)

    mean = planning.total(planning.mean_flops(of, PAPER_TASKS))
    assert closed < mean < planning.total(forward)
    assert 0.7 * planning.total(forward) < closed


def test_a_network_of_one_stream_has_a_plan() -> None:
    config = resolve(argv("model/wan14b.yaml", "data/shards.yaml", "audio.yaml"))
    planned = Planned(config, Grid(**config["grid"]))
    model = Needs().model(planned)
    table = planning.forward_flops(model.short, planned.grid, ALONE)
    assert {part.split()[0] for part in table} == {"ends", "audio"}
    assert planning.total(table) / T == pytest.approx(0.75, abs=0.05)
    assert {part for part, size in model.sizes.items() if size.all} == {"audio"}


def measured(net: DualStreamTransformer, *, backward: bool) -> int:
    """FLOPs that torch counts on real tensors, attention written out as products."""
    for module in net.modules():
        if hasattr(module, "backend"):
            module.backend = "naive"
    with FlopCounterMode(display=False) as counter:
        v = net(*inputs(net, GRID, 2, 6), grid=GRID).velocity
        if backward:
            (v.video.sum() + v.audio.sum()).backward()
    return counter.get_total_flops()


def test_forward_flops_are_what_torch_counts_on_real_tensors() -> None:
    planned = planning.total(planning.forward_flops(short(), GRID, text=6, batch=2))
    assert planned == pytest.approx(measured(tiny(), backward=False), rel=1e-3)


def fused(checkpointing: bool) -> DualStreamTransformer:
    """AV-Link before two of six blocks, which alone trains: nothing before the first has a backward pass."""
    net = DualStreamTransformer(
        video=WanStream(16, 32, CHANNELS.video),
        audio=WanStream(8, 16, CHANNELS.audio),
        layers=6,
        head_dim=8,
        text_dim=8,
        interaction=partial(AVLink, layers=[2, 4]),
        freq_dim=16,
        checkpointing=checkpointing,
    )
    freeze("backbones", net, torch.nn.Module())
    return net


# A kernel of attention makes the gradients of frozen keys too; torch counts the norms' products with a frozen vector,
# and computes a block again no further than its backward pass reads it.
@pytest.mark.parametrize(
    ("make", "apart"),
    [
        (partial(tiny, 6), 1e-9),
        (lambda checkpointing: tiny(6, lora=True, checkpointing=checkpointing), 2e-3),
        (fused, 0.02),
    ],
    ids=["all", "adapters", "fusion blocks"],
)
def test_training_flops_are_what_torch_counts_on_real_tensors(
    make: Callable[..., DualStreamTransformer], apart: float
) -> None:
    forward = planning.forward_flops(short(lambda: make(checkpointing=False)), GRID, text=6, batch=2)
    for checkpointing in (False, True):
        found = planning.training_flops(forward, checkpointing=checkpointing)
        real = measured(make(checkpointing=checkpointing), backward=True)
        assert found == pytest.approx(real, rel=apart), checkpointing


def test_attention_that_is_kept_is_not_computed_again() -> None:
    forward = planning.forward_flops(short(), GRID, text=6)
    whole, kept = (planning.training_flops(forward, checkpointing=how) for how in (True, "attention"))
    core = sum(flops.core for flops in forward.values())  # all of it is in blocks, and all of them train
    assert core > 0 and whole - kept == pytest.approx(core)


def test_a_frozen_block_before_all_that_trains_has_no_backward_pass() -> None:
    """Nor is it computed again; behind them it has the half that passes gradients on."""
    forward = planning.forward_flops(short(lambda: fused(checkpointing=False)), GRID, text=6)
    for part in ("self_attn", "ffn"):  # of the blocks 2 to 5: the first fusion stands before the third
        flops = forward[f"video {part}"]
        assert flops.again == pytest.approx(flops.total * 4 / 6)
        assert flops.backward == pytest.approx((flops.linear + 2 * flops.core) * 4 / 6)
