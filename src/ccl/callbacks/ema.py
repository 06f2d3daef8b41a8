"""Exponential moving average of the weights, which is what is sampled from and shipped.

A callback and not a hook of the module, because callbacks run first: the checkpoint, written by the last of them, must
hold the average of its own step.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor

from ccl.types import Batch


class EMA(Callback):
    """Keeps `ema.net` and `ema.text` beside the weights, updated after each optimizer step.

    Args:
        decay: share of the average that stays at each step.
        warmup: begin with a smaller decay, (1 + n) / (10 + n) at step n, so that the weights of step 0 are forgotten.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA's decay is {decay}; it must be in [0, 1)")
        self.decay, self.warmup = decay, warmup
        self._step = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.keeps_average = True

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step > self._step:  # not while gradients are accumulated
            self.update(pl_module, trainer.global_step)

    @torch.no_grad()
    def update(self, pl_module: Any, step: int) -> None:
        """average <- d average + (1 - d) weights, shard by shard."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        for name, average in pl_module.ema.items():
            weights = getattr(pl_module, name)
            torch._foreach_lerp_(
                [local(parameter) for parameter in average.parameters()],
                [local(parameter) for parameter in weights.parameters()],
                1 - decay,
            )


def local(tensor: Tensor) -> Tensor:
    """This process's part of a parameter."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
