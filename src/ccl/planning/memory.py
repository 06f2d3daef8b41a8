"""The memory that a training takes on a GPU: what it keeps of parameters, and what a step holds at its worst moment.

The former follows from sizes alone. The latter is followed (ccl.planning.follow) for a block of each kind, alone and
before another: what it holds while it works, and what it leaves behind until its backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from ccl.grid import Grid
from ccl.model.recompute import Checkpointing
from ccl.planning.count import MOMENTS_BLOCK, Size
from ccl.planning.follow import Live, extras, faked, inputs, reach
from ccl.planning.kinds import Short
from ccl.tasks import Task
from ccl.types import AV, View

Bytes = int | float


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Args:
        weights: kept by the optimizer's process, in the trainer's precision.
        gradients: of what trains.
        optimizer: two moments of what trains, in 8 bits where the optimizer keeps them so, and a count a tensor.
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


def states(sizes: Mapping[str, Size], *, ema: bool, bytes_each: int = 4, bits: int | None = None) -> Memory:
    """What training keeps of all parameters, unsharded, in bytes; nothing gathered, no activations.

    Args:
        sizes: by part.
        ema: whether there is an average.
        bytes_each: of a weight.
        bits: of a number of AdamW's moments, 8; None is as wide as the weight.
    """
    total = sum(sizes.values(), Size())
    moment: Bytes = bytes_each * total.trained
    if bits is not None:  # a float32 scale for each block
        moment = bytes_each * total.small + (total.trained - total.small) * (bits // 8 + 4 / MOMENTS_BLOCK)
    averaged = total.all - sizes.get("text", Size()).all * (not sizes.get("text", Size()).trained)
    return Memory(
        weights=bytes_each * (total.all - total.narrow) + total.narrow,
        gradients=bytes_each * total.trained,
        optimizer=2 * moment + 4 * total.tensors,
        average=bytes_each * averaged * ema,
        gathered=0.0,
        activations=0.0,
    )


def sharded(whole: Memory, *, gpus: int, blocks: Sequence[int], ends: int, bf16: bool) -> Memory:
    """One GPU's part under FSDP2, where parameters, gradients, moments and average are spread over all.

    Args:
        whole: unsharded.
        gpus: over how many.
        blocks: parameters of each.
        ends: parameters outside the blocks.
        bf16: whether blocks are gathered in bfloat16.
    """
    cast = 2 if bf16 else 4
    two = max(a + b for a, b in pairwise(blocks)) if len(blocks) > 1 else blocks[0]
    parts = {name: getattr(whole, name) / gpus for name in ("weights", "gradients", "optimizer", "average")}
    return replace(whole, **parts, gathered=cast * (two + ends) + 4 * max(blocks))


class Step(NamedTuple):
    """A followed step.

    Args:
        peak: the most bytes that live at once.
        before: whether gradients reach the tokens of each stream where they enter the first block.
        after: and where they leave the last.
    """

    peak: int
    before: AV[bool]
    after: AV[bool]


def largest(tasks: Mapping[str, Task]) -> list[tuple[View, ...]]:
    """What the terms of a step see, of each task that no other one holds as much as."""

    def views(task: Task) -> tuple[View, ...]:
        return tuple(sorted((term.view for term in task.terms), key=lambda view: (view.route.a2v, view.route.v2a)))

    steps = list(dict.fromkeys(views(task) for task in tasks.values() if task.prob))
    return [one for one in steps if not any(one != other and within(one, other) for other in steps)]


def activations(
    short: Short,
    grid: Grid,
    views: Sequence[View] = (View(),),
    *,
    batch: int,
    text: int = 512,
    bf16: bool = True,
    device: str = "cuda",
    checkpointing: Checkpointing,
    context: int = 1,
) -> int:
    """Bytes that a training step of `batch` clips holds at its worst moment, weights and their gradients apart.

    The worst moment is a block's backward pass, beside what all blocks before it keep for theirs.

    Args:
        short: the network.
        grid: of the clips.
        views: of the step's terms, each of which has all clips.
        batch: clips.
        text: states of a prompt.
        bf16: whether the network computes in bfloat16.
        device: whose kernels it calls, "cuda" or "cpu".
        checkpointing: whether blocks are computed again in the backward pass, as the network's.
        context: GPUs over which each clip's video tokens are split.
    """
    steps: dict[tuple[tuple[int, ...], AV[bool]], Step] = {}

    def step(layers: tuple[int, ...], reached: AV[bool]) -> Step:
        """Of the blocks of these layers alone, behind others that train where gradients reach the tokens."""
        if (layers, reached) not in steps:
            found = followed(layers, reached)
            steps[layers, reached] = steps[layers, found.before] = found
        return steps[layers, reached]

    def followed(layers: tuple[int, ...], reached: AV[bool]) -> Step:
        with faked(short, layers, grid, bf16=bf16, device=device, context=context) as net:
            net.checkpointing = checkpointing
            for p in net.parameters():  # as sharding does: a block's gradients leave when they are there
                if p.requires_grad:
                    p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
            before, after = reach(net)
            rows = batch * len(views)
            x, t, states = inputs(net, grid, rows, text)
            x = AV.zip(lambda z, yes: z.requires_grad_(yes), x, reached)
            with Live(net.parameters()) as live:
                v, losses = net(x, t, states, grid=grid, view=views, extras=extras(net, grid, rows))
                loss: Any = sum([z.square().mean() for z in v if z is not None] + [z.mean() for z in losses.values()])
                if loss.requires_grad:
                    loss.backward()
            return Step(live.peak, *((*seen, reached)[0] for seen in (before, after)))  # later ones are once more

    alike = short.alike(views)
    worst = kept = 0
    reached = step((alike[0],), AV(False, False)).before
    for layer in alike:
        alone = step((layer,), reached)
        worst = max(worst, kept + alone.peak)
        kept += step((layer, layer), reached).peak - step((layer,), alone.after).peak
        reached = alone.after
    return worst


def within(some: Sequence[View], more: Sequence[View]) -> bool:
    """Whether each view sees no more than the one at its place, and leaves gradients to no more."""
    return len(some) <= len(more) and all(
        a.route.a2v <= b.route.a2v
        and a.route.v2a <= b.route.v2a
        and all(x >= y for x, y in zip(a.detach, b.detach, strict=True))
        and a.skip >= b.skip
        for a, b in zip(reversed(some), reversed(more), strict=False)
    )
