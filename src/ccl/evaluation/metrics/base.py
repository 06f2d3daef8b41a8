"""What a metric promises: numbers for a clip, always all of them, so that no clip is ever dropped from a mean."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ccl.types import Clip


class Metric(ABC):
    """A measure of single clips. A new metric is a subclass in a file of its own.

    `name` names it in rows and files; `columns` are the keys of what `score` returns, always all of them.
    """

    name: str
    columns: tuple[str, ...]

    @abstractmethod
    def score(self, clip: Clip) -> dict[str, float]:
        """One number for each column. What cannot be measured raises; the caller makes it a row that says why."""
