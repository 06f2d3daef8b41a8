"""Guidance as a table: passes of the network and their weights, which sum to 1 for each stream (CCL Eq. 2, 5, 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ccl.types import AV, Pass, Route, Scale


class Guidance(ABC):
    """A guidance rule. A new rule is a subclass with one method.

    Args:
        scale: strength for each stream.
    """

    def __init__(self, scale: Scale | None = None) -> None:
        self.scale = Scale() if scale is None else scale

    @abstractmethod
    def weights(self, route: Route) -> dict[Pass, AV[float]]:
        """The passes of one step and their weights in each stream, for a generation task's own route."""
