"""The memory that a training takes on a GPU: what it keeps of parameters, and what a step holds at its worst moment.

The former follows from sizes alone. The latter is what a followed step of one layer and of two holds
(ccl.planning.follow): as all layers are alike, it grows by the same for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ccl.grid import Grid
from ccl.planning.count import Size
from ccl.planning.follow import Live, Make, extras, faked, inputs, open_route
from ccl.types import View

Bytes = int | float


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Args:
        weights: kept by the optimizer's process, in the trainer's precision.
        gradients: of what trains.
        optimizer: two moments of what trains, and a count a tensor.
        average: of all weights, where the EMA callback keeps one.
        gathered: whole blocks in bfloat16, the next one fetched ahead, and one block's gradients (FSDP2); or the
            bfloat16 copies of all weights that autocast keeps.
        activations: the most that lives at once beyond all that, in a step.
    """

    weights: Bytes
    gradients: Bytes
    optimizer: Bytes
    average: Bytes
    gathered: Bytes
    activations: Bytes

    @property
    def total(self) -> Bytes:
        return self.weights + self.gradients + self.optimizer + self.average + self.gathered + self.activations


def states(sizes: Mapping[str, Size], *, ema: bool, bytes_each: int = 4) -> Memory:
    """What training keeps of all parameters, unsharded, in bytes; nothing gathered, no activations."""
    total = sum(sizes.values(), Size())
    averaged = total.all - sizes.get("text", Size()).all * (not sizes.get("text", Size()).trained)
    return Memory(
        weights=bytes_each * total.all,
        gradients=bytes_each * total.trained,
        optimizer=2 * bytes_each * total.trained + 4 * total.tensors,
        average=bytes_each * averaged * ema,
        gathered=0.0,
        activations=0.0,
    )


def sharded(whole: Memory, sizes: Mapping[str, Size], *, gpus: int, layers: int, ends: int, bf16: bool) -> Memory:
    """One GPU's part under FSDP2, where parameters, gradients, moments and average are spread over all."""
    each = (sum(sizes.values(), Size()).all - sizes.get("text", Size()).all - ends) / layers
    cast = 2 if bf16 else 4
    parts = {name: getattr(whole, name) / gpus for name in ("weights", "gradients", "optimizer", "average")}
    return replace(whole, **parts, gathered=cast * (2 * each + ends) + 4 * each)


def activations(
    make: Make, layers: int, grid: Grid, *, batch: int, text: int = 512, bf16: bool = True, checkpointing: bool
) -> int:
    """Bytes that a training step of `batch` clips holds at its worst moment, weights and their gradients apart."""

    def peak(count: int) -> int:
        with faked(make, count, grid, bf16=bf16) as net:
            net.checkpointing = checkpointing
            for p in net.parameters():  # as sharding does: a block's gradients leave when they are there
                if p.requires_grad:
                    p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
            args = inputs(net, grid, batch, text)
            with Live(net.parameters()) as live:
                v, losses = net(*args, grid=grid, view=View(open_route(net)), extras=extras(net, grid, batch))
                parts = [x.square().mean() for x in v if x is not None] + [x.mean() for x in losses.values()]
                torch.autograd.backward([sum(parts)])
            return live.peak

    one = peak(1)
    return one if layers == 1 else one + (layers - 1) * (peak(2) - one)
