"""Who speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def speaking(crops: np.ndarray, sound: np.ndarray, path: Path) -> float:
    """Mean score; above 0 speaking. (n, 224, 224, 3) crops and the 16 kHz sound of the same time."""
    raise NotImplementedError
