"""What a plan says, against the arithmetic of the method, and against what real tensors measure at a small size."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ccl import cli, planning
from ccl.cli.errors import UsageError
from ccl.cli.fit import resolve
from ccl.cli.planned import Planned
from ccl.grid import Grid
from ccl.guidance import UCG2, UCG3
from ccl.model import DualStreamTransformer
from ccl.model.adapter import LoRA, freeze_backbones
from ccl.nn.attention import attention
from ccl.nn.layers import RMSNorm
from ccl.planning.follow import Live, OnGPU, inputs
from ccl.tasks import PAPER_TASKS
from ccl.training.optimizer import OptimizerConfig
from ccl.types import AV, CLOSED, OPEN, Route
from helpers import ROOT
from helpers.fakes import GRID, make_net, make_text

PAPER = ("model/wan14b.yaml", "data/shards.yaml", "trainer/stage2.yaml", "trainer/fsdp.yaml")
T, GB = 1e12, 1e9


def argv(*files: str) -> list[str]:
    return [arg for file in ("joint.yaml", *files) for arg in ("--config", str(ROOT / "configs" / file))]


@pytest.fixture(scope="module")
def paper() -> Planned:
    config = resolve(argv(*PAPER))
    return Planned(config, Grid(**config["grid"]))


@pytest.fixture(scope="module")
def sizes(paper: Planned) -> dict[str, planning.Size]:
    with torch.device("meta"):
        return planning.parameters(paper.make(paper.layers), paper.text())


@pytest.fixture(scope="module")
def forward(paper: Planned) -> planning.Table:
    return planning.forward_flops(paper.make, paper.layers, paper.grid, OPEN)


# The paper's size, against the method's arithmetic


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


def test_closed_directions_are_cheaper_and_the_mean_lies_between(paper: Planned, forward: planning.Table) -> None:
    closed = planning.total(planning.forward_flops(paper.make, paper.layers, paper.grid, CLOSED))
    tables = {OPEN: forward}

    def of(route: Route) -> planning.Table:
        return tables[route] if route in tables else planning.forward_flops(paper.make, paper.layers, paper.grid, route)

    mean = planning.total(planning.mean_flops(of, PAPER_TASKS))
    assert closed < mean < planning.total(forward)
    assert 0.7 * planning.total(forward) < closed


@pytest.mark.parametrize(("gpus", "own", "shared"), [(8, 44.0, 39.4), (32, 11.0, 9.9), (64, 5.5, 4.9)])
def test_states_of_a_gpu_are_the_methods(
    sizes: dict[str, planning.Size], paper: Planned, gpus: int, own: float, shared: float
) -> None:
    for left_out, expected in (((), own), (("context projections",), shared)):
        parts = {part: size for part, size in sizes.items() if part not in left_out}
        memory = planning.sharded(planning.states(parts, ema=True), parts, gpus=gpus, layers=40, ends=0, bf16=True)
        assert (memory.weights + memory.gradients + memory.optimizer) / GB == pytest.approx(expected, abs=0.06)
        assert memory.average == memory.weights


def test_checkpointed_blocks_keep_their_tokens_alone(paper: Planned) -> None:
    one, two = (planning.activations(paper.make, n, paper.grid, batch=1, checkpointing=True) for n in (1, 2))
    assert two - one == 2 * (18_480 * 5120 + 158 * 1536)  # 7.6 GB over 40 blocks


def test_a_clip_takes_83_petaflops_in_two_passes_and_125_in_three(
    paper: Planned, sizes: dict[str, planning.Size]
) -> None:
    for rule, petaflops in ((UCG2(), 83), (UCG3(), 125)):
        size = sum(part.all for part in sizes.values())
        cost = planning.clip(paper.make, 40, size, paper.grid, rule, steps=50, solver="unipc")
        # Closed passes project no tokens of the other stream, and text is projected once: a little less.
        assert 0.96 * petaflops < cost.flops / 1e15 < petaflops
        assert cost.weights == 2 * size


def test_heuns_solver_evaluates_twice_a_step_but_for_the_last() -> None:
    heun, once = (planning.clip(tiny, 2, 1, GRID, UCG2(), steps=50, solver=solver) for solver in ("heun", "unipc"))
    assert (heun.evaluations, once.evaluations) == (99, 50)
    assert heun.flops == pytest.approx(once.flops * 99 / 50)


# A small size, against what real tensors measure

LAYERS = 2


def tiny(layers: int = LAYERS, *, lora: bool = False, checkpointing: bool = False) -> DualStreamTransformer:
    net = make_net(layers=layers)
    if lora:
        freeze_backbones(LoRA(rank=2).adapt(net), torch.nn.Module())
    net.checkpointing = checkpointing
    return net


def measured(net: DualStreamTransformer, *, backward: bool) -> int:
    """FLOPs that torch counts on real tensors, attention written out as products."""
    for module in net.modules():
        if hasattr(module, "backend"):
            module.backend = "naive"
    with FlopCounterMode(display=False) as counter:
        v = net(*inputs(net, GRID, 2, 6), grid=GRID)
        if backward:
            (v.video.sum() + v.audio.sum()).backward()
    return counter.get_total_flops()


def test_forward_flops_are_what_torch_counts_on_real_tensors() -> None:
    planned = planning.total(planning.forward_flops(tiny, LAYERS, GRID, OPEN, text=6, batch=2))
    assert planned == pytest.approx(measured(tiny(), backward=False), rel=1e-3)


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_training_flops_are_what_torch_counts_on_real_tensors(lora: bool, checkpointing: bool) -> None:
    def make(layers: int) -> DualStreamTransformer:
        return tiny(layers, lora=lora)

    forward = planning.forward_flops(make, 6, GRID, OPEN, text=6, batch=2)
    found = planning.training_flops(forward, planning.parameters(make(6)), checkpointing=checkpointing)
    real = measured(tiny(6, lora=lora, checkpointing=checkpointing), backward=True)
    # At toy size the first layer's inputs, which need no gradient, and the adapters' own weights show.
    assert found == pytest.approx(real, rel=0.1 if lora else 0.02)


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "lora"])
def test_states_are_the_bytes_of_a_real_training_step(lora: bool) -> None:
    net, text = tiny(lora=lora), make_text().requires_grad_(not lora)
    optimizer = OptimizerConfig().build([net, text], net.cross_modal_parameters(), max_steps=1)["optimizer"]
    for p in [*net.parameters(), *text.parameters()]:
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    every = [*net.parameters(), *text.parameters()]
    memory = planning.states(planning.parameters(net, text), ema=True)
    assert memory.weights == sum(p.nbytes for p in every)
    assert memory.gradients == sum(p.grad.nbytes for p in every if p.grad is not None)
    assert memory.optimizer == sum(x.nbytes for state in optimizer.state.values() for x in state.values())
    assert memory.average == sum(p.nbytes for p in (every if not lora else net.parameters()))


def test_live_bytes_are_those_of_tensors_that_live() -> None:
    known = torch.zeros(1000)
    with Live([known]) as live:
        a = torch.zeros(100)
        b = a + 1
        c = known[:10] + b[:10]
        assert live.now == 400 + 400 + 40
        del a, b
        gc.collect()
        assert live.now == 40 and live.peak == 840
        del c


def test_attention_and_norms_are_followed_as_a_gpu_computes_them() -> None:
    """In bfloat16: the output, and a float32 for each query and head; the CPU's path widens q, k and v."""
    q = torch.empty(2, 128, 4, 32, dtype=torch.bfloat16, device="meta")
    with Live([q]) as live, OnGPU():
        out = attention(q, q, q)
    assert out.dtype == torch.bfloat16
    assert live.peak == pytest.approx(q.nbytes + 4 * 2 * 128 * 4, rel=0.01)
    with torch.device("meta"), OnGPU():
        assert RMSNorm(32)(q).shape == q.shape


def test_a_followed_step_lives_as_a_real_one_does() -> None:
    """The same step on real tensors, in float32, where the CPU's path is the GPU's but for attention."""

    def real() -> int:
        net = tiny()
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        args = inputs(net, GRID, 2, 6)
        net._plan(GRID, torch.device("cpu"))
        with Live(net.parameters()) as live:
            v = net(*args, grid=GRID)
            torch.autograd.backward([v.video.square().mean() + v.audio.square().mean()])
        return live.peak

    planned = planning.activations(tiny, LAYERS, GRID, batch=2, text=6, bf16=False, checkpointing=False)
    assert planned == pytest.approx(real(), rel=0.05)


def test_a_network_of_one_stream_has_a_plan() -> None:
    config = resolve(argv("model/wan14b.yaml", "data/shards.yaml", "audio.yaml"))
    planned = Planned(config, Grid(**config["grid"]))
    table = planning.forward_flops(planned.make, planned.layers, planned.grid, CLOSED)
    assert {part.split()[0] for part in table} == {"ends", "audio"}
    assert planning.total(table) / T == pytest.approx(0.75, abs=0.05)
    with torch.device("meta"):
        assert set(planning.parameters(planned.make(40))) == {"audio"}


# The command


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def call(*args: str) -> list[list[str]]:
        assert cli.main(["plan", *args]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    yield call


def test_the_guide_prints_what_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *argv(*PAPER), "--gpus", "8", "32", "64"]) == 0
    guide = (ROOT / "docs" / "training.md").read_text()
    assert f"```text\n{capsys.readouterr().out}```" in guide


def test_every_plan_of_the_guide_is_a_stack_that_resolves() -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    shell = dict(re.findall(r'^(DATA|STAGE1|STAGE2)="(.*)"$', guide, flags=re.M))
    lines = re.findall(r"^ccl (?:plan|fit) (.*)$", guide, flags=re.M)
    assert len(lines) >= 8
    for line in lines:
        while "$" in line:
            line = re.sub(r"\$(\w+)", lambda found: shell[found[1]], line)
        files = re.findall(r"--config (\S+)", line)
        assert files[0] == "configs/joint.yaml" and all((ROOT / file).is_file() for file in files), line


@pytest.mark.slow
def test_the_command_says_what_adapters_leave_to_train(said: Any) -> None:
    lines = said(*argv("trainer/lora.yaml"), "--gpus", "1")
    parts = {line[0]: " ".join(line[1:]) for line in lines[: lines.index([])]}
    assert parts["video"].endswith("frozen") and parts["text"].endswith("frozen")
    assert "frozen" not in parts["adapters"] and "frozen" not in parts["A2V"]


def test_the_command_prints_minutes_a_clip(said: Any) -> None:
    lines = said(*argv(), "--generate", "--mfu", "0.1")
    assert any(line[:3] == ["minutes", "a", "clip"] for line in lines)


def test_the_command_is_clear_about_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan"]) == 2
    assert "it needs a config" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--mfu", "2"]) == 2
    assert "--mfu is 2; it must be a number above 0 and 1 at most" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--trainer.max_step", "2"]) == 2
    assert "there is no option '--trainer.max_step'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="4k"):
        cli.run(["plan", *argv(), "--grid.frames", "78"])


def test_times_are_one_a_latent_frame_where_a_picture_is_given() -> None:
    x, t, states = inputs(make_net(), GRID, 3, 6)
    assert t.map(lambda t: tuple(t.shape)) == AV((3, GRID.t_v), (3, 1)) and states.shape == (3, 6, 8)
    assert len(x.audio) == 3
