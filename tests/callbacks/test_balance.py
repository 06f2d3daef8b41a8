"""Weights of the streams' losses that a training finds: what they come to, and that a run goes on with them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ccl.callbacks import EqualGradientNorm, LossLog, TaskRouter, Uncertainty
from ccl.callbacks.monitor import norm, part_of, trained
from ccl.model.adapter import LoRA
from ccl.tasks import PAPER_TASKS
from ccl.training.module import JointDiffusion
from ccl.types import AV, STREAMS
from helpers.fakes import FakeData, fit, make_batch, make_module
from helpers.tiny import awake

BATCH = make_batch(0, range(1))


class Two(nn.Module):
    """A module of one parameter a stream, with gradients of these norms."""

    def __init__(self, video: float | None, audio: float | None, balance: AV[float] = AV(1.0, 1.0)) -> None:
        super().__init__()
        self.net, self.text, self.balance = nn.ModuleDict(), nn.Module(), balance
        for stream, size in (("video", video), ("audio", audio)):
            self.net[stream] = nn.Linear(2, 1, bias=False)
            if size is not None:
                self.net[stream].weight.grad = size * torch.tensor([[0.6, -0.8]])

    def log_dict(self, values: dict[str, float], batch_size: int) -> None:
        self.logged = values


def test_weights_make_equal_what_gradients_are_long() -> None:
    """By hand: norms of 3 and 1 ask for weights of 1/2 and 3/2; the next step's 3 is half of the mean's weight."""
    balance, module = EqualGradientNorm(decay=0.5), Two(3.0, 1.0)
    balance.on_before_optimizer_step(None, module, None)
    assert module.balance == pytest.approx((0.5, 1.5)) and module.logged == pytest.approx(
        {"balance/video": 0.5, "balance/audio": 1.5}
    )
    # Under these weights 1.5 is a norm of 3 again, and 4.5 one of 3: the mean of the second is 2.
    later = Two(1.5, 4.5, module.balance)
    balance.on_before_optimizer_step(None, later, None)
    assert balance.state == pytest.approx((3.0, 2.0)) and later.balance == pytest.approx((0.8, 1.2))


@pytest.mark.parametrize("without", [None, 0.0, math.nan])
def test_a_stream_whose_loss_does_not_count_is_not_measured(without: float | None) -> None:
    balance = EqualGradientNorm()
    balance.state = AV(3.0, 1.0)
    module = Two(5.0, without, balance.weights)
    balance.on_before_optimizer_step(None, module, None)
    assert balance.state.audio == 1.0 and balance.state.video == pytest.approx(0.99 * 3 + 0.01 * 5 / 0.5)


def norms(module: JointDiffusion) -> AV[float]:
    task = PAPER_TASKS["single"]
    module.zero_grad()
    module.weighed(module.losses(make_batch(0, range(4)), task, index=0).mean(), task).backward()
    named = [(part_of(name), p.grad) for name, p in trained(module) if p.grad is not None]
    return AV(*(float(norm([grad for part, grad in named if part == stream])) for stream in STREAMS))


def test_after_one_step_of_apart_streams_their_gradients_are_equally_long() -> None:
    module = make_module()
    awake(module.built[0])
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    before = norms(module)
    assert not 0.8 < before.video / before.audio < 1.25
    EqualGradientNorm().on_before_optimizer_step(None, module, None)
    after = norms(module)
    assert after.video == pytest.approx(after.audio, rel=1e-5) and sum(module.balance) == pytest.approx(2)


def test_uncertainty_learns_as_its_formula_does_by_autograd() -> None:
    """exp(-s) L + s by torch's SGD, on losses that are named as a step reports them."""
    balance, s = Uncertainty(rate=0.1), nn.Parameter(torch.zeros(2, dtype=torch.float64))
    module, optimizer = Two(None, None), torch.optim.SGD([s], lr=0.1)
    for step in range(20):
        video, audio = 4.0 + math.sin(step), 0.5
        optimizer.zero_grad()
        (s.neg().exp() * torch.tensor([video, audio], dtype=torch.float64) + s).sum().backward()
        optimizer.step()
        report = {
            "loss": 9.0,
            "joint/loss": 9.0,
            "joint/video": video + 1,
            "a2v/video": video - 1,
            "joint/audio": audio,
        }
        balance.on_train_batch_end(None, module, {"report": report}, BATCH, step)
    assert module.balance == pytest.approx(tuple(s.neg().exp().tolist()), rel=1e-12)


def test_uncertainty_comes_to_one_over_a_steady_loss_and_leaves_a_stream_that_is_not_there() -> None:
    balance, module = Uncertainty(rate=0.1), Two(None, None)
    for step in range(500):
        balance.on_train_batch_end(None, module, {"report": {"loss": 0.25, "video": 0.25}}, BATCH, step)
    assert module.balance == pytest.approx((4.0, 1.0))


@pytest.mark.parametrize("balance", [EqualGradientNorm, Uncertainty])
def test_a_run_goes_on_with_the_weights_that_it_had(balance: Any, tmp_path: Path) -> None:
    def run(folder: Path, steps: int, ckpt_path: Path | None = None) -> JointDiffusion:
        module = make_module(tasks={"single": PAPER_TASKS["single"]})
        more: dict[str, Any] = {"callbacks": [TaskRouter(), balance(), LossLog()], "ckpt_path": ckpt_path}
        fit(module, FakeData(2), folder, max_steps=steps, **more).save_checkpoint(folder / f"{steps}.ckpt")
        return module

    whole = run(tmp_path, 5).balance
    ckpt = torch.load(tmp_path / "5.ckpt", weights_only=False)
    (state,) = (state for name, state in ckpt["callbacks"].items() if name.startswith(balance.__name__))
    again = balance()
    again.load_state_dict(state)
    assert again.weights == whole != (1.0, 1.0)
    module = make_module()
    module.configure_model()
    again.on_train_start(SimpleNamespace(callbacks=[again]), module)
    assert module.balance == whole
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(rows[0]["video"] + rows[0]["audio"])
    assert rows[4]["loss"] != pytest.approx(rows[4]["video"] + rows[4]["audio"], rel=1e-4)


def test_what_cannot_be_balanced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="and no parameter of video trains; leave it out"):
        fit(make_module(freeze="backbones"), FakeData(2), tmp_path, callbacks=[TaskRouter(), EqualGradientNorm()])
    both = [TaskRouter(), EqualGradientNorm(), Uncertainty()]
    with pytest.raises(ValueError, match="hold two that weigh the streams' losses"):
        fit(make_module(lora=LoRA(rank=2)), FakeData(2), tmp_path, callbacks=both)
    for wrong in (lambda: EqualGradientNorm(decay=2.0), lambda: Uncertainty(rate=-1.0)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
