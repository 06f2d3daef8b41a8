"""Statistics of paired clips: bootstrap intervals, and p by exchanging two systems within clips.

Every column is a ratio of sums over clips: a mean is sum(values) / count, a corpus rate sum(errors) / sum(words); so
one code serves both. Intervals are percentile bootstrap (Efron 1979) with the same resamples for two systems that are
compared; p is by sign flips (Fisher 1935), exactly where there are few clips, and not corrected for the number of
comparisons. Draws follow from names, so that the same scores give the same table.

n clips, R resamples; a stratum is a subset's clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float64

RESAMPLES, FLIPS, EXACT = 2_000, 10_000, 12  # at most 2**EXACT exchanges are all tried
LEVEL = 0.95
NAN = float("nan")


@dataclass(frozen=True)
class Ratio:
    """A column's clips of one subset, of which the value is sum(top) / sum(bottom); NaN is a clip without one."""

    top: Float64[np.ndarray, " n"]
    bottom: Float64[np.ndarray, " n"]

    @property
    def value(self) -> float:
        bottom = self.bottom.sum()
        return float(self.top.sum() / bottom) if bottom else NAN

    @property
    def there(self) -> Bool[np.ndarray, " n"]:
        """Which clips have a value."""
        return ~np.isnan(self.top)

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, clips: Bool[np.ndarray, " n"]) -> Ratio:
        """These clips alone."""
        return Ratio(self.top[clips], self.bottom[clips])

    def resampled(self, counts: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, " r"]:
        """The value with each clip taken as often as `counts` says."""
        return divide(counts @ self.top, counts @ self.bottom)


def interval(strata: Sequence[Ratio], subset: str, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % of the mean over strata of their values, clips resampled within each."""
    if any(len(stratum) < 2 for stratum in strata):
        return NAN, NAN
    means = [s.resampled(draws(f"{subset} {i}", len(s), resamples)) for i, s in enumerate(strata)]
    return percentiles(np.mean(means, axis=0))


def compare(
    strata: Sequence[tuple[Ratio, Ratio]], subset: str, resamples: int = RESAMPLES, flips: int = FLIPS
) -> tuple[float, float, float, float, int]:
    """Difference of two methods, its interval, p, and the number of clips; a pair of ratios for each stratum."""
    difference = float(np.mean([a.value - b.value for a, b in strata]))
    low, high = NAN, NAN
    if all(len(a) > 1 for a, _ in strata):
        weights = [draws(f"{subset} {i}", len(a), resamples) for i, (a, _) in enumerate(strata)]
        differences = [a.resampled(w) - b.resampled(w) for (a, b), w in zip(strata, weights, strict=True)]
        low, high = percentiles(np.mean(differences, axis=0))
    return difference, low, high, exchange_p(strata, subset, flips), sum(len(a) for a, _ in strata)


def exchange_p(strata: Sequence[tuple[Ratio, Ratio]], name: str, flips: int = FLIPS) -> float:
    """Share of exchanges of a and b within clips that give at least the difference seen, the one seen among them."""
    sizes = [len(a) for a, _ in strata]
    n = sum(sizes)
    exact = n <= EXACT
    swaps = np.split(every(n) if exact else coins(name, -(-n // 64) * 64, flips)[:, :n], np.cumsum(sizes)[:-1], axis=1)
    differences = []
    for (a, b), swap in zip(strata, swaps, strict=True):
        top, bottom = swap @ (b.top - a.top), swap @ (b.bottom - a.bottom)
        one = divide(a.top.sum() + top, a.bottom.sum() + bottom)
        differences.append(one - divide(b.top.sum() - top, b.bottom.sum() - bottom))
    seen = abs(np.mean([a.value - b.value for a, b in strata]))
    as_large = int((np.abs(np.mean(differences, axis=0)) >= seen * (1 - 1e-9) - 1e-12).sum())
    return as_large / len(swaps[0]) if exact else (as_large + 1) / (flips + 1)


def percentiles(values: Float64[np.ndarray, " r"]) -> tuple[float, float]:
    """Where the middle 95 % of resamples lie; those without a value (no words drawn) left out."""
    tail = 100 * (1 - LEVEL) / 2
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [tail, 100 - tail]) if len(values) else (NAN, NAN)
    return float(low), float(high)


def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """NaN where nothing is divided by."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


@lru_cache(maxsize=8)
def draws(name: str, n: int, resamples: int) -> Float64[np.ndarray, "r n"]:
    """How often each of n clips is taken in each resample, of n clips with replacement."""
    rng = np.random.default_rng(crc32(f"resamples of {n} clips, {name}".encode()))
    taken = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(taken.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


@lru_cache(maxsize=8)
def coins(name: str, n: int, flips: int) -> Float64[np.ndarray, "r n"]:
    """Which of up to n clips are exchanged."""
    rng = np.random.default_rng(crc32(f"exchanges, {name}".encode()))
    return rng.integers(0, 2, (flips, n), dtype=np.int8).astype(np.float64)


def every(n: int) -> Float64[np.ndarray, "r n"]:
    """All 2**n exchanges of n clips."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)
