"""How the clips of one batch are sampled, and which passes of guidance that takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from ccl.generation.order import Order
from ccl.guidance import Guidance, occurring
from ccl.tasks import Term
from ccl.types import CLOSED, Pass, Route


@dataclass(frozen=True)
class How:
    """How the clips of one batch are sampled.

    Args:
        order: what they ask for.
        rule: of guidance.
        schedule: times of the solver.
        asked_at: those of them at which it asks for a velocity.
    """

    order: Order
    rule: Guidance
    schedule: Tensor
    asked_at: list[float]

    def route(self, term: Term) -> Route:
        """Who sees whom."""
        return term.route if all(self.order.present) else CLOSED

    def passes(self, term: Term) -> Collection[Pass]:
        """Of the rule, on a term."""
        return occurring(self.rule, self.route(term), self.asked_at, self.order.generated)
