"""States and activations, against the arithmetic of the method and the bytes of real steps at a small size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ccl import planning
from ccl.cli.planned import Model, Planned
from ccl.planning.follow import Live, inputs
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.training.optimizer import OptimizerConfig
from ccl.types import OPEN, Route, View
from helpers.fakes import GRID, make_text
from helpers.plans import GB, short, tiny


@pytest.mark.parametrize(("gpus", "own", "shared"), [(8, 44.0, 39.4), (32, 11.0, 9.9), (64, 5.5, 4.9)])
def test_states_of_a_gpu_are_the_methods(
    sizes: dict[str, planning.Size], paper: Planned, gpus: int, own: float, shared: float
) -> None:
    for left_out, expected in (((), own), (("context projections",), shared)):
        parts = {part: size for part, size in sizes.items() if part not in left_out}
        each = sum(size.all for size in parts.values()) // 40
        states = planning.states(parts, ema=True)
        memory = planning.sharded(states, gpus=gpus, blocks=[each] * 40, ends=0, bf16=True)
        assert (memory.weights + memory.gradients + memory.optimizer) / GB == pytest.approx(expected, abs=0.06)
        assert memory.average == memory.weights


def test_checkpointed_blocks_keep_their_tokens_alone(paper: Planned, model: Model) -> None:
    one, two = (
        planning.activations(replace(model.short, kinds=(0,) * n), paper.grid, batch=1, checkpointing=True)
        for n in (1, 2)
    )
    assert two - one == 2 * (18_480 * 5120 + 158 * 1536)  # 7.6 GB over 40 blocks


def test_of_a_clip_that_is_split_a_gpu_keeps_its_part_of_the_video_and_all_of_the_sound(
    paper: Planned, model: Model
) -> None:
    one, two = (
        planning.activations(replace(model.short, kinds=(0,) * n), paper.grid, batch=1, checkpointing=True, context=4)
        for n in (1, 2)
    )
    assert two - one == 2 * (18_480 // 4 * 5120 + 158 * 1536)


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


def test_a_followed_step_lives_as_a_real_one_does() -> None:
    """The same step on real tensors, in float32, where the CPU's path is the GPU's but for attention."""

    def real() -> int:
        net = tiny()
        for part in net.modules():
            if hasattr(part, "backend"):
                part.backend = "sdpa"  # by scores, as a CPU does it, an interaction holds others
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        args = inputs(net, GRID, 2, 6)
        net.layout(GRID, torch.device("cpu"))
        with Live(net.parameters()) as live:
            v = net(*args, grid=GRID).velocity
            torch.autograd.backward([v.video.square().mean() + v.audio.square().mean()])
        return live.peak

    planned = planning.activations(short(), GRID, batch=2, text=6, bf16=False, checkpointing=False)
    assert planned == pytest.approx(real(), rel=0.05)


def test_a_step_is_as_large_as_the_task_that_holds_most() -> None:
    joint, heard = Term(OPEN), Term(Route(True, False), {"audio": Given("all")}, name="heard")
    tasks = {"joint": Task(0.6, (joint,)), "heard": Task(0.3, (heard,)), "never": Task(0.0, (joint,) * 9)}
    assert planning.largest(tasks) == [(joint.view,)] == planning.largest(PAPER_TASKS)
    both = Task(0.1, (joint, heard))
    (views,) = planning.largest({**tasks, "both": both})
    assert sorted(map(repr, views)) == sorted(map(repr, (joint.view, heard.view)))
    apart = {"a": Task(0.5, (heard,)), "v": Task(0.5, (Term(Route(False, True), {"video": Given("all")}),))}
    assert len(planning.largest(apart)) == 2


def test_each_term_of_a_step_holds_its_clips() -> None:
    def held(*views: View, batch: int) -> int:
        return planning.activations(short(), GRID, views, batch=batch, text=6, bf16=False, checkpointing=True)

    assert held(View(), View(), batch=2) == held(View(), batch=4)
