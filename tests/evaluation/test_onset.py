"""Onsets as librosa finds them, and the accuracy and precision of CondFoleyGen's rule."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ccl.evaluation.dsp.onset import onsets, peak_pick, strength
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.onset import (
    NEAR,
    SAMPLE_RATE,
    Onset,
    average_precision,
    confidences,
    match,
    suppress,
)
from ccl.media import Clip, write_wav
from ccl.rows import Row
from helpers import TESTS

GOLDEN = json.loads((TESTS / "golden/onset.json").read_text())
CLIPS = Path(os.environ.get("CCL_TEST_DATA", "none")) / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="CCL_TEST_DATA names no folder with clips")


def strikes(sample_rate: int, seconds: float = 3.0) -> np.ndarray:
    """Eight struck bars over a hum; two pairs stand close together."""
    t = np.arange(int(sample_rate * seconds)) / sample_rate
    sound = np.zeros_like(t)
    for k, at in enumerate((0.02, 0.31, 0.36, 0.9, 1.4, 1.43, 2.2, 2.75)):
        since = np.maximum(t - at, 0)
        bar = np.exp(-12 * since) * np.sin(2 * np.pi * (300 + 170 * k) * since)
        sound += bar * (t >= at) * (0.9 if k % 2 else 0.35)
    return (sound / 4 + 0.002 * np.sin(2 * np.pi * 50 * t)).astype(np.float32)


def clicks(times, seconds: float = 3.0, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Noise bursts of 100 ms that fade, each a little quieter than the one before."""
    sound, rng = np.zeros(int(seconds * sample_rate), np.float32), np.random.default_rng(0)
    for k, time in enumerate(times):
        burst = rng.uniform(-1, 1, sample_rate // 10) * np.linspace(1, 0, sample_rate // 10) * (0.9 - 0.1 * k)
        at = int(time * sample_rate)
        sound[at : at + len(burst)] += burst.astype(np.float32)
    return sound


# Onsets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [22_050, 44_100, 16_000])
def test_strength_and_onsets_are_librosas(rate):
    golden, sound = GOLDEN[str(rate)], strikes(rate)
    assert np.allclose(strength(sound, rate)[::9], golden["strength"], atol=1e-3)
    for delta in ("0.07", "0.3"):
        assert onsets(sound, rate, float(delta)).tolist() == golden[delta]


@needs_clips
@pytest.mark.parametrize(
    "name, times",
    [
        ("condfoley_hitting_metal", [0.16, 0.93, 1.7, 2.46, 3.23, 3.97, 4.69, 5.46]),
        ("condfoley_hitting_bag", [0.12, 0.93, 1.7, 2.48, 3.23, 4.02, 4.81, 5.55]),
    ],
)
def test_hits_of_real_clips_are_found_where_librosa_finds_them(name, times):
    sound = Film.read(CLIPS / f"{name}.mp4").sound(SAMPLE_RATE)
    assert np.round(onsets(sound, SAMPLE_RATE, delta=0.3) / SAMPLE_RATE, 2).tolist() == times


def naive_peaks(x, pre_max, post_max, pre_avg, post_avg, delta, wait):
    """Every frame by itself, with the three conditions as librosa's documentation states them."""
    found, last = [], -(10**9)
    for n in range(len(x)):
        largest = max(x[m] for m in range(len(x)) if n - pre_max <= m < n + post_max)
        around = [x[m] for m in range(len(x)) if n - pre_avg <= m < n + post_avg]
        if x[n] == largest and x[n] >= sum(around) / len(around) + delta and n - last > wait:
            found.append(n)
            last = n
    return found


def test_peaks_are_those_of_a_naive_picker():
    rng = np.random.default_rng(0)
    for _ in range(60):
        curve = rng.random(rng.integers(1, 40)).round(1)
        keys = ("pre_max", "post_max", "pre_avg", "post_avg", "wait")
        settings = dict(zip(keys, rng.integers([0, 1, 0, 1, 0], 5).tolist(), strict=True))
        settings["delta"] = float(rng.random() / 4)
        assert peak_pick(curve, **settings).tolist() == naive_peaks(curve, **settings)


@pytest.mark.parametrize("sound", [np.zeros(0), np.zeros(22_050), np.zeros(100), np.ones(5)])
def test_silence_and_scraps_have_no_onsets(sound):
    assert onsets(sound.astype(np.float32), SAMPLE_RATE).tolist() == []


# Accuracy and precision -----------------------------------------------------------------------------------------------


def naive_precision(labels, scores):
    """The area under the steps: at each distinct score, precision times the recall gained."""
    total, last = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        recall = sum(taken) / sum(labels)
        total += (recall - last) * sum(taken) / len(taken)
        last = recall
    return total


def test_average_precision_is_that_of_a_naive_loop():
    rng = np.random.default_rng(1)
    for _ in range(100):
        labels = [1, *rng.integers(0, 2, rng.integers(0, 12)).tolist()]
        scores = rng.integers(0, 5, len(labels)).astype(float).tolist()  # many are equal
        assert average_precision(labels, scores) == pytest.approx(naive_precision(labels, scores))
    assert average_precision([], []) == 0 == average_precision([0, 0], [0.5, 0.1])
    assert average_precision([1, 0, 1], [0.9, 0.5, 0.1], positives=4) == pytest.approx((1 + 2 / 3) / 4)
    # sklearn.metrics.average_precision_score of its documentation's example
    assert average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx(0.8333333)


def test_each_true_onset_takes_the_highest_free_one_within_reach():
    found, height, confidence = np.array([95, 105, 900]), np.array([0.2, 0.9, 0.5]), np.array([0.3, 0.95, 0.6])
    met = match(np.array([100, 110, 500]), found, height, confidence, 50.0)
    assert met == ([0.95, 0.3], [0.6], 1)


def test_reach_ends_before_the_tolerance():
    one = np.ones(1)
    assert match(np.array([100]), np.array([150]), one, one, 50.0) == ([], [1.0], 1)
    assert match(np.array([100]), np.array([149]), one, one, 50.0) == ([1.0], [], 0)


def test_true_onsets_after_the_last_match_are_not_counted_as_published():
    one = np.ones(1)
    assert match(np.array([100, 900]), np.array([100]), one, one, 50.0) == ([1.0], [], 0)
    assert match(np.array([900, 100]), np.array([100]), one, one, 50.0) == ([1.0], [], 1)


def test_suppression_spares_the_later_of_two_neighbours_as_published():
    at, strong = np.array([1000, 2024, 3048]), np.array([0.5, 0.9, 0.6])
    assert suppress(at, strong)[0].tolist() == [2024, 3048]
    assert suppress(at[:2], strong[:2])[0].tolist() == [2024]
    kept, confidence = suppress(np.array([0, 5000]), np.array([0.1, 0.2]))
    assert kept.tolist() == [0, 5000] and confidence.tolist() == [0.1, 0.2]


def test_confidence_is_the_largest_amplitude_around_also_at_the_edges():
    sound = np.zeros(9000, np.float32)
    sound[[0, 4000]] = -0.25, 0.5
    assert confidences(sound, np.array([512, 4000 + NEAR, 4001 + NEAR, 8990])).tolist() == [0.5, 1, 0, 0]


def score(tmp_path: Path, sound: np.ndarray, true: np.ndarray, metric: Onset | None = None) -> dict[str, float]:
    write_wav(tmp_path / "true.wav", true, SAMPLE_RATE)
    clip = Clip(None, sound, sample_rate=SAMPLE_RATE)
    [result] = (metric or Onset()).score([Film(clip, Row("a", reference=str(tmp_path / "true.wav")))])
    assert isinstance(result, Measured)
    return result.values


def test_the_true_sound_is_perfect_and_a_late_one_is_not(tmp_path):
    times = (0.4, 1.0, 1.5, 2.2)
    true = clicks(times)
    assert score(tmp_path, true, true) == {"onset_acc": 1.0, "onset_ap": 1.0}
    assert score(tmp_path, clicks([t + 0.05 for t in times]), true) == {"onset_acc": 1.0, "onset_ap": 1.0}
    assert score(tmp_path, clicks([t + 0.2 for t in times]), true) == {"onset_acc": 0.0, "onset_ap": pytest.approx(0.5)}
    half = score(tmp_path, clicks((times[0], times[1] + 0.25, times[2], times[3] + 0.25)), true)
    assert half["onset_acc"] == 0.5 and half["onset_ap"] < 1


def test_silence_is_all_misses(tmp_path):
    true = clicks((0.4, 1.0))
    assert score(tmp_path, np.zeros_like(true), true) == {"onset_acc": 0.0, "onset_ap": 1.0}  # as published
    assert score(tmp_path, np.zeros_like(true), true, Onset("detection")) == {"onset_acc": 0.0, "onset_ap": 0.0}
    assert score(tmp_path, true, true, Onset("detection")) == {"onset_acc": 1.0, "onset_ap": 1.0}
    assert score(tmp_path, clicks((0.4,)), true, Onset("detection")) == {"onset_acc": 0.5, "onset_ap": 0.5}


def test_a_longer_reference_is_cut(tmp_path):
    true = clicks((0.4, 1.0, 1.5, 2.2))
    assert score(tmp_path, true[: int(1.3 * SAMPLE_RATE)], true)["onset_acc"] == 1


def test_a_reference_without_onsets_gives_zero(tmp_path):
    assert score(tmp_path, clicks((0.5,)), np.zeros(SAMPLE_RATE * 3, np.float32)) == {"onset_acc": 0, "onset_ap": 0}


def test_what_cannot_be_compared_is_a_reason(tmp_path):
    sound = Clip(None, clicks((0.5,)), sample_rate=SAMPLE_RATE)
    mute = Clip(np.zeros((3, 8, 8, 3), np.uint8), None)
    gone = Row("a", reference=str(tmp_path / "gone.wav"))
    films = [Film(sound), Film(sound, gone), Film(mute, gone)]
    assert Onset().score(films) == [
        Failed("no reference clip to compare its onsets with"),
        Failed("its reference clip: no such file"),
        Failed("no audio stream"),
    ]
