"""Several terms of a task in one forward, and the losses that an interaction asks a training to lower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccl.callbacks import LossLog, TaskRouter
from ccl.interaction import Interaction, Site
from ccl.interaction.base import Seen, Update, Where
from ccl.model import DualStreamTransformer, WanStream
from ccl.tasks import Given, Task, Term
from ccl.training.module import JointDiffusion, TrainingError
from ccl.types import AV, OPEN, Route
from helpers.fakes import CHANNELS, GRID, FakeData, fit, make_batch, make_codec, make_module, make_text
from helpers.tiny import awake

# Harmony's synergy: joint generation, and each stream driven by the other, of the same clips and noise.
JOINT = Term(OPEN, {"video": Given("first_frame", prob=0.5)}, shared_time=True, name="joint")
A2V = Term(Route(a2v=True, v2a=False), {"audio": Given("all", time=0.04)}, weight={"video": 0.5}, name="driven_video")
V2A = Term(Route(a2v=False, v2a=True), {"video": Given("all")}, weight={"audio": 2.0}, name="driven_audio")
SYNERGY = Task(1.0, (JOINT, A2V, V2A))


def awake_module(**kwargs: Any) -> JointDiffusion:
    module = make_module(**kwargs)
    awake(module.built[0])
    return module


def gradients(module: JointDiffusion, task: Task) -> dict[str, Tensor]:
    module.zero_grad()
    module.weighed(module.losses(make_batch(0, range(3)), task, index=0), task).mean().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_terms_of_one_forward_are_those_of_a_forward_each() -> None:
    module = awake_module()
    together = module.losses(make_batch(0, range(3)), SYNERGY, index=0)
    for term, streams in zip(SYNERGY.terms, together.terms, strict=True):
        (alone,), _ = module.losses(make_batch(0, range(3)), Task(1.0, (term,)), index=0)
        for a, b in zip(streams, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_their_gradient_is_the_sum_of_the_terms_gradients() -> None:
    module = awake_module()
    whole = gradients(module, SYNERGY)
    each = [gradients(module, Task(1.0, (term,))) for term in SYNERGY.terms]
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, sum(one[name] for one in each), rtol=1e-4, atol=1e-6)


def test_terms_are_logged_by_their_names(tmp_path: Path) -> None:
    module = make_module(tasks={"synergy": SYNERGY})
    trainer = fit(module, FakeData(2), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=1)
    (row,) = map(json.loads, (tmp_path / "losses.jsonl").read_text().splitlines())
    losses = {"joint/video", "joint/audio", "driven_video/video", "driven_audio/audio"}
    assert row.keys() == {"batch", "step", "task", "loss"} | losses
    parts = [row["joint/video"], row["joint/audio"], 0.5 * row["driven_video/video"], 2 * row["driven_audio/audio"]]
    assert row["loss"] == pytest.approx(sum(parts))
    assert {f"loss/{name}" for name in losses} <= trainer.logged_metrics.keys()


class Told(Interaction):
    """Adds what it is told of each clip, and asks for its own weight to be as large as that."""

    needs = ("loudness",)

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(site.audio))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.scale)

    def forward(self, where: Where, seen: Seen) -> Update:
        loudness = (seen.extras or {})["loudness"]
        add = self.scale * loudness[:, None, None]
        return Update(AV(None, add.expand_as(seen.x.audio)), {"mask": (self.scale.mean() - loudness).square()})


def told_net(checkpointing: bool = False) -> DualStreamTransformer:
    return DualStreamTransformer(
        video=WanStream(16, 32, CHANNELS.video), audio=WanStream(8, 16, CHANNELS.audio), interaction=Told,
        layers=2, head_dim=8, text_dim=8, freq_dim=16, checkpointing=checkpointing,
    )  # fmt: skip


def told_module(weight: float = 1.0, checkpointing: bool = False) -> JointDiffusion:
    module = JointDiffusion(
        lambda: told_net(checkpointing), make_text, make_codec(), GRID, loss_weights={"mask": weight}
    )
    module.configure_model()
    return module


def test_what_an_interaction_asks_for_is_added_by_its_weight() -> None:
    batch = make_batch(0, range(3))
    batch.extras["loudness"] = torch.tensor([0.5, 1.0, 2.0])
    without, module = told_module(0.0), told_module(0.25)
    for task in (Task(1.0, (JOINT,)), SYNERGY):
        losses = module.losses(batch, task, index=0)
        asked = 2 * batch.extras["loudness"].square()  # of two blocks, at a weight of zero
        torch.testing.assert_close(losses.added["mask"], asked)
        own = without.weighed(without.losses(batch, task, index=0), task)
        torch.testing.assert_close(module.weighed(losses, task), own + 0.25 * asked)


def test_the_weight_that_an_interaction_gives_its_loss_falls_with_the_steps_of_the_training(tmp_path: Path) -> None:
    module = make_module("uniavgen", loss_weights={"face_mask": 2.0})
    fit(module, FakeData(2), tmp_path, callbacks=[TaskRouter(), LossLog()], max_steps=4, accumulate_grad_batches=2)
    rows = list(map(json.loads, (tmp_path / "losses.jsonl").read_text().splitlines()))
    for batch, row in enumerate(rows):
        done = batch // 2 / 4  # of the optimizer's steps
        streams = sum(row.get(stream, 0.0) for stream in ("video", "audio"))
        assert row["loss"] == pytest.approx(streams + 2 * 0.1 * (1 - done) * row["face_mask"], rel=1e-5)
        assert row["face_mask"] > 0.3
    assert len(rows) == 8


def test_a_weight_that_falls_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"UniAVGen weighs its loss 'face_mask' by .*; set trainer.max_steps"):
        fit(make_module("uniavgen"), FakeData(2), tmp_path, max_steps=-1, max_time={"minutes": 1})


def test_its_gradient_is_the_same_where_blocks_are_computed_again() -> None:
    batch = make_batch(0, range(3))
    batch.extras["loudness"] = torch.tensor([0.5, 1.0, 2.0])
    found = []
    for checkpointing in (False, True):
        module = told_module(checkpointing=checkpointing)
        awake(module.built[0])
        module.weighed(module.losses(batch, SYNERGY, index=0), SYNERGY).mean().backward()
        found.append({name: p.grad for name, p in module.built[0].named_parameters()})
    assert found[0]["blocks.1.interaction.scale"].abs().sum() > 0
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_a_batch_without_what_the_interaction_trains_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Told trains on 'loudness', which the batch's extras do not hold"):
        told_module().losses(make_batch(0, range(2)), SYNERGY, index=0)


class Other(TaskRouter):
    """Another one."""


def test_two_callbacks_that_draw_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"trainer.callbacks hold 2 callbacks that draw a step's task; one is"):
        fit(make_module(), FakeData(), tmp_path, callbacks=[TaskRouter(), Other()])
