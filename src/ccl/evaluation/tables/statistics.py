"""Statistics of paired clips: bootstrap intervals, and p by exchanging two systems within clips.

Every column is a ratio of sums over clips: a mean is sum(values) / count, a corpus rate sum(errors) / sum(words); so
one code serves both. Intervals are percentile bootstrap (Efron 1979) with the same resamples for two systems that are
compared; p is by sign flips (Fisher 1935), exactly where there are few clips; `holm` corrects several of them for their
number. Draws follow from names, so that the same scores give the same table.

Seeds of a training, where a method has several, are a level of their own. A value is the mean of the seeds' values.
Clips are resampled in blocks, a clip with all its seeds, for what is hard in a prompt is hard at each; and so are two
methods exchanged, so p is of these trained models. Seeds are too few to be resampled (three of them hold the truth in
78 % of cases where they are what varies, docs/log.md): to each resample is added a draw of Student's t with as many
degrees of freedom as seeds less one, times their standard error. The interval is then of other seeds too, and rather
too wide.

n clips, S seeds, R resamples; a stratum is a subset's clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import ndtri, stdtrit

RESAMPLES, FLIPS, EXACT = 2_000, 10_000, 12  # at most 2**EXACT exchanges are all tried
LEVEL, ALPHA, POWER = 0.95, 0.05, 0.8
FEWEST = 6  # clips with which a p below ALPHA can come of exchanges at all: 2 / 2**6
NAN = float("nan")


@dataclass(frozen=True)
class Ratio:
    """A column's clips of one subset, of which the value is sum(top) / sum(bottom); NaN is a clip without one.

    Of a method with several seeds the mean of their values; a clip is one that all of them have.
    """

    top: Float64[np.ndarray, "... n"]
    bottom: Float64[np.ndarray, "... n"]

    @property
    def value(self) -> float:
        return float(np.mean(self.seeds))

    @property
    def seeds(self) -> Float64[np.ndarray, " s"]:
        """The value of each seed, of a method without any its own; NaN where nothing is divided by."""
        return divide(*(np.atleast_1d(part.sum(-1)) for part in (self.top, self.bottom)))

    @property
    def moves(self) -> Float64[np.ndarray, " n"]:
        """How far each clip alone moves the value: of a mean its distance from it; the mean of the seeds."""
        top, bottom = np.atleast_2d(self.top), np.atleast_2d(self.bottom)
        return divide(top - self.seeds[:, None] * bottom, bottom.mean(-1, keepdims=True)).mean(0)

    @property
    def there(self) -> Bool[np.ndarray, " n"]:
        """Which clips have a value."""
        return ~np.isnan(self.top).any(tuple(range(self.top.ndim - 1)))

    def __len__(self) -> int:
        return self.top.shape[-1]

    def __getitem__(self, clips: Bool[np.ndarray, " n"]) -> Ratio:
        """These clips alone."""
        return Ratio(self.top[..., clips], self.bottom[..., clips])

    def resampled(self, counts: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, " r"]:
        """The value with each clip taken as often as `counts` says."""
        return over_seeds(divide(counts @ self.top.T, counts @ self.bottom.T))


def interval(strata: Sequence[Ratio], subset: str, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % of the mean over strata of their values, clips resampled within each, and seeds drawn."""
    if any(len(stratum) < 2 for stratum in strata):
        return NAN, NAN
    means = [s.resampled(draws(f"{subset} {i}", len(s), resamples)) for i, s in enumerate(strata)]
    return percentiles(np.mean(means, axis=0) + deviations(np.mean([s.seeds for s in strata], axis=0), resamples))


def compare(
    strata: Sequence[tuple[Ratio, Ratio]], subset: str, resamples: int = RESAMPLES, flips: int = FLIPS
) -> tuple[float, float, float, float, int]:
    """Difference of two methods, its interval, p, and the number of clips; a pair of ratios for each stratum."""
    difference = float(np.mean([a.value - b.value for a, b in strata]))
    low, high = NAN, NAN
    if all(len(a) > 1 for a, _ in strata):
        weights = [draws(f"{subset} {i}", len(a), resamples) for i, (a, _) in enumerate(strata)]
        differences = [a.resampled(w) - b.resampled(w) for (a, b), w in zip(strata, weights, strict=True)]
        low, high = percentiles(np.mean(differences, axis=0) + deviations(by_seed(strata), resamples))
    return difference, low, high, exchange_p(strata, subset, flips), sum(len(a) for a, _ in strata)


def by_seed(strata: Sequence[tuple[Ratio, Ratio]]) -> Float64[np.ndarray, " s"]:
    """The difference of two methods at each seed."""
    return np.mean([a.seeds - b.seeds for a, b in strata], axis=0)


def exchange_p(strata: Sequence[tuple[Ratio, Ratio]], name: str, flips: int = FLIPS) -> float:
    """Share of exchanges of a and b within clips that give at least the difference seen, the one seen among them."""
    sizes = [len(a) for a, _ in strata]
    n = sum(sizes)
    exact = n <= EXACT
    swaps = np.split(every(n) if exact else coins(name, -(-n // 64) * 64, flips)[:, :n], np.cumsum(sizes)[:-1], axis=1)
    differences = []
    for (a, b), swap in zip(strata, swaps, strict=True):
        top, bottom = swap @ (b.top - a.top).T, swap @ (b.bottom - a.bottom).T
        one = divide(a.top.sum(-1) + top, a.bottom.sum(-1) + bottom)
        differences.append(over_seeds(one - divide(b.top.sum(-1) - top, b.bottom.sum(-1) - bottom)))
    seen = abs(np.mean([a.value - b.value for a, b in strata]))
    as_large = int((np.abs(np.mean(differences, axis=0)) >= seen * (1 - 1e-9) - 1e-12).sum())
    return as_large / len(swaps[0]) if exact else (as_large + 1) / (flips + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for how many are looked at together (Holm 1979): below ALPHA are those of which, however the
    others turn out, one alone is there by chance with at most that probability.
    """
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    found = np.empty(len(ps))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return found.tolist()


def clips_needed(strata: Sequence[tuple[Ratio, Ratio]]) -> float:
    """Clips that would tell two methods apart (p below ALPHA in POWER of cases), were what is seen the truth.

    By Student's t for the mean of differences (Guenther 1981), which exchanges come near to; of a ratio of sums, each
    clip's difference is how far it moves the value. Clips are shared among strata as they are now.

    Returns:
        A whole number; infinite where no difference is seen, NaN where a stratum has fewer than two clips.
    """
    sizes = np.array([len(a) for a, _ in strata])
    if sizes.min() < 2:
        return NAN
    difference = float(np.mean([a.value - b.value for a, b in strata]))
    if abs(difference) < 1e-12:
        return float("inf")
    variances = np.array([np.var(a.moves - b.moves, ddof=1) for a, b in strata])
    variance = float((variances * sizes.sum() / sizes).sum()) / len(strata) ** 2  # of one clip, the strata as they are
    certain, likely = ndtri([1 - ALPHA / 2, POWER])
    return max(float(FEWEST), float(np.ceil((certain + likely) ** 2 * variance / difference**2 + certain**2 / 2)))


def over_seeds(values: Float64[np.ndarray, "r ..."]) -> Float64[np.ndarray, " r"]:
    """The mean of the seeds, where there are any."""
    return values.reshape(len(values), -1).mean(1)


def deviation(seeds: Float64[np.ndarray, " s"]) -> float:
    """Standard deviation over seeds; NaN of one alone."""
    return float(np.std(seeds, ddof=1)) if len(seeds) > 1 else NAN


def deviations(seeds: Float64[np.ndarray, " s"], resamples: int) -> Float64[np.ndarray, " r"] | float:
    """How far the mean of as many seeds may lie from the truth, a draw for each resample; 0 of one seed, of which
    nothing is known.
    """
    count = len(seeds)
    return deviation(seeds) / count**0.5 * students(count - 1, resamples) if count > 1 else 0.0


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
def students(freedom: int, resamples: int) -> Float64[np.ndarray, " r"]:
    """Student's t at evenly spaced probabilities, in an order drawn once: its tails come out alike for any R."""
    order = np.random.default_rng(crc32(f"seeds, {freedom}".encode())).permutation(resamples)
    return stdtrit(freedom, (order + 0.5) / resamples)


@lru_cache(maxsize=8)
def coins(name: str, n: int, flips: int) -> Float64[np.ndarray, "r n"]:
    """Which of up to n clips are exchanged."""
    rng = np.random.default_rng(crc32(f"exchanges, {name}".encode()))
    return rng.integers(0, 2, (flips, n), dtype=np.int8).astype(np.float64)


def every(n: int) -> Float64[np.ndarray, "r n"]:
    """All 2**n exchanges of n clips."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)
