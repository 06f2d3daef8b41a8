"""What one clip costs to make: the memory and the FLOPs of all passes and steps of its sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch

from ccl.grid import Grid
from ccl.guidance import Guidance, guided
from ccl.guidance.base import used
from ccl.planning.follow import Live, Make, counting, extras, faked, inputs, open_route
from ccl.planning.memory import Bytes
from ccl.types import AV, Text, View


@dataclass(frozen=True)
class Clip:
    """What one clip costs to make.

    Args:
        weights: bytes of the network in bfloat16.
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
    make: Make, layers: int, size: int, grid: Grid, guidance: Guidance, times: Sequence[float], *, text: int = 512
) -> Clip:
    """The cost of one clip of both streams, or of the one that the network has.

    Args:
        make: the network.
        layers: it has.
        size: its parameters.
        grid: of the clip.
        guidance: the rule; its passes of a time run as one batch.
        times: at which the solver asks for a velocity, as `ccl.sampling.evaluated` says.
        text: states of a prompt.
    """
    sees: dict[tuple[View, ...], list[float]] = {}  # a rule may have other passes at other times
    with faked(make, 1, grid) as net:
        route, generated = open_route(net), AV(*(ends is not None for ends in net.ends))
    for t in times:
        sees.setdefault(tuple(one.view for one in used(guidance.passes(route, t), generated)), []).append(t)

    def run(count: int, t: float) -> tuple[int, int]:
        with faked(make, count, grid) as net, torch.no_grad():
            x, told, states = inputs(net, grid, 1, text)
            given: dict[str, Any] = {
                "nulls": x.map(torch.empty_like),
                "generated": generated,
                "extras": extras(net, grid, 1),
            }
            texts = dict.fromkeys(get_args(Text), states)
            velocity = guided(net, guidance, route, texts, grid=grid, **given)
            with Live(net.parameters()) as live, counting() as counter:
                velocity(x, told, t)
                once = counter.get_total_flops()
                velocity(x, told, t)  # keys and values of the text are there now
            return live.peak, counter.get_total_flops() - once

    flops = rest = passes = 0
    for views, at in sees.items():
        (low, one), (high, two) = run(1, at[0]), run(2, at[0])
        flops += (one + (layers - 1) * (two - one)) * len(at)
        rest = max(rest, low + (layers - 1) * (high - low))
        passes += len(views) * len(at)
    return Clip(2.0 * size, rest, flops, passes / len(times), len(times))
