"""What a metric promises: numbers for a clip, always all of them, so that no clip is ever dropped from a mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ccl.types import Clip


class Metric(ABC):
    """A measure of single clips. A new metric is a subclass in a file of its own.

    `name` names it in rows and files; `columns` are the keys of what `score` returns, always all of them. `worst` is
    what a clip counts as that cannot be scored.
    """

    name: str
    columns: tuple[str, ...]
    worst: float = 0.0

    def missing(self) -> str:
        """What the metric lacks to run here (weights, packages), in words; then no clip gets a number."""
        return ""

    def chance(self, clips: Sequence[Clip]) -> dict[str, float]:
        """For a measure of pairs: its mean with sound shuffled between clips, "shuffled", and a p-value, "p"."""
        return {}

    @abstractmethod
    def score(self, clip: Clip) -> dict[str, float]:
        """One number for each column. What cannot be measured raises; the caller makes it a row that says why."""
