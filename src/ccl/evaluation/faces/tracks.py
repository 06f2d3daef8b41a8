"""Face tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccl.evaluation.faces.settings import Settings, Weights
from ccl.evaluation.film import Film


@dataclass(frozen=True)
class Track:
    """One face through consecutive ticks of 1/25 s.

    Args:
        start: the first tick.
        boxes: (n, 4) float64 left, top, right, bottom in pixels of the film, for each tick.
    """

    start: int
    boxes: np.ndarray


def tracks(film: Film, settings: Settings, weights: Weights) -> list[Track]:
    """All face tracks of a film."""
    raise NotImplementedError
