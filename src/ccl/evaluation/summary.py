"""From a number for each clip to numbers of a method: values, bootstrap intervals, paired comparisons.

Every column is a ratio of sums over clips: a mean is sum(values) / count, a corpus rate sum(errors) / sum(words); so
one code serves both. The paper's "mean" is the mean of the subsets' values, and resampling keeps to the subsets.

Intervals are percentile bootstrap over the clips that have a value (Efron 1979). Two methods are compared on the clips
that both have: interval of the difference with the same resamples for both, and p by exchanging the two methods within
clips (sign flips; Fisher 1935), exactly where there are few clips. p is not corrected for the number of comparisons.
Draws follow from names, so that the same scores give the same table.

n clips, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from zlib import crc32

import numpy as np
from jaxtyping import Float64

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.results import ALL, MEAN, Results

RESAMPLES, FLIPS, EXACT = 2_000, 10_000, 12  # at most 2**EXACT exchanges are all tried
LEVEL = 0.95
NAN = float("nan")


@dataclass(frozen=True)
class Cell:
    """A method's number in a subset.

    Args:
        value: NaN where there is none.
        low: of the 95 % interval; NaN with less than two clips, and for numbers of whole sets.
        high: of the interval.
        scored: clips with a value.
        failed: clips with a reason instead.
        best: no other system's number, as shown, is better; of one system alone nothing is best.
        beside: what stands beside the value, by name: "shuffled", "p".
    """

    value: float
    low: float = NAN
    high: float = NAN
    scored: int = 0
    failed: int = 0
    best: bool = False
    beside: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two methods on the clips that both have.

    Args:
        a: a method.
        b: another one.
        subset: as in Cell.
        column: name.
        difference: the value of a minus that of b.
        low: of the difference's 95 % interval.
        high: of the interval.
        p: two-sided; of a difference as large if it did not matter which clip is whose.
        clips: that both have.
    """

    a: str
    b: str
    subset: str
    column: str
    difference: float
    low: float
    high: float
    p: float
    clips: int


@dataclass(frozen=True)
class Summary:
    """All numbers of a table: cells by (method, subset, column), and every pair of systems."""

    cells: dict[tuple[str, str, str], Cell]
    pairs: list[Pair]


@dataclass(frozen=True)
class Ratio:
    """A column's clips of one subset, of which the value is sum(top) / sum(bottom)."""

    top: Float64[np.ndarray, " n"]
    bottom: Float64[np.ndarray, " n"]

    @property
    def value(self) -> float:
        bottom = self.bottom.sum()
        return float(self.top.sum() / bottom) if bottom else NAN

    def __len__(self) -> int:
        return len(self.top)

    def resampled(self, counts: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, " r"]:
        """The value with each clip taken as often as `counts` says."""
        return divide(counts @ self.top, counts @ self.bottom)


def summarise(results: Results, *, resamples: int = RESAMPLES) -> Summary:
    """Cells and pairs of all methods, subsets and shown columns."""
    subsets = [*results.subsets, *([MEAN] if len(results.subsets) > 1 else [])]
    cells = {
        (method, subset, column.name): cell(results, method, subset, column, resamples)
        for column in results.shown
        for subset in subsets
        for method in results.methods
    }
    for column in results.shown:
        for subset in subsets:
            numbers = {m: cells[m, subset, column.name].value for m in results.systems}
            for method in best_of(column, numbers):
                cells[method, subset, column.name] = replace(cells[method, subset, column.name], best=True)
    pairs = []
    for column in results.shown:
        for subset in subsets:
            for a, b in combinations(results.systems, 2):
                strata = [paired(results, a, b, places, column) for places in _places(results, subset)]
                if all(len(x) for x, _ in strata):
                    pairs.append(Pair(a, b, subset, column.name, *compare(strata, subset, resamples)))
    return Summary(cells, pairs)


def cell(results: Results, method: str, subset: str, column: Column, resamples: int = RESAMPLES) -> Cell:
    """One method's number in one subset, or its mean over them."""
    strata = [ratio(results, method, places, column) for places in _places(results, subset)]
    reasons = results.reasons.get((method, column.name), {})
    places = [place for stratum in _places(results, subset) for place in stratum]
    failed = sum(results.test[place].id in reasons for place in places)
    value = float(np.mean([stratum.value for stratum in strata]))
    low, high = interval(strata, subset, resamples)
    scored = sum(map(len, strata))
    if not scored and (of_set := set_value(results, method, subset, column.name)) is not None:
        value, scored = of_set, len(places) - failed
    return Cell(value, low, high, scored, failed, beside=beside(results, method, subset, column))


def beside(results: Results, method: str, subset: str, column: Column) -> tuple[tuple[str, float], ...]:
    """What stands beside a column's value: numbers of the set named "<column>.<name>"."""
    names = dict.fromkeys(row["name"] for row in results.pooled if row["name"].startswith(f"{column.name}."))
    found = {name.partition(".")[2]: set_value(results, method, subset, name) for name in names}
    return tuple((name, value) for name, value in found.items() if value is not None)


def set_value(results: Results, method: str, subset: str, name: str) -> float | None:
    """A number of a whole set.

    The mean without one of its own: what stands beside a value is that of all clips, a value the mean of the subsets'.
    """
    rows = [row for row in results.pooled if (row["method"], row["name"]) == (method, name)]
    found = {row["subset"]: float(row["value"]) for row in rows if row["value"] is not None}
    if subset == MEAN and MEAN not in found:
        if (ALL in found and "." in name) or name.endswith(".p"):  # a mean of p is no p
            return found.get(ALL)
        numbers = [found.get(part) for part in results.subsets]
        return None if None in numbers else float(np.mean(numbers))  # type: ignore[arg-type]
    return found.get(subset)


def best_of(column: Column, values: dict[str, float]) -> list[str]:
    """Names of the best among two or more; what is shown as the same number is equally good."""
    shown = {k: round(v * (100 if column.percent else 1), column.digits) for k, v in values.items() if v == v}
    if not column.better or len(shown) < 2:
        return []
    best = max(shown.values()) if column.better == "higher" else min(shown.values())
    return [name for name, value in shown.items() if value == best]


# Of clips ----------------------------------------------------------------------------------------------------------


def _places(results: Results, subset: str) -> list[list[int]]:
    """Places of the subset's clips; for the mean a list for each subset."""
    return list(results.subsets.values()) if subset == MEAN else [results.subsets[subset]]


def _parts(results: Results, method: str, places: Sequence[int], column: Column) -> Ratio:
    """Top and bottom of all clips, NaN where there is no value."""
    none = np.full(len(results.test), np.nan)
    if column.over is None:
        top = results.values.get((method, column.name), none)[places]
        return Ratio(top, np.where(np.isnan(top), np.nan, 1.0))
    top, bottom = (results.values.get((method, name), none)[places] for name in column.over)
    return Ratio(np.where(np.isnan(bottom), np.nan, top), np.where(np.isnan(top), np.nan, bottom))


def ratio(results: Results, method: str, places: Sequence[int], column: Column) -> Ratio:
    """The clips of a method that have a value."""
    parts = _parts(results, method, places, column)
    there = ~np.isnan(parts.top)
    return Ratio(parts.top[there], parts.bottom[there])


def paired(results: Results, a: str, b: str, places: Sequence[int], column: Column) -> tuple[Ratio, Ratio]:
    """The clips of which both methods have a value."""
    one, other = (_parts(results, method, places, column) for method in (a, b))
    there = ~np.isnan(one.top) & ~np.isnan(other.top)
    return Ratio(one.top[there], one.bottom[there]), Ratio(other.top[there], other.bottom[there])


# Statistics --------------------------------------------------------------------------------------------------------


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
