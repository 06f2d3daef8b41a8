"""Parameters and FLOPs, against the arithmetic of the method and what torch counts on real tensors at a small size."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from ccl import planning
from ccl.cli.fit import resolve
from ccl.cli.planned import Model, Needs, Planned
from ccl.grid import Grid
from ccl.model import DualStreamTransformer
from ccl.planning.follow import inputs
from ccl.tasks import PAPER_TASKS
from ccl.types import ALONE, OPEN, Route, View
from helpers.fakes import GRID
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


def test_the_final_run_takes_about_9000_hours(sizes: dict[str, planning.Size], forward: planning.Table) -> None:
    step = planning.training_flops(forward, sizes, checkpointing=True)
    assert step == pytest.approx(4 * planning.total(forward), rel=1e-3)
    assert 320 * 12_000 * step == pytest.approx(1.28e22, rel=5e-3)
    assert 320 * 12_000 * step / (0.4 * 989e12) / 3600 == pytest.approx(9000, rel=5e-3)


def test_closed_directions_are_cheaper_and_the_mean_lies_between(
    paper: Planned, model: Model, forward: planning.Table
) -> None:
    closed = planning.total(planning.forward_flops(model.short, paper.grid, ALONE))
    tables = {OPEN: forward}

    def of(route: Route) -> planning.Table:
        return tables[route] if route in tables else planning.forward_flops(model.short, paper.grid, View(route))

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


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_training_flops_are_what_torch_counts_on_real_tensors(lora: bool) -> None:
    forward = planning.forward_flops(short(lambda: tiny(6, lora=lora)), GRID, text=6, batch=2)
    for checkpointing in (False, True):
        found = planning.training_flops(forward, planning.parameters(tiny(6, lora=lora)), checkpointing=checkpointing)
        real = measured(tiny(6, lora=lora, checkpointing=checkpointing), backward=True)
        # At toy size the first layer's inputs, which need no gradient, and the adapters' own weights show.
        assert found == pytest.approx(real, rel=0.1 if lora else 0.02), checkpointing
