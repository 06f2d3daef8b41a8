"""AdamW with the paper's two rates: cross-modal parameters learn faster than the streams they join (CCL Sec. 5.1).

Its two moments may be kept in 8 bits (arXiv 2110.02861), by torchao: written in PyTorch alone, it steps the sharded
tensors of FSDP2 and works on any device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ccl import arguments

# Kept out of weight decay beside everything of one dimension: tables that shift and scale, and context tokens.
UNDECAYED = ("norm", "modulation", "scale_shift", "context")


@dataclass(frozen=True)
class OptimizerConfig:
    """Rates and schedule of AdamW; the defaults are the paper's stage 2, and common choices where it is silent.

    Args:
        lr: of the two streams and of the text encoder.
        lr_cross: of the cross-modal parameters.
        betas: of AdamW (paper silent).
        eps: of AdamW.
        weight_decay: on matrices only, not on norms, biases, modulation tables and context tokens (paper silent).
        warmup_steps: optimizer steps of linear warm-up.
        schedule: after the warm-up.
        decay_steps: optimizer step at which a cosine reaches `final`; None takes trainer.max_steps.
        final: share of the rate that a cosine ends with.
        fused: the fused kernel, where it exists.
        bits: of a number of the two moments: 8 takes a quarter of the memory and needs torchao, which compiles a step
            for each shape of a parameter; None is as wide as the parameter.

    Raises:
        ValueError: a number that no training can be made with.
    """

    lr: float = 1e-5
    lr_cross: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    decay_steps: int | None = None
    final: float = 0.1
    fused: bool = True
    bits: Literal[8] | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "lr_cross", "eps", "weight_decay"):
            arguments.number(f"optimizer.{name}", getattr(self, name), 0)
        arguments.number("optimizer.final", self.final, 0, 1)
        arguments.number("optimizer.warmup_steps", self.warmup_steps, 0, arguments.MOST, whole=True)
        if self.decay_steps is not None:
            arguments.number("optimizer.decay_steps", self.decay_steps, 1, arguments.MOST, whole=True)
        if self.betas is None or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas are {self.betas}; each must be in [0, 1)")

    def factor(self, step: int, *, max_steps: int) -> float:
        """What both rates are multiplied by at an optimizer step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        end = max_steps if self.decay_steps is None else self.decay_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, end - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))

    def build(self, modules: Iterable[nn.Module], cross: Iterable[nn.Parameter], *, max_steps: int) -> dict[str, Any]:
        """The optimizer and its schedule, as Lightning's `configure_optimizers` returns them.

        Args:
            modules: everything that trains.
            cross: the cross-modal parameters among theirs.
            max_steps: of the trainer, for a cosine without `decay_steps`.
        """
        if self.schedule == "cosine" and self.decay_steps is None and max_steps < 1:
            raise ValueError(
                "optimizer.schedule is cosine without an end; set optimizer.decay_steps or trainer.max_steps"
            )
        groups = self.groups(modules, cross)
        parameters = [parameter for group in groups for parameter in group["params"]]
        # The fused kernel on a CPU knows no sharded tensors.
        fused = self.fused and not any(isinstance(p, DTensor) and p.device.type == "cpu" for p in parameters)
        optimizer = AdamW(groups, fused=fused) if self.bits is None else adamw_8bit()(groups)
        scheduler = LambdaLR(optimizer, partial(self.factor, max_steps=max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self, modules: Iterable[nn.Module], cross: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        """What trains, by rate and decay, as AdamW takes it."""
        cross_ids = {id(parameter) for parameter in cross}
        found: dict[tuple[bool, bool], list[Tensor]] = {}
        for module in modules:
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    decayed = parameter.ndim > 1 and not any(word in name for word in UNDECAYED)
                    found.setdefault((id(parameter) in cross_ids, decayed), []).append(parameter)
        return [
            {
                "params": found[key],
                **self.numbers(f"{'cross' if key[0] else 'streams'}{'' if key[1] else '_undecayed'}"),
            }
            for key in sorted(found, reverse=True)
        ]

    def numbers(self, name: str) -> dict[str, Any]:
        """Of a group of parameters, by its name."""
        return {
            "name": name,
            "lr": self.lr_cross if name.startswith("cross") else self.lr,
            "weight_decay": 0.0 if name.endswith("_undecayed") else self.weight_decay,
            "betas": self.betas,
            "eps": self.eps,
        }

    def impose(self, optimizer: Optimizer, scheduler: LambdaLR) -> None:
        """Give an optimizer that a checkpoint has filled the rates of this config.

        With its moments it brings back the numbers of the run that wrote it, and this one's would be printed but not
        used. Where they are the same, nothing changes.
        """
        for index, group in enumerate(optimizer.param_groups):
            numbers = self.numbers(group["name"])
            scheduler.base_lrs[index] = group["initial_lr"] = base = numbers["lr"]
            lr = base * scheduler.lr_lambdas[index](scheduler.last_epoch)
            group.update(numbers | {"lr": torch.full_like(group["lr"], lr) if isinstance(group["lr"], Tensor) else lr})


def adamw_8bit() -> Any:
    """torchao's AdamW whose moments are in 8 bits.

    Raises:
        ValueError: torchao is not installed.
    """
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ValueError("optimizer.bits is 8, which needs torchao: pip install 'ccl[lean]'") from error
    return AdamW8bit


def written(state: Any) -> Any:
    """An optimizer's state as a checkpoint holds it: moments in 8 bits as the tensors that they are made of, so that
    who reads the file needs no torchao."""
    if isinstance(state, dict):
        return {key: written(value) for key, value in state.items()}
    if not hasattr(state, "codes"):
        return state
    parts, (signed, dtype) = state.__tensor_flatten__()
    return {name: getattr(state, name) for name in parts} | {"signed": signed, "dtype": dtype}


def read(state: Any) -> Any:
    """The inverse of `written`.

    Raises:
        ValueError: it holds moments in 8 bits, and torchao is not installed.
    """
    if not isinstance(state, dict):
        return state
    if "codes" not in state:
        return {key: read(value) for key, value in state.items()}
    adamw_8bit()
    from torchao.optim.subclass_8bit import OptimState8bit

    return OptimState8bit(**state)
