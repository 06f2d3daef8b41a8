"""What pictures and sounds give that do not belong together: the floor of a measure of sync, and p of the true pairs.

Of a measure that can say what every clip's pictures give with every clip's sound, a (n, n) table, true pairs on its
diagonal. n clips.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """(count,) A random permutation of 0..count-1 that leaves nothing in its place.

    Raises:
        ValueError: fewer than two.
    """
    if count < 2:
        raise ValueError(f"shuffling pairs needs two clips at least, not {count}")
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, int)
    partner[order] = np.roll(order, 1)  # one cycle through all: nobody keeps their own
    return partner


def floor(table: Float[np.ndarray, "n n"], seed: int = 0, rounds: int = 8) -> float:
    """What the measure gives by chance: its mean over `rounds` shufflings of the sound between the clips."""
    partners = np.array([derangement(len(table), seed + k) for k in range(rounds)])
    return float(table[np.arange(len(table)), partners].mean())


def p_value(table: Float[np.ndarray, "n n"], seed: int = 0, rounds: int = 2000) -> float:
    """One-sided permutation test, true pairs against shuffled: how often a shuffling's mean is as high as the true one.

    The smallest value it can give is 1 / (rounds + 1).
    """
    rows, rng = np.arange(len(table)), np.random.default_rng(seed)
    means = np.array([table[rows, rng.permutation(len(table))].mean() for _ in range(rounds)])
    return float((1 + np.sum(means >= table.diagonal().mean())) / (rounds + 1))
