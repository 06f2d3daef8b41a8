"""Who is shown what: balanced over rows, systems, comparisons and sides, whatever the numbers."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from ccl.study.design import SAME, Showing, Trial, compared, disguised, parts

NUMBERS = [(2, 5, None), (2, 6, 4), (3, 4, None), (3, 6, 13), (3, 7, 20), (4, 6, None), (4, 9, 31)]


def even(counts: Counter, of: int, slack: int = 1) -> bool:
    """Whether `of` things come as often as each other."""
    every = [*counts.values(), *[0] * (of - len(counts))]
    return max(every) - min(every) <= slack


def names(count: int, letter: str) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]


@pytest.mark.parametrize(("systems", "rows", "count"), NUMBERS)
def test_rows_and_pairs_of_systems_come_equally_often(systems: int, rows: int, count: int | None) -> None:
    pairs = list(combinations(names(systems, "s"), 2))
    trials = compared(names(systems, "s"), names(rows, "r"), count, seed=3)
    assert len(trials) == len({(t.row, t.sides) for t in trials}) == (count or rows * len(pairs))
    assert even(Counter(t.row for t in trials), rows) and even(Counter(t.sides for t in trials), len(pairs))
    assert {t.sides for t in trials} <= set(pairs)


@pytest.mark.parametrize(("systems", "rows", "count"), NUMBERS)
@pytest.mark.parametrize(("raters", "each"), [(1, None), (5, 3), (7, 4)])
def test_raters_share_comparisons_evenly_and_sides_too(
    systems: int, rows: int, count: int | None, raters: int, each: int | None
) -> None:
    trials = compared(names(systems, "s"), names(rows, "r"), count, seed=3)
    check = Trial("r0", ("s0", "s0"), check=SAME)
    made = parts([*trials, check], raters, each, seed=3)
    shown = Counter(s.trial for part in made for s in part)
    assert shown.pop(len(trials)) == raters and even(shown, len(trials))
    for part in made:
        assert len(part) == (each or len(trials)) + 1 == len({s.trial for s in part})
        for sides in {trials[s.trial].sides for s in part if s.trial < len(trials)}:
            flips = Counter(s.flipped for s in part if s.trial < len(trials) and trials[s.trial].sides == sides)
            assert even(flips, 2)
    assert len({tuple(part) for part in made}) == raters, "each has an order of its own"


def test_over_raters_a_comparison_has_both_sides() -> None:
    trials = compared(["a", "b"], names(6, "r"), None, seed=0)
    flips = Counter((s.trial, s.flipped) for part in parts(trials, 12, None, seed=0) for s in part)
    assert len(flips) == 12 and min(flips.values()) >= 2


def test_the_disguise_changes_nothing_that_anybody_sees() -> None:
    trials = [Trial(t.row, t.sides, t.sides) for t in compared(["a", "b", "c"], names(5, "r"), None, seed=1)]
    made = parts(trials, 4, 6, seed=1)
    hidden, again = disguised(trials, made, seed=1)

    def seen(trials: list[Trial], part: list[Showing]) -> list[tuple]:
        turned = [trials[s.trial].turned() if s.flipped else trials[s.trial] for s in part]
        return [(t.row, t.clips) for t in turned]

    assert [seen(hidden, part) for part in again] == [seen(trials, part) for part in made]
    assert hidden != trials and any(t.sides not in {("a", "b"), ("a", "c"), ("b", "c")} for t in hidden)


def test_more_than_there_is_cannot_be_shown() -> None:
    with pytest.raises(ValueError, match="there are 6 comparisons, 3 of systems on 2 rows, not 7"):
        compared(["a", "b", "c"], ["r", "s"], 7, seed=0)
    with pytest.raises(ValueError, match="a rater cannot get 7 of 6"):
        parts(compared(["a", "b", "c"], ["r", "s"], None, seed=0), 2, 7, seed=0)


def test_another_seed_shows_otherwise_and_the_same_one_does_not() -> None:
    one, same, other = (compared(["a", "b"], names(9, "r"), None, seed=seed) for seed in (1, 1, 2))
    assert one == same != other and set(one) == set(other)
