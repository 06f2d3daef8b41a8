"""Statistics over clips and seeds: against scipy, numbers worked out by hand, and truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ccl.evaluation.tables import statistics
from ccl.evaluation.tables.statistics import Ratio, by_seed, compare, deviation, exchange_p, interval


def ones(values) -> Ratio:
    values = np.asarray(values, float)
    return Ratio(values, np.ones_like(values))


def test_a_rate_over_seeds_is_the_mean_of_ratios_of_sums():
    errors, words = np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[2.0, 8.0], [2.0, 8.0]])
    rate = Ratio(errors, words)
    assert rate.seeds.tolist() == [0.4, 0.2] and rate.value == pytest.approx(0.3)  # of clips' ratios it is 0.28
    assert deviation(rate.seeds) == pytest.approx(0.2 / 2**0.5)


def test_differences_are_of_the_same_seeds_and_of_sums():
    a = Ratio(np.array([[1.0, 3.0], [0.0, 2.0]]), np.array([[2.0, 8.0], [2.0, 8.0]]))
    b = Ratio(np.array([[0.0, 3.0], [1.0, 4.0]]), np.array([[2.0, 8.0], [2.0, 8.0]]))
    assert by_seed([(a, b)]) == pytest.approx([0.1, -0.3])
    assert compare([(a, b)], "x")[0] == pytest.approx(-0.1)


def test_a_seed_alone_is_as_none():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 40), rng.normal(0, 1, 40)
    assert compare([(ones(a), ones(b))], "x") == pytest.approx(compare([(ones(a[None]), ones(b[None]))], "x"))
    assert interval([ones(a)], "x") == pytest.approx(interval([ones(a[None])], "x"))


def test_of_clips_alone_the_interval_is_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.6, 0.3, 80), rng.normal(0.5, 0.3, 80)
    _, low, high, _, _ = compare([(ones(a), ones(b))], "x")
    found = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.006)  # of a width of 0.19


def test_of_a_corpus_rate_the_interval_is_scipys():
    rng = np.random.default_rng(3)
    words = rng.integers(3, 12, 60).astype(float)
    errors = [rng.binomial(words.astype(int), p).astype(float) for p in (0.4, 0.3)]

    def difference(a, b, words, axis=-1):
        return a.sum(axis) / words.sum(axis) - b.sum(axis) / words.sum(axis)

    rng = np.random.default_rng(4)
    found = stats.bootstrap((*errors, words), difference, paired=True, method="percentile", n_resamples=20_000, rng=rng)
    _, low, high, _, _ = compare([(Ratio(errors[0], words), Ratio(errors[1], words))], "x")
    assert (low, high) == pytest.approx((found.confidence_interval.low, found.confidence_interval.high), abs=0.005)


def test_where_seeds_alone_vary_the_interval_is_students():
    seeds = np.array([0.10, 0.17, 0.12])
    a, b = np.repeat(seeds[:, None], 20, axis=1), np.zeros((3, 20))
    difference, low, high, _, _ = compare([(ones(a), ones(b))], "x")
    found = stats.t.interval(0.95, 2, loc=seeds.mean(), scale=seeds.std(ddof=1) / 3**0.5)
    assert difference == pytest.approx(seeds.mean()) and (low, high) == pytest.approx(found, rel=0.02)


def test_p_is_scipys_of_clips_exchanged_with_all_their_seeds():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, (3, 10)), rng.normal(0, 1, (3, 10))

    def mean(x, y, axis=-1):
        return np.mean(x - y, axis=axis)

    found = stats.permutation_test((a.mean(0), b.mean(0)), mean, permutation_type="samples", n_resamples=np.inf)
    assert exchange_p([(ones(a), ones(b))], "x") == pytest.approx(found.pvalue)


def test_p_of_many_clips_is_scipys_within_its_draws_and_near_wilcoxons():
    rng = np.random.default_rng(6)
    a = rng.normal(0.25, 1, 120)
    p = exchange_p([(ones(a), ones(np.zeros(120)))], "x")
    found = stats.permutation_test((a,), np.mean, permutation_type="samples", n_resamples=10_000, rng=7).pvalue
    assert p == pytest.approx(found, abs=0.006)
    assert p == pytest.approx(stats.wilcoxon(a).pvalue, abs=0.02) and 0.0005 < p < 0.05


def test_a_clip_that_one_seed_lacks_is_no_clip_of_the_method():
    ratio = ones([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    assert ratio.there.tolist() == [True, False, True] and ratio[ratio.there].value == 2.0 and len(ratio) == 3


def made(rng, seed_sd: float, clip_sd: float = 1.0, noise: float = 1.0, seeds: int = 3, clips: int = 60) -> Ratio:
    """Differences whose truth is 0: of the seeds, of the clips, and of both."""
    shared = rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, clip_sd, clips)
    return ones(shared + rng.normal(0, noise, (seeds, clips)))


@pytest.mark.parametrize("seed_sd", [0.0, 2.0])
def test_intervals_hold_the_truth_however_much_of_it_is_the_seeds(seed_sd):
    rng = np.random.default_rng(8)
    none, hits, naive = ones(np.zeros((3, 60))), 0, 0
    weights = statistics.draws("x 0", 60, 500)
    for _ in range(200):
        one = made(rng, seed_sd)
        _, low, high, _, _ = compare([(one, none)], "x", 500, flips=1)
        hits += low <= 0 <= high
        resampled = np.take_along_axis(weights @ one.top.T / 60, rng.integers(0, 3, (500, 3)), 1).mean(1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        naive += low <= 0 <= high
    assert hits / 200 >= 0.92, "never less than it says, but for the 200 draws"
    assert naive / 200 < 0.85 or seed_sd < 2, "which seeds resampled would be"
