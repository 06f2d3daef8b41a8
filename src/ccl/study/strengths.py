"""An order of more than two systems from pairs of them: Bradley and Terry's model (1952).

System i is preferred to j with probability p_i / (p_i + p_j); a tie is half a win of each. Every system also meets one
of middling strength (1), once, with a tie: so one that always wins or was never met with another has an end, and the
model's scale has a middle. What is told of a system is the chance that it is preferred to that middling one.

K systems, R resamples.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

STEPS, CLOSE = 2_000, 1e-9


def strengths(wins: Float64[np.ndarray, "*r k k"]) -> Float64[np.ndarray, "*r k"]:
    """The chance of each system to be preferred to a middling one. No step lowers the likelihood (Hunter 2004).

    Args:
        wins: how often the system of a row was preferred to that of a column, ties as halves.
    """
    met = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1) + 0.5
    p = np.ones(won.shape)
    for _ in range(STEPS):
        before = p
        p = won / ((met / (p[..., :, None] + p[..., None, :])).sum(-1) + 1 / (p + 1))
        if np.abs(np.log(p / before)).max() < CLOSE:
            break
    return p / (p + 1)
