"""Face crops."""

from __future__ import annotations

import numpy as np

from ccl.evaluation.faces.settings import Settings
from ccl.evaluation.faces.tracks import Track
from ccl.evaluation.film import Film


def crop(film: Film, track: Track, settings: Settings) -> np.ndarray:
    """(n, 224, 224, 3) uint8 RGB crops of a track."""
    raise NotImplementedError
