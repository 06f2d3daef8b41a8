"""From what is finished to numbers: rows over seeds, their differences, and what these say of each claim.

Rows are compared at the seeds that both have, on the clips of which every row has a value at every seed; where no clip
is common to all, on those that both have. Losses are compared step by step, for runs of one seed draw the same clips,
times and noise. What an interval, a p and a seed are stands in ccl.evaluation.tables.statistics.

S seeds, n clips or steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ccl.ablation.claims import LOSS, Claim, Test, Verdict, verdict
from ccl.ablation.finished import Curve, Finished
from ccl.ablation.matrix import Matrix
from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.layout import whole
from ccl.evaluation.tables.statistics import ALPHA, NAN, Ratio, by_seed, compare, deviation, interval
from ccl.evaluation.tables.summary import strata_of

RULE = (
    f"* where the 95 % interval over clips and seeds leaves out 0, p is below {ALPHA:g} and there are two seeds or "
    "more; neither is corrected for the number of comparisons."
)
LOSSES = {
    LOSS: Column(LOSS, "Joint loss", "lower", digits=4),
    f"{LOSS}.video": Column(f"{LOSS}.video", "Joint loss, video", "lower", digits=4),
    f"{LOSS}.audio": Column(f"{LOSS}.audio", "Joint loss, audio", "lower", digits=4),
}
Strata = Mapping[str, Ratio]


@dataclass(frozen=True)
class Number:
    """A row's value in a measure.

    Args:
        value: mean of the seeds' values; NaN where there is none.
        sd: standard deviation over seeds; NaN of one.
        low: of the 95 % interval.
        high: of the interval.
        seeds: the value at each seed that is finished.
        clips: that each of them is over.
        missing: why there is no value, or why it is of fewer seeds than the matrix has; "" where nothing is.
    """

    value: float = NAN
    sd: float = NAN
    low: float = NAN
    high: float = NAN
    seeds: Mapping[int, float] | None = None
    clips: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Difference:
    """A row's value less that of the row it is compared with.

    Args:
        row: of which the difference is told.
        versus: the row it is compared with.
        column: the measure.
        value: the difference; NaN where there is none.
        low: of its 95 % interval, over clips and, of two seeds or more, over seeds.
        high: of the interval.
        p: two-sided, by exchanging the two within clips; of the models that were trained.
        clips: or steps, that it is over.
        seeds: the difference at each seed that both have.
        missing: why there is none.
    """

    row: str
    versus: str
    column: Column
    value: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    clips: int = 0
    seeds: Mapping[int, float] | None = None
    missing: str = ""

    @property
    def starred(self) -> bool:
        """Whether it is told from none by RULE."""
        return len(self.seeds or ()) > 1 and self.p < ALPHA and (self.low > 0 or self.high < 0)

    @property
    def gain(self) -> tuple[float, float, float]:
        """How much better the row is, with the interval's ends: the difference turned so that more is better."""
        if self.column.better != "lower":
            return self.value, self.low, self.high
        return -self.value, -self.high, -self.low


@dataclass(frozen=True)
class Decided:
    """A claim, what is said of it, and each of its tests with the difference that decides it."""

    claim: Claim
    verdict: Verdict
    tests: Sequence[tuple[Test, Verdict, Difference]]


@dataclass(frozen=True)
class Numbers:
    """All that tables and page show.

    Args:
        columns: measured ones, in the order of the tables.
        rows: by (row, column).
        differences: of each row to those it is compared with, and of the runs' losses.
        decided: the claims.
    """

    columns: Sequence[Column]
    rows: dict[tuple[str, str], Number]
    differences: Sequence[Difference]
    decided: Sequence[Decided]


def numbers(matrix: Matrix, finished: Finished) -> Numbers:
    """Every number of a matrix, as far as it is finished."""
    columns = [column for column in finished.results.shown if not column.pooled]
    differences = [versus(finished, column, a, b) for column in columns for a, b in matrix.compare]
    differences += [losses_versus(finished, c, a, b) for c in LOSSES.values() for a, b in trained_pairs(matrix)]
    return Numbers(
        columns,
        {(row.name, column.name): number_of(finished, column, row.name) for row in matrix.rows for column in columns},
        [d for d in differences if d.column.name not in LOSSES or not d.missing],
        [decide(claim, matrix, finished) for claim in matrix.claims],
    )


def trained_pairs(matrix: Matrix) -> list[tuple[str, str]]:
    """The runs of compared rows, where both were trained and are not the same."""
    pairs = dict.fromkeys((matrix.row(a).run, matrix.row(b).run) for a, b in matrix.compare)
    return [(a, b) for a, b in pairs if a != b and matrix.run(a).ckpt is matrix.run(b).ckpt is None]


def number_of(finished: Finished, column: Column, row: str) -> Number:
    """A row's value, over the clips that all rows have."""
    seeds = finished.rows[row]
    if not seeds:
        return Number(missing="not sampled and scored")
    strata = some(stacked(finished, column, row, seeds), common(finished, column, finished.rows))
    if not strata:
        return Number(missing=why(finished, column, row))
    each = np.mean([s.seeds for s in strata.values()], axis=0)
    low, high = interval(list(strata.values()), whole(finished.results))
    lacking = [str(seed) for seed in finished.seeds if seed not in seeds]
    return Number(
        float(each.mean()),
        deviation(each),
        low,
        high,
        dict(zip(seeds, map(float, each), strict=True)),
        sum(map(len, strata.values())),
        f"without seed {', '.join(lacking)}" if lacking else "",
    )


def versus(finished: Finished, column: Column, row: str, other: str) -> Difference:
    """Two rows in a measure."""
    seeds = [seed for seed in finished.rows[row] if seed in finished.rows[other]]
    for name in (row, other):
        if not finished.rows[name]:
            return Difference(row, other, column, missing=f"{name} is not sampled and scored")
    if not seeds:
        return Difference(row, other, column, missing="no seed is finished in both")
    two = [stacked(finished, column, name, seeds) for name in (row, other)]
    mask = common(finished, column, finished.rows)
    a, b = (some(strata, mask) for strata in two)
    if not a or not b:
        mask = common(finished, column, {name: seeds for name in (row, other)})
        a, b = (some(strata, mask) for strata in two)
    if not a or not b:
        lacks = [name for name, strata in ((row, a), (other, b)) if not strata]
        return Difference(row, other, column, missing=f"{lacks[0]}: {why(finished, column, lacks[0])}")
    both = [(a[name], b[name]) for name in a if name in b]
    return told(Difference(row, other, column), both, whole(finished.results), seeds)


def told(head: Difference, pairs: Sequence[tuple[Ratio, Ratio]], name: str, seeds: Sequence[int]) -> Difference:
    """The difference with its numbers."""
    value, low, high, p, clips = compare(pairs, name)
    each = dict(zip(seeds, map(float, by_seed(pairs)), strict=True))
    return Difference(head.row, head.versus, head.column, value, low, high, p, clips, each)


def stacked(finished: Finished, column: Column, row: str, seeds: Sequence[int]) -> Strata:
    """A row's (S, n) clips by subset, NaN where there is no value."""
    places, count = [finished.seeds.index(seed) for seed in seeds], len(finished.seeds)
    strata = strata_of(finished.results, row, whole(finished.results), column)
    each = {name: [part.reshape(count, -1)[places] for part in (one.top, one.bottom)] for name, one in strata.items()}
    return {name: Ratio(*parts) for name, parts in each.items()}


def common(finished: Finished, column: Column, rows: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """(n,) bool by subset: clips with a value at these seeds in all of these rows, but those that have none at all."""
    every = [stacked(finished, column, row, seeds) for row, seeds in rows.items() if seeds]
    having = [strata for strata in every if any(s.there.any() for s in strata.values())]
    return {name: np.logical_and.reduce([s[name].there for s in having]) for name in (having[0] if having else ())}


def some(strata: Strata, clips: Mapping[str, np.ndarray]) -> dict[str, Ratio]:
    """These clips of each subset alone; a subset without a value at every seed is left out."""
    kept = {name: strata[name][mask & strata[name].there] for name, mask in clips.items()}
    return {name: ratio for name, ratio in kept.items() if np.isfinite(ratio.seeds).all()}


def why(finished: Finished, column: Column, row: str) -> str:
    """Why a row has no value of a measure: the reason that most of its clips have."""
    kinds, key = (finished.results.reasons, finished.results.inapplicable), (row, column.name)
    found = [reason for kind in kinds for reason in kind.get(key, {}).values()]
    return max(dict.fromkeys(found), key=found.count) if found else "no clip has a value that the other rows have too"


# Losses and claims ---------------------------------------------------------------------------------------------------


def losses_versus(finished: Finished, column: Column, run: str, other: str) -> Difference:
    """Two runs' losses of the joint task, mean over the steps that both have; a step counts as a clip does."""
    key = column.name.removeprefix(f"{LOSS}.")
    pairs = {
        seed: (finished.curves[run, seed], finished.curves[other, seed])
        for seed in finished.seeds
        if all((name, seed) in finished.curves and key in finished.curves[name, seed].losses for name in (run, other))
    }
    pairs = {seed: two for seed, two in pairs.items() if len(np.intersect1d(two[0].steps, two[1].steps))}
    if not pairs:
        return Difference(run, other, column, missing=f"no seed has losses of both {run} and {other}")
    steps = np.unique(np.concatenate([np.intersect1d(a.steps, b.steps) for a, b in pairs.values()]))
    # Which steps are of the joint task differs between seeds, so a step that a seed has not weighs nothing there.
    there = np.array([np.isin(steps, np.intersect1d(a.steps, b.steps)) for a, b in pairs.values()], dtype=np.float64)
    values = [
        np.array([np.where(w, at(two[i], key, steps), 0.0) for two, w in zip(pairs.values(), there, strict=True)])
        for i in range(2)
    ]
    ratios = tuple(Ratio(top, there) for top in values)
    return told(Difference(run, other, column), [(ratios[0], ratios[1])], "steps", list(pairs))


def at(curve: Curve, key: str, steps: np.ndarray) -> np.ndarray:
    """The losses at these steps; any number where there is none."""
    return curve.losses[key][np.searchsorted(curve.steps, steps).clip(max=len(curve.steps) - 1)]


def decide(claim: Claim, matrix: Matrix, finished: Finished) -> Decided:
    """What the differences say of a claim."""
    known = {column.name: column for column in finished.results.columns}
    made: list[tuple[Test, Verdict, Difference]] = []
    for test in claim.tests:
        if test.measure in LOSSES:
            a, b = (matrix.row(name).run for name in (test.better, test.worse))
            difference = losses_versus(finished, LOSSES[test.measure], a, b)
        else:
            column = known.get(test.measure, Column(test.measure, test.measure, ""))
            difference = versus(finished, column, test.better, test.worse)
        _, low, high = difference.gain
        # One training each says nothing of the methods.
        decided = test.verdict(low, high) if len(difference.seeds or ()) > 1 else "undecided"
        made.append((test, decided, difference))
    return Decided(claim, verdict([one for _, one, _ in made]), made)
