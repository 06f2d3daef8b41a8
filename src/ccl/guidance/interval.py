"""A rule for some times of the sampling, and another for the rest (arXiv 2404.07724; UniAVGen's first half)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccl import arguments
from ccl.guidance.base import Guidance
from ccl.guidance.rules import NoGuidance
from ccl.types import AV, Pass, Route


class Interval(Guidance):
    """One rule from time `low` to time `high`, both included; another outside.

    Args:
        inside: the rule within.
        outside: the rule before and after; None is the conditional prediction alone.
        low: the clean end, 0 or more.
        high: the noisy end, 1 or less.

    Raises:
        ValueError: they are no rules, or low and high bound no interval in [0, 1].
    """

    def __init__(self, inside: Guidance, outside: Guidance | None = None, low: float = 0.0, high: float = 1.0) -> None:
        outside = NoGuidance() if outside is None else outside
        for name, rule in {"inside": inside, "outside": outside}.items():
            arguments.instance(name, rule, Guidance, "a guidance rule, as ccl.guidance.UCG2()")
        arguments.number("low", low, 0, 1)
        arguments.number("high", high, low, 1)
        self.inside, self.outside, self.low, self.high = inside, outside, low, high

    @property
    def conditional_at_one(self) -> bool:
        return self.inside.conditional_at_one and self.outside.conditional_at_one

    @property
    def parts(self) -> tuple[Guidance, ...]:
        return self.inside, self.outside

    def at(self, t: float) -> Guidance:
        """The rule that holds at a time."""
        return self.inside if self.low <= t <= self.high else self.outside

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return self.at(t).passes(route, t)

    def combine(
        self, v: Mapping[Pass, AV[Any]], weights: Mapping[Pass, AV[float]], x: AV[Any], t: float, times: AV[Any]
    ) -> AV[Any]:
        return self.at(t).combine(v, weights, x, t, times)
