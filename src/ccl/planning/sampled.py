"""What one clip costs to make: the memory and the FLOPs of all passes and steps of its sampling."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import torch

from ccl.grid import Grid
from ccl.guidance import Guidance, guided
from ccl.guidance.base import used
from ccl.planning.follow import Counting, Live, extras, faked, inputs, open_route
from ccl.planning.kinds import Short
from ccl.planning.memory import Bytes
from ccl.types import AV, Text, View


@dataclass(frozen=True)
class Clip:
    """What one clip costs to make.

    Args:
        weights: bytes of the network.
        rest: bytes of keys and values of the text and of what else lives at the worst moment.
        flops: of all steps.
        passes: of the guidance rule, the mean over all evaluations.
        evaluations: of the network, each of all passes.
    """

    weights: Bytes
    rest: Bytes
    flops: int | float
    passes: float
    evaluations: int


def clip(
    short: Short,
    size: int,
    grid: Grid,
    guidance: Guidance,
    times: Sequence[float],
    *,
    text: int = 512,
    bf16: bool = True,
    device: str = "cuda",
) -> Clip:
    """The cost of one clip of both streams, or of the one that the network has.

    Args:
        short: the network.
        size: its parameters.
        grid: of the clip.
        guidance: the rule; its passes of a time run as one batch.
        times: at which the solver asks for a velocity, as `ccl.sampling.evaluated` says.
        text: states of a prompt.
        bf16: whether the network is held in bfloat16; else in float32.
        device: whose kernels it calls, "cuda" or "cpu".
    """
    route, generated = open_route(short.net), AV(*(ends is not None for ends in short.net.ends))
    sees: dict[tuple[View, ...], list[float]] = {}  # a rule may have other passes at other times
    for t in times:
        sees.setdefault(tuple(one.view for one in used(guidance.passes(route, t), generated)), []).append(t)

    def run(t: float, *layers: int) -> Run:
        with faked(short, layers, grid, bf16=bf16, device=device) as net, torch.no_grad():
            x, told, states = inputs(net, grid, 1, text)
            given: dict[str, Any] = {
                "nulls": x.map(torch.empty_like),
                "generated": generated,
                "extras": extras(net, grid, 1),
            }
            texts = dict.fromkeys(get_args(Text), states)
            velocity = guided(net, guidance, route, texts, grid=grid, **given)
            with Live(net.parameters()) as live, Counting() as counter:
                velocity(x, told, t)
                once = counter.get_total_flops()
                velocity(x, told, t)  # keys and values of the text are there now
            return Run(live.peak, counter.get_total_flops() - once)

    flops = rest = passes = 0
    for views, at in sees.items():
        whole = together(partial(run, at[0]), short.alike(views))
        flops += whole.flops * len(at)
        rest = max(rest, whole.peak)
        passes += len(views) * len(at)
    return Clip((2.0 if bf16 else 4.0) * size, rest, flops, passes / len(times), len(times))


def asked(short: Short, guidance: Guidance, times: Sequence[float]) -> tuple[Hashable, ...]:
    """What of a rule the cost of a clip depends on: the passes of each evaluation, and how they are combined, strengths
    apart."""
    route, generated = open_route(short.net), AV(*(ends is not None for ends in short.net.ends))
    rules, combined = [guidance], []
    for rule in rules:
        combined.append(type(rule).combine)
        rules += rule.parts
    return *(tuple(used(guidance.passes(route, t), generated)) for t in times), *combined


class Run(NamedTuple):
    """An evaluation: the most bytes that live at once, and its FLOPs."""

    peak: int
    flops: int


def together(run: Callable[..., Run], alike: Sequence[int]) -> Run:
    """An evaluation of the whole network from those of one block and of two of each kind.

    What each block keeps (keys and values of the text) lies there while any of them works.
    """
    one = {layer: run(layer) for layer in set(alike)}
    more = {layer: Run(*(b - a for a, b in zip(one[layer], run(layer, layer), strict=True))) for layer in one}
    ends = max(one[layer].peak - more[layer].peak for layer in one), one[alike[0]].flops - more[alike[0]].flops
    return Run(*(end + sum(more[layer][i] for layer in alike) for i, end in enumerate(ends)))
