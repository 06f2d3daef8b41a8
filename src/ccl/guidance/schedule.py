"""A rule whose strength changes with time (arXiv 2404.13040 compares such schedules)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ccl import arguments
from ccl.guidance.base import Guidance, conditional, table
from ccl.types import AV, POSITIVE, Pass, Route, View

Shape = Literal["linear", "cosine"]


class Schedule(Guidance):
    """What a rule adds to the conditional prediction c, times a factor of the time: c + f(t) (guided - c).

    Of a rule that leads away from one prediction this is its strength: s becomes 1 + f (s - 1). It is the same for any
    rule, also for one that combines otherwise than as a sum. Where a rule has no pass for c (UCG3), one is added; where
    the factor is 0, c is the only pass.

    Args:
        inside: the rule.
        factors: at equally spaced times from noise (t = 1) to clean (t = 0), two or more; 1 is the rule as it is.
        shape: how the factor goes from one to the next: straight, or along half a cosine, level at both.

    Raises:
        ValueError: it is no rule, there are fewer than two factors, or there is no such shape.
    """

    def __init__(
        self, inside: Guidance, factors: list[float] | tuple[float, ...] = (0.0, 1.0), shape: Shape = "linear"
    ) -> None:
        arguments.instance("inside", inside, Guidance, "a guidance rule, as ccl.guidance.UCG2()")
        arguments.instance("factors", factors, (list, tuple), "a list of numbers")
        if len(factors) < 2:
            raise ValueError(f"factors are {len(factors)}; there must be two or more, from noise to clean")
        for i, factor in enumerate(factors):
            arguments.number(f"factors[{i}]", factor, 0)
        if shape not in get_args(Shape):
            raise ValueError(f"shape is {shape!r}; it must be {' or '.join(get_args(Shape))}")
        self.inside, self.factors, self.shape = inside, tuple(factors), shape

    @property
    def conditional_at_one(self) -> bool:
        return self.inside.conditional_at_one

    @property
    def parts(self) -> tuple[Guidance, ...]:
        return (self.inside,)

    def factor(self, t: float) -> float:
        """At a time."""
        place = (1 - t) * (len(self.factors) - 1)
        i = min(int(place), len(self.factors) - 2)
        share = place - i
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.factors[i] * (1 - share) + self.factors[i + 1] * share

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        f = self.factor(t)
        own = ((one, weight.map(lambda w: f * w)) for one, weight in self.inside.passes(route, t).items())
        return table((Pass(POSITIVE, View(route)), AV(1 - f, 1 - f)), *own)

    def combine(
        self, v: Mapping[Pass, AV[Any]], weights: Mapping[Pass, AV[float]], x: AV[Any], t: float, times: AV[Any]
    ) -> AV[Any]:
        f = self.factor(t)
        if f == 1:
            return self.inside.combine(v, weights, x, t, times)
        told = conditional(v)
        c = v[told].map(lambda z: z.float())
        if f == 0:
            return c
        own = {one: w for one, w in self.inside.passes(told.view.route, t).items() if one in v}
        guided = self.inside.combine({one: v[one] for one in own}, own, x, t, times)
        return AV.zip(lambda c, z: c + f * (z - c), c, guided)
