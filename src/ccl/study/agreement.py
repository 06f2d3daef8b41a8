"""How far raters agree: Krippendorff's alpha (Content Analysis, ch. 12; 1970), which takes raters of different parts.

Fleiss' kappa wants equally many raters for each comparison, and calls a tie as far from "left" as "right" is. Alpha
takes any number of them, and a distance: that between answers is squared here, of -1, 0 (a tie) and 1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def alpha(values: Float64[np.ndarray, "u r"]) -> float:
    """1 - observed / expected disagreement, of u units by r raters; NaN is no answer.

    1 is agreement, 0 what chance gives, below it less than that. NaN where no unit has two answers, or all answers are
    one.
    """
    there = ~np.isnan(values)
    kept = there.sum(1) > 1
    values, there = np.where(there, values, 0.0)[kept], there[kept]
    count = there.sum(1)
    if not len(count):
        return float("nan")
    # The sum over ordered pairs of n values of (v - w)^2 is 2 (n sum v^2 - (sum v)^2).
    within = 2 * (count * (values**2).sum(1) - values.sum(1) ** 2)
    total = int(count.sum())
    observed = float((within / (count - 1)).sum()) / total
    expected = 2 * float(total * (values**2).sum() - values.sum() ** 2) / (total * (total - 1))
    return 1 - observed / expected if expected > 0 else float("nan")


def both_ways(values: Float64[np.ndarray, "u r"]) -> Float64[np.ndarray, "v r"]:
    """Each unit also mirrored. Which of two systems is called the first is our choice and no rater knows it; so chance
    must be the same for both, or raters who all prefer one system would agree on nothing.
    """
    return np.concatenate([values, -values])


def same_answer(values: Float64[np.ndarray, "u r"]) -> float:
    """The share of pairs of answers to the same unit that are the same; NaN where there is no pair."""
    counts = np.stack([(values == one).sum(1) for one in (-1, 0, 1)]).astype(np.float64)
    every = counts.sum(0)
    pairs = float((every * (every - 1)).sum())
    return float((counts * (counts - 1)).sum()) / pairs if pairs else float("nan")
