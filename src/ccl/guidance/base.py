"""Guidance as a table: passes of the network and their weights, which sum to 1 for each stream (CCL Eq. 2, 5, 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ccl.types import AV, Pass, Route


class Guidance(ABC):
    """A guidance rule. A new rule is a subclass with one method, built from `table`."""

    @abstractmethod
    def weights(self, route: Route) -> dict[Pass, AV[float]]:
        """The passes of one step and their weights in each stream, for a generation task's own route."""


def table(*rows: tuple[Pass, AV[float]]) -> dict[Pass, AV[float]]:
    """A rule's rows as a table: equal passes are added up, passes that weigh nothing in either stream are dropped.

    Passes coincide where the task's own route is closed already (t2v, t2a): three passes then become two.
    """
    total: dict[Pass, AV[float]] = {}
    for key, weight in rows:
        total[key] = AV.zip(lambda a, b: a + b, total.get(key, AV(0.0, 0.0)), weight)
    return {key: weight for key, weight in total.items() if max(map(abs, weight)) > 1e-9}
