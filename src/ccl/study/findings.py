"""What answers say: win rates of pairs with intervals, an order of several systems, agreement, and who paid attention.

A win rate counts a tie as half a win. Its interval is a percentile bootstrap over raters and rows at once: each
resample takes raters with replacement and rows with replacement, and an answer as often as both of its own were taken
(the pigeonhole bootstrap, Owen 2007). So it is of other raters and other rows too. Draws follow from names, as in all
tables. Of fewer than FEWEST raters and rows there is no interval: all of five may well go one way by chance.

I raters, J rows, K systems, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Float64

from ccl.evaluation.tables.statistics import FEWEST, NAN, RESAMPLES, divide, draws, percentiles
from ccl.study.agreement import alpha, both_ways, same_answer
from ccl.study.answers import Answer, raters_of
from ccl.study.design import SAME, SHUFFLED
from ccl.study.key import Key
from ccl.study.questions import right_answer
from ccl.study.strengths import strengths


@dataclass(frozen=True)
class Pair:
    """How often `a` was preferred to `b`: `value` is its win rate, within `low` to `high`."""

    question: str
    a: str
    b: str
    wins: int
    ties: int
    losses: int
    value: float
    low: float
    high: float
    raters: int
    rows: int

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out one half."""
        return self.low > 0.5 or self.high < 0.5


@dataclass(frozen=True)
class Place:
    """A system's chance to be preferred to a middling one."""

    question: str
    system: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Of a question: alpha, the share of equal answers among pairs of raters, and how many comparisons several had."""

    question: str
    alpha: float
    same: float
    comparisons: int


@dataclass(frozen=True)
class Rater:
    """One rater: answers that count, and of each kind of check how many were right, of how many."""

    name: str
    answers: int
    checks: Mapping[str, tuple[int, int]]

    @property
    def failed(self) -> bool:
        """Whether half or more of some kind of check is wrong."""
        return any(2 * right <= of for right, of in self.checks.values() if of)


@dataclass(frozen=True)
class Findings:
    """What a study has found.

    Args:
        pairs: by question, of the systems that were compared.
        places: by question, the strongest first; none of two systems.
        agreements: by question.
        raters: all of them.
        left_out: names of those whose answers do not count.
        broken: clips, as `SYSTEM/ROW` of a pair, that a browser could not play, and how often.
    """

    pairs: Sequence[Pair]
    places: Sequence[Place]
    agreements: Sequence[Agreement]
    raters: Sequence[Rater]
    left_out: Sequence[str] = ()
    broken: Mapping[str, int] = field(default_factory=dict)


def found(key: Key, answers: Sequence[Answer], *, keep_all: bool = False) -> Findings:
    """What the answers to a study say.

    Args:
        key: of the study.
        answers: of all its raters.
        keep_all: count those, too, who fail the checks.

    Raises:
        ValueError: nobody's answers count.
    """
    raters = [rater(name, answers) for name in raters_of(answers)]
    left_out = [] if keep_all else [one.name for one in raters if one.failed]
    counted = [a for a in answers if not a.trial.check and a.rater not in left_out]
    broken = Counter(f"{' against '.join(a.trial.sides)} on {a.trial.row}" for a in counted if a.side is None)
    counted = [a for a in counted if a.side is not None]
    if not counted:
        raise ValueError(f"none of {len(raters)} raters' answers count{', all fail the checks' * bool(left_out)}")
    pairs: list[Pair] = []
    places: list[Place] = []
    agreements: list[Agreement] = []
    for question in key.questions:
        some = [a for a in counted if a.question == question]
        if not some:
            continue
        more, wins = compared(question, key.methods, some)
        pairs += more
        if len(key.methods) > 2:
            there = [len(raters_of(some)), len({a.trial.row for a in some})]
            places += ordered(question, key.methods, wins, *there)
        agreements.append(agreed(question, key.methods, some))
    return Findings(pairs, places, agreements, raters, left_out, broken)


def rater(name: str, answers: Sequence[Answer]) -> Rater:
    """How many answers a rater gave, and which checks were right."""
    own = [a for a in answers if a.rater == name]
    checks = {}
    for kind in (SAME, SHUFFLED):
        known = [
            (a.side, right)
            for a in own
            if a.trial.check == kind and a.side is not None
            if (right := right_answer(kind, a.question)) is not None
        ]
        checks[kind] = (sum(side == right for side, right in known), len(known))
    return Rater(name, sum(not a.trial.check and a.side is not None for a in own), checks)


def compared(
    question: str, methods: Sequence[str], answers: Sequence[Answer]
) -> tuple[list[Pair], Float64[np.ndarray, "r k k"]]:
    """Each pair's win rate with its interval, and in the first place the wins of all answers, then of each resample."""
    raters, rows = raters_of(answers), sorted({a.trial.row for a in answers})
    by_rater = {name: number for number, name in enumerate(raters)}
    by_row = {name: number for number, name in enumerate(rows)}
    weights = (
        np.concatenate([np.ones((1, len(raters))), draws(f"raters, {question}", len(raters), RESAMPLES)]),
        np.concatenate([np.ones((1, len(rows))), draws(f"rows, {question}", len(rows), RESAMPLES)]),
    )
    wins = np.zeros((RESAMPLES + 1, len(methods), len(methods)))
    pairs = []
    for (i, a), (j, b) in combinations(enumerate(methods), 2):
        points, counts = np.zeros((2, len(raters), len(rows)))
        tally = Counter[str]()
        for answer in answers:
            if set(answer.trial.sides) == {a, b}:
                cell = by_rater[answer.rater], by_row[answer.trial.row]
                assert answer.side is not None
                points[cell] += 0.5 if answer.side == "" else answer.side == a
                counts[cell] += 1
                tally[answer.side] += 1
        if not tally:
            continue
        top, bottom = taken(points, weights), taken(counts, weights)
        wins[:, i, j], wins[:, j, i] = top, bottom - top
        rates = divide(top, bottom)
        there = [int(counts.any(axis).sum()) for axis in (1, 0)]
        bounds = span(rates[1:], *there)
        pairs.append(Pair(question, a, b, tally[a], tally[""], tally[b], float(rates[0]), *bounds, *there))
    return pairs, wins


def span(values: Float64[np.ndarray, " r"], raters: int, rows: int) -> tuple[float, float]:
    """The interval of what so many raters said of so many rows, from its resamples; NaN where these are too few."""
    return percentiles(values) if max(raters, rows) >= FEWEST else (NAN, NAN)


def taken(
    values: Float64[np.ndarray, "i j"], weights: tuple[Float64[np.ndarray, "r i"], Float64[np.ndarray, "r j"]]
) -> Float64[np.ndarray, " r"]:
    """Sums of values by rater and row, each as often as both were taken."""
    by_rater, by_row = weights
    return ((by_rater @ values) * by_row).sum(1)


def ordered(
    question: str, methods: Sequence[str], wins: Float64[np.ndarray, "r k k"], raters: int, rows: int
) -> list[Place]:
    """Systems by strength, the strongest first."""
    chances = strengths(wins)
    places = [
        Place(question, method, float(chances[0, k]), *span(chances[1:, k], raters, rows))
        for k, method in enumerate(methods)
    ]
    return sorted(places, key=lambda place: -place.value)


def agreed(question: str, methods: Sequence[str], answers: Sequence[Answer]) -> Agreement:
    """How far raters agree on the comparisons that several of them had."""
    raters = {name: number for number, name in enumerate(raters_of(answers))}
    units: dict[tuple[str, frozenset[str]], np.ndarray] = {}
    for answer in answers:
        unit = (answer.trial.row, frozenset(answer.trial.sides))
        values = units.setdefault(unit, np.full(len(raters), NAN))
        first = min(answer.trial.sides, key=list(methods).index)
        values[raters[answer.rater]] = 0.0 if answer.side == "" else 1.0 if answer.side == first else -1.0
    values = np.stack(list(units.values()))
    several = int(((~np.isnan(values)).sum(1) > 1).sum())
    return Agreement(question, alpha(both_ways(values)), same_answer(values), several)
