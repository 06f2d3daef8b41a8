"""Whether two systems differ: p against scipy's, Holm against his steps one by one, power against simulated tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import permutation_test

from ccl.evaluation.tables import layout, notes
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.statistics import ALPHA, POWER, Ratio, clips_needed, exchange_p, holm
from ccl.evaluation.tables.summary import Summary, summarise
from ccl.evaluation.tables.typeset import markdown
from helpers.scored import scored

Numbers = np.ndarray
REPEATS, FLIPS = 300, 400


def mean(values: Numbers) -> Ratio:
    return Ratio(values, np.ones(len(values)))


def scipys_p(a: Numbers, b: Numbers, statistic) -> float:
    """Exchanges within pairs, all of them."""
    found = permutation_test((a, b), statistic, permutation_type="samples", n_resamples=np.inf, vectorized=False)
    return float(found.pvalue)


@pytest.mark.parametrize("seed", range(3))
def test_the_p_of_means_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.5, 1, 10), rng.normal(0, 1, 10)
    wanted = scipys_p(a, b, lambda x, y: np.mean(x) - np.mean(y))
    assert exchange_p([(mean(a), mean(b))], "x") == pytest.approx(wanted)


def test_the_p_of_a_corpus_rate_is_scipys() -> None:
    rng = np.random.default_rng(7)
    errors, words = rng.integers(0, 6, (2, 9)).astype(float), rng.integers(6, 12, (2, 9)).astype(float)

    def rates(x: Numbers, y: Numbers) -> float:  # clips are exchanged with their words
        (a, n), (b, m) = (np.array([pairs[int(i)] for i in z]).T for z in (x, y))
        return a.sum() / n.sum() - b.sum() / m.sum()

    pairs = [(e, w) for system in zip(errors, words, strict=True) for e, w in zip(*system, strict=True)]
    wanted = scipys_p(np.arange(9), np.arange(9, 18), rates)
    two = Ratio(errors[0], words[0]), Ratio(errors[1], words[1])
    assert exchange_p([two], "x") == pytest.approx(wanted) and 0 < wanted < 1


def test_drawn_exchanges_come_near_scipys() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 16), rng.normal(0, 1, 16)
    many = {"permutation_type": "samples", "n_resamples": 20_000, "rng": np.random.default_rng(0)}
    wanted = permutation_test((a, b), lambda x, y, axis: np.mean(x - y, axis), vectorized=True, **many).pvalue
    assert exchange_p([(mean(a), mean(b))], "x") == pytest.approx(wanted, abs=0.015) and 0.01 < wanted < 0.9


def steps_down(ps: list[float], level: float) -> list[bool]:
    """Holm's own words: from the smallest p on, each against the level over how many are left, until one is above."""
    told, left = [False] * len(ps), list(range(len(ps)))
    while left:
        smallest = min(left, key=lambda i: ps[i])
        if ps[smallest] > level / len(left):
            break
        told[smallest] = True
        left.remove(smallest)
    return told


def test_corrected_ps_are_those_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2] and holm([]) == [] and holm([0.5, 0.9, 0.9]) == [1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_what_survives_is_what_steps_down_one_by_one_leave(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ps = (rng.random(12) ** 4).tolist()
    for level in (0.01, 0.05, 0.2):
        assert [p <= level for p in holm(ps)] == steps_down(ps, level)


def test_of_columns_without_a_difference_one_survives_no_more_often_than_is_said() -> None:
    ps = np.random.default_rng(0).random((4000, 10))
    assert np.mean(ps.min(1) <= ALPHA) > 0.35, "uncorrected, most tables of ten columns would find something"
    assert 0.04 <= np.mean([min(holm(row)) <= ALPHA for row in ps.tolist()]) <= 0.06


# Power ---------------------------------------------------------------------------------------------------------------


def found_with(clips: int, draw) -> float:
    """How often exchanges tell two systems apart, of each of which `draw(clips)` gives a ratio."""
    return float(np.mean([exchange_p([draw(clips)], "x", FLIPS) <= ALPHA for _ in range(REPEATS)]))


def test_as_many_clips_as_are_said_tell_two_means_apart_in_four_of_five_tables() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Ratio, Ratio]:
        hard = rng.normal(0, 3, n)  # what is hard for both
        return mean(hard + rng.normal(0.4, 0.8, n)), mean(hard + rng.normal(0, 0.6, n))

    needed = clips_needed([draw(200_000)])  # seen as it is
    assert 45 <= needed <= 55  # (1.96 + 0.84)^2 * (0.8^2 + 0.6^2) / 0.4^2 is 49
    assert found_with(int(needed), draw) == pytest.approx(POWER, abs=0.06)
    assert found_with(int(needed) // 2, draw) < POWER - 0.15
    assert found_with(2 * int(needed), draw) > POWER + 0.12


def test_as_many_clips_as_are_said_tell_two_corpus_rates_apart() -> None:
    rng = np.random.default_rng(1)

    def draw(n: int) -> tuple[Ratio, Ratio]:
        words = rng.integers(4, 12, n)
        a, b = (rng.binomial(words, share).astype(float) for share in (0.3, 0.2))
        return Ratio(a, words.astype(float)), Ratio(b, words.astype(float))

    needed = clips_needed([draw(200_000)])
    assert 20 < needed < 60
    assert found_with(int(needed), draw) == pytest.approx(POWER, abs=0.06)


def test_subsets_are_drawn_from_as_they_are() -> None:
    """Of two subsets, one three times as large: each of its clips weighs a third of another's."""
    rng = np.random.default_rng(2)

    def draw(n: int) -> list[tuple[Ratio, Ratio]]:
        sizes = n - n // 4, n // 4
        return [(mean(rng.normal(0.5, s, size)), mean(np.zeros(size))) for s, size in zip((1, 2), sizes, strict=True)]

    needed = clips_needed(draw(200_000))
    found = np.mean([exchange_p(draw(int(needed)), "x", FLIPS) <= ALPHA for _ in range(REPEATS)])
    assert found == pytest.approx(POWER, abs=0.07)


def test_a_clip_moves_a_value_as_leaving_it_out_does() -> None:
    rng = np.random.default_rng(3)
    errors, words = rng.integers(0, 6, 400).astype(float), rng.integers(6, 12, 400).astype(float)
    whole = Ratio(errors, words)
    without = [Ratio(np.delete(errors, i), np.delete(words, i)).value for i in range(400)]
    assert np.allclose(whole.moves, 399 * (whole.value - np.array(without)), atol=0.01)
    seeds = Ratio(np.stack([errors, errors]), np.stack([words, words]))
    assert np.allclose(seeds.moves, whole.moves)


def test_no_difference_needs_more_clips_than_there_are_and_one_clip_tells_nothing() -> None:
    same = mean(np.array([1.0, 2.0, 4.0]))
    assert clips_needed([(same, same)]) == float("inf")
    assert np.isnan(clips_needed([(mean(np.ones(1)), mean(np.zeros(1)))]))
    assert clips_needed([(mean(np.ones(9)), mean(np.zeros(9)))]) == 6, "2 of 64 exchanges are the first below 0.05"


# In tables -----------------------------------------------------------------------------------------------------------


def of_many(shift: float, count: int = 40) -> Results:
    """Two systems of which the second's CU is lower by `shift` and its other columns equal."""
    results, rng = scored(count=count), np.random.default_rng(0)
    noise = {f"r{i}": rng.normal() for i in range(count)}
    rows = []
    for row in results.rows:
        value = row["value"]
        if row["metric"] == "cu":
            value = 5.0 + (row["method"] == "ovi") * (noise[row["id"]] - shift)
        elif row["metric"].startswith(("wer", "sync")) and value is not None:
            value = 1.0
        rows.append(dict(row, value=value))
    return replace(results, rows=rows)


def told(results: Results) -> tuple[list[str], Summary]:
    summary = summarise(results)
    return layout.told_apart(results, summary), summary


def test_systems_of_which_no_column_differs_are_not_distinguishable() -> None:
    results = of_many(0.1)
    [sentence], summary = told(results)
    assert sentence.startswith(
        "ours and ovi are not distinguishable: no column's difference survives (0.05, Holm over "
    )
    assert sentence in notes.notes(results, summary)["Told apart"] and "not distinguishable" in markdown(
        results, summary
    )
    cu = next(p for p in summary.pairs if (p.subset, p.column) == ("mean", "cu"))
    assert f"CU would tell them apart with {cu.needed:,.0f} clips, were it as seen" in sentence and cu.needed > 40


def test_systems_that_differ_say_in_which_columns() -> None:
    results = of_many(2.0)
    [sentence], summary = told(results)
    assert sentence == "ours and ovi differ in CU (0.05, Holm over 4 columns)."
    cu = next(p for p in summary.pairs if (p.subset, p.column) == ("mean", "cu"))
    assert cu.adjusted == pytest.approx(4 * cu.p) and cu.needed < 40


def test_a_difference_that_one_column_alone_would_show_may_not_survive_several() -> None:
    """Found by trying shifts: p lies between 0.05 / 4 and 0.05."""
    results = of_many(0.22)
    [sentence], summary = told(results)
    cu = next(p for p in summary.pairs if (p.subset, p.column) == ("mean", "cu"))
    assert cu.p < ALPHA < cu.adjusted and "not distinguishable" in sentence


def test_a_few_clips_can_tell_nothing_apart_and_the_table_says_so() -> None:
    [sentence], _ = told(scored())
    assert "fewer than 6 clips can tell nothing apart" in sentence
