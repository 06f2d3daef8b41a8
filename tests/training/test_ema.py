"""The average of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccl.callbacks import EMA, TaskRouter
from ccl.training.module import JointDiffusion
from helpers.fakes import FakeData, fit, make_module


class Recorder(EMA):
    """Also averages the plain way, parameter by parameter."""

    def on_train_start(self, trainer: object, pl_module: JointDiffusion) -> None:
        self.plain = {
            name: p.detach().clone() for name, p in pl_module.named_parameters() if not name.startswith("ema.")
        }
        self.updates = 0

    def update(self, pl_module: JointDiffusion, step: int) -> None:
        super().update(pl_module, step)
        self.updates += 1
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        for name, parameter in pl_module.named_parameters():
            if name in self.plain:
                self.plain[name] = decay * self.plain[name] + (1 - decay) * parameter.detach()


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_is_what_a_plain_loop_finds(tmp_path: Path, warmup: bool) -> None:
    module, ema = make_module(), Recorder(0.8, warmup)
    fit(module, FakeData(), tmp_path, callbacks=[TaskRouter(), ema], max_steps=4)
    average = {name.removeprefix("ema."): p for name, p in module.named_parameters() if name.startswith("ema.")}
    assert average.keys() == ema.plain.keys()
    for name, parameter in average.items():
        torch.testing.assert_close(parameter, ema.plain[name], rtol=1e-5, atol=1e-6)
        assert not parameter.requires_grad


def test_accumulated_batches_do_not_move_the_average(tmp_path: Path) -> None:
    ema = Recorder(0.8)
    callbacks = [TaskRouter(), ema]
    fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, max_steps=2, accumulate_grad_batches=3)
    assert ema.updates == 2


def test_the_average_begins_at_the_weights() -> None:
    module = make_module()
    module.keeps_average = True
    module.configure_model()
    assert module.ema is not None and module.net is not None
    for a, b in zip(module.ema["net"].parameters(), module.net.parameters(), strict=True):
        assert torch.equal(a, b) and a is not b


def test_a_text_encoder_that_does_not_train_is_not_averaged() -> None:
    module = make_module()
    make = module._factories[1]
    module._factories = (module._factories[0], lambda: make().requires_grad_(False))
    module.keeps_average = True
    module.configure_model()
    assert module.ema is not None and list(module.ema) == ["net"]


def test_a_decay_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        EMA(1.0)
