"""What one clip costs to make: the memory and the FLOPs of all passes and steps of its sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ccl.grid import Grid
from ccl.guidance.base import Guidance
from ccl.planning.follow import Live, Make, counting, extras, faked, inputs, open_route
from ccl.planning.memory import Bytes
from ccl.types import View


@dataclass(frozen=True)
class Clip:
    """What one clip costs to make.

    Args:
        weights: bytes of the network in bfloat16.
        rest: bytes of keys and values of the text and of what else lives at the worst moment.
        flops: of all steps.
        passes: of the guidance rule.
        evaluations: of the network, each of all passes.
    """

    weights: Bytes
    rest: Bytes
    flops: int | float
    passes: int
    evaluations: int


def clip(
    make: Make, layers: int, size: int, grid: Grid, guidance: Guidance, *, steps: int, solver: str, text: int = 512
) -> Clip:
    """The cost of one clip of both streams, or of the one that the network has.

    Args:
        make: the network.
        layers: it has.
        size: its parameters.
        grid: of the clip.
        guidance: the rule; its passes run as one batch.
        steps: of the solver.
        solver: Heun's evaluates twice a step, but for the last.
        text: states of a prompt.
    """
    views: list[View] = []

    def run(count: int) -> tuple[int, int]:
        with faked(make, count, grid) as net, torch.no_grad():
            views[:] = [each.view for each in guidance.weights(open_route(net))]
            x, t, states = inputs(net, grid, len(views), text)
            with Live(net.parameters()) as live, counting() as counter:
                prepared = net.prepare(states, extras=extras(net, grid, len(views)))
                once = counter.get_total_flops()
                net(x, t, prepared, grid=grid, view=views)
            return live.peak, counter.get_total_flops() - once

    (low, one), (high, two) = run(1), run(2)
    evaluations = 2 * steps - 1 if solver == "heun" else steps
    flops = (one + (layers - 1) * (two - one)) * evaluations
    return Clip(2.0 * size, low + (layers - 1) * (high - low), flops, len(views), evaluations)
