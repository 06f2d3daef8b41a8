"""What a lab watches beside the losses: gradient norms, learning rates, how the windows suit the clip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ccl import arguments


class Monitor(Callback):
    """Logs `grad_norm/<video, audio, cross, text>` before clipping, `lr/<group>`, and window drift and coverage once.

    Args:
        every: optimizer steps between gradient norms; None takes trainer.log_every_n_steps.
    """

    def __init__(self, every: int | None = None) -> None:
        if every is not None:
            arguments.number("Monitor's every", every, 1, arguments.MOST, whole=True)
        self.every = every

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        figures = pl_module.net.check(pl_module.grid)
        for logger in trainer.loggers if figures else ():
            logger.log_metrics(figures, step=trainer.global_step)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step % (self.every or trainer.log_every_n_steps):
            return
        groups: dict[str, list[Tensor]] = {}
        for name, parameter in trained(pl_module):
            if parameter.grad is not None:
                groups.setdefault(part_of(name), []).append(parameter.grad)
        rates = {f"lr/{group['name']}": float(group["lr"]) for group in optimizer.param_groups}
        pl_module.log_dict({f"grad_norm/{part}": norm(grads) for part, grads in groups.items()} | rates, batch_size=1)


def trained(pl_module: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of the network and the text encoder; the average has no gradients."""
    for part in ("net", "text"):
        for name, parameter in getattr(pl_module, part).named_parameters(prefix=part):
            if parameter.requires_grad:
                yield name, parameter


def part_of(name: str) -> str:
    """Which part of the model a parameter belongs to, by its name."""
    parts = name.split(".")
    if parts[0] == "text":
        return "text"
    if "interaction" in parts or "trunk" in parts:
        return "cross"
    return "video" if "video" in parts else "audio"


def norm(grads: list[Tensor]) -> Tensor:
    """Joint 2-norm in float32, over all processes where gradients are sharded."""
    total = torch.nn.utils.get_total_norm([grad.float() for grad in grads])
    return total.full_tensor() if isinstance(total, DTensor) else total
