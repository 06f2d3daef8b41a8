"""From a number for each clip to numbers of a method: values, intervals, counts, paired comparisons.

The paper's "mean" is the mean of the subsets' values, and resampling keeps to the subsets. A subset without a value is
left out of the mean, which then says of which subsets it is.

Systems beside each other are measured on the same clips: values, intervals, which is best and every comparison are over
the clips that all of them have a value of, so that nobody gains by failing where it is hard. What a system has over all
its own clips stands beside. One that has no value at all takes no part, and has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.results import ALL, MEAN, Results
from ccl.evaluation.tables.statistics import NAN, RESAMPLES, Ratio, clips_needed, compare, holm, interval

Strata = Mapping[str, Ratio]  # a method's clips by subset; of a single subset that alone


@dataclass(frozen=True)
class Cell:
    """A method's number in a subset.

    Args:
        value: over the clips that all systems have; of one system alone over all that it has. NaN where there is none.
        low: of the 95 % interval; NaN with less than two clips, and for numbers of whole sets.
        high: of the interval.
        scored: clips with a value.
        failed: clips with a reason instead.
        inapplicable: clips in which there was nothing to measure, which is no failure.
        clips: that `value` is over.
        own: the value over all clips that the method has, where those are others; else NaN.
        subsets: that the mean is of, where others have no value; else none.
        best: no other system's number, as shown, is better; of one system alone nothing is best.
        extras: what stands beside the value, by name: "shuffled", "p".
        paired: the value of the clips that "shuffled" and "p" are of, where controls say it; else NaN.
    """

    value: float
    low: float = NAN
    high: float = NAN
    scored: int = 0
    failed: int = 0
    inapplicable: int = 0
    clips: int = 0
    own: float = NAN
    subsets: tuple[str, ...] = ()
    best: bool = False
    extras: tuple[tuple[str, float], ...] = ()
    paired: float = NAN


@dataclass(frozen=True)
class Pair:
    """Two methods on the same clips.

    Args:
        a: a method.
        b: another one.
        subset: as in Cell.
        column: name.
        difference: the value of a minus that of b.
        low: of the difference's 95 % interval.
        high: of the interval.
        p: two-sided; of a difference as large if it did not matter which clip is whose.
        clips: that all systems have; where there are none, that both have.
        subsets: as in Cell.
        adjusted: p corrected for the number of columns in which the two are compared in this subset (Holm).
        needed: clips that would tell them apart, by `clips_needed`.
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
    subsets: tuple[str, ...] = ()
    adjusted: float = NAN
    needed: float = NAN


@dataclass(frozen=True)
class Summary:
    """All numbers of a table: cells by (method, subset, column), and every pair of systems by one protocol."""

    cells: dict[tuple[str, str, str], Cell]
    pairs: list[Pair]


def summarise(results: Results, *, resamples: int = RESAMPLES) -> Summary:
    """Cells and pairs of all methods, subsets and shown columns."""
    cells: dict[tuple[str, str, str], Cell] = {}
    pairs: list[Pair] = []
    for column in results.shown:
        for subset in [*results.subsets, *([MEAN] if len(results.subsets) > 1 else [])]:
            every = {method: strata_of(results, method, subset, column) for method in results.methods}
            systems = {name: every[name] for name in results.systems}
            common = common_clips(systems)
            found = {m: cell(results, m, subset, column, every[m], common, resamples) for m in results.methods}
            scored = any(s.there.any() for strata in systems.values() for s in strata.values())
            if common is not None or (not scored and of_same_sets(results, column)):
                for rivals in results.contests:
                    for name in best_of(column, {name: found[name].value for name in rivals}):
                        found[name] = replace(found[name], best=True)
            cells |= {(method, subset, column.name): one for method, one in found.items()}
            for a, b in (two for rivals in results.contests for two in combinations(rivals, 2)):
                two = {name: systems[name] for name in (a, b)}
                clips = common if common is not None else common_clips(two)
                if clips is None or not all(any(s.there.any() for s in strata.values()) for strata in two.values()):
                    continue
                both = {name: (systems[a][name][mask], systems[b][name][mask]) for name, mask in clips.items()}
                both = {name: pair for name, pair in both.items() if all(x.value == x.value for x in pair)}
                if both:
                    numbers = compare(list(both.values()), subset, resamples)
                    needed = clips_needed(list(both.values()))
                    part = part_of(both, clips)
                    pairs.append(Pair(a, b, subset, column.name, *numbers, subsets=part, needed=needed))
    return Summary(cells, adjusted(pairs))


def adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with p corrected over the columns of the same two systems in the same subset."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for place, pair in enumerate(pairs):
        families.setdefault((pair.a, pair.b, pair.subset), []).append(place)
    made = list(pairs)
    for places in families.values():
        for place, p in zip(places, holm([pairs[place].p for place in places]), strict=True):
            made[place] = replace(pairs[place], adjusted=p)
    return made


def common_clips(systems: Mapping[str, Strata]) -> dict[str, np.ndarray] | None:
    """(n,) bool by subset: the clips of which all systems have a value, those apart that have none at all.

    None where no clip is common to them.
    """
    having = [strata for strata in systems.values() if any(s.there.any() for s in strata.values())]
    if not having:
        return None
    common = {name: np.logical_and.reduce([strata[name].there for strata in having]) for name in having[0]}
    return common if any(mask.any() for mask in common.values()) else None


def cell(
    results: Results,
    method: str,
    subset: str,
    column: Column,
    strata: Strata,
    common: Mapping[str, np.ndarray] | None,
    resamples: int = RESAMPLES,
) -> Cell:
    """One method's number in one subset, or its mean over them.

    Args:
        results: what was scored.
        method: whose number.
        subset: or the mean.
        column: of the number.
        strata: the method's clips.
        common: those that all systems have; None takes all.
        resamples: for the interval.
    """
    own = {name: s[s.there] for name, s in strata.items()}
    same = own if common is None else {name: s[s.there & common[name]] for name, s in strata.items()}
    scored, clips = (sum(map(len, some.values())) for some in (own, same))
    own, same = ({name: s for name, s in some.items() if s.value == s.value} for some in (own, same))
    ids = {results.test[place].id for name in strata for place in results.subsets[name]}
    why = [reasons.get((method, column.name), {}) for reasons in (results.reasons, results.inapplicable)]
    failed, inapplicable = (len(ids & found.keys()) for found in why)
    low, high = interval(list(same.values()), subset, resamples) if same else (NAN, NAN)
    made = Cell(mean_of(same), low, high, scored, failed, inapplicable, clips, subsets=part_of(same, strata))
    if clips != scored:
        made = replace(made, own=mean_of(own))
    if not scored:
        made = of_set(made, results, method, subset, column, len(ids) - failed - inapplicable)
    extras = extras_of(results, method, subset, column, made.subsets or tuple(strata))
    return replace(made, extras=extras, paired=paired(results, method, subset, column))


def strata_of(results: Results, method: str, subset: str, column: Column) -> Strata:
    """A method's clips by subset, NaN where there is no value."""
    places = results.subsets if subset == MEAN else {subset: results.subsets[subset]}
    none = np.full(len(results.test), np.nan)
    tops, bottoms = (results.values.get((method, name), none) for name in column.over or (column.name, column.name))
    if column.over is None:
        bottoms = np.where(np.isnan(tops), np.nan, 1.0)
    lacking = np.isnan(tops) | np.isnan(bottoms)
    tops, bottoms = (np.where(lacking, np.nan, values) for values in (tops, bottoms))
    return {name: Ratio(tops[where], bottoms[where]) for name, where in places.items()}


def mean_of(strata: Strata) -> float:
    """The mean of the subsets' values; NaN of none."""
    return float(np.mean([s.value for s in strata.values()])) if strata else NAN


def part_of(some: Mapping[str, object], every: Mapping[str, object]) -> tuple[str, ...]:
    """The names that there are, where they are not all."""
    return tuple(some) if 0 < len(some) < len(every) else ()


# Numbers of whole sets ---------------------------------------------------------------------------------------------


def of_set(cell: Cell, results: Results, method: str, subset: str, column: Column, scored: int) -> Cell:
    """A cell with the number of a whole set, where the column has one: of the clips that all systems have.

    Args:
        cell: with the counts.
        results: what was scored.
        method: whose number.
        subset: or the mean.
        column: of the number.
        scored: clips, where the number does not say of how many it is.
    """
    every = {
        (r["method"], r["subset"]): r for r in results.pooled if r["name"] == column.name and r["value"] is not None
    }
    having = {name for name, _ in every if name in results.systems}
    wanted = list(results.subsets) if subset == MEAN else [subset]
    own = [name for name in wanted if (method, name) in every]
    same = [name for name in own if all((other, name) in every for other in having)] or own
    if not own:
        return cell
    numbers = {name: every[method, name] for name in own}
    value = float(np.mean([numbers[name]["value"] for name in same]))
    whole = float(np.mean([numbers[name].get("own", numbers[name]["value"]) for name in own]))
    counted = sum(numbers[name].get("scored", 0) for name in own) or scored
    clips = sum(numbers[name].get("clips", 0) for name in same) or counted
    apart = whole if clips != counted else NAN
    return replace(
        cell,
        value=value,
        scored=counted,
        clips=clips,
        own=apart,
        subsets=part_of(dict.fromkeys(same), dict.fromkeys(wanted)),
    )


def of_same_sets(results: Results, column: Column) -> bool:
    """Whether a column's numbers of whole sets are of the same clips for all systems."""
    return all(row.get("common", True) for row in results.pooled if row["name"] == column.name)


def extras_of(
    results: Results, method: str, subset: str, column: Column, parts: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    """What stands beside a column's value: numbers of the set named "<column>.<name>".

    Beside a mean they are means of the same subsets, `parts`; but p, of which a mean would be none, is of all clips.
    """
    by_name: dict[str, dict[str, float]] = {}
    for row in results.pooled:
        if row["method"] == method and row["name"].startswith(f"{column.name}.") and row["value"] is not None:
            by_name.setdefault(row["name"].partition(".")[2], {})[row["subset"]] = float(row["value"])
    extras = {}
    for name, found in by_name.items():
        wanted = [ALL] if name == "p" and subset == MEAN else parts
        if found.keys() >= set(wanted):
            extras[name] = float(np.mean([found[part] for part in wanted]))
    return tuple(extras.items())


def paired(results: Results, method: str, subset: str, column: Column) -> float:
    """The value of the clips that have one shuffled too, by the controls; NaN where these were not tried."""
    key = {"method": method, "subset": subset, "column": column.name, "control": "shuffled"}
    lines = results.controls if column.sync else ()
    return next((line["true"] for line in lines if key.items() <= line.items()), NAN)


def best_of(column: Column, values: dict[str, float]) -> list[str]:
    """Names of the best among two or more; what is shown as the same number is equally good."""
    shown = {k: round(v * (100 if column.percent else 1), column.digits) for k, v in values.items() if v == v}
    if not column.better or len(shown) < 2:
        return []
    best = max(shown.values()) if column.better == "higher" else min(shown.values())
    return [name for name, value in shown.items() if value == best]
