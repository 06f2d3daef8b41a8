"""The mouth measure: finds mouths by colour, wherever they are, and counts what it cannot find as 0."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ccl.data.world import World, scene
from ccl.evaluation.film import Film
from ccl.evaluation.metrics import mouth
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.mouth import (
    Mouth,
    correlate,
    envelope,
    floor,
    found,
    lag,
    opening,
    p_value,
    shifted,
    shuffled,
    table,
)
from ccl.evaluation.tables.shuffling import derangement
from ccl.media import Clip

TEST = World(split="test")
MOUTH = Mouth()


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Clip]]:
    return {"easy": [TEST.clip(i) for i in range(50)], "hard": [TEST.clip(i) for i in range(100, 150)]}


@pytest.fixture(scope="module")
def every(clips) -> list[Clip]:
    return clips["easy"] + clips["hard"]


@pytest.fixture(scope="module")
def curves(every) -> list[np.ndarray]:
    return [opening(clip.video) for clip in every]


def score(clip: Clip) -> dict[str, float]:
    [result] = MOUTH.score([clip])
    assert isinstance(result, Measured)
    return result.values


def pairs(clips: list[Clip]) -> list[np.ndarray]:
    return [MOUTH.prepare(Film.of(clip)) for clip in clips]


def late(audio: np.ndarray, frames: int) -> np.ndarray:
    """The sound moved by so many frames of 640 samples, silence where nothing is left."""
    moved, by = np.zeros_like(audio), 640 * abs(frames)
    if frames >= 0:
        moved[by:] = audio[: len(audio) - by]
    else:
        moved[: len(audio) - by] = audio[by:]
    return moved


def heard(every: list[Clip], frames: int) -> list[np.ndarray]:
    """The envelope of each clip's sound, late by so many frames."""
    return [envelope(late(c.audio, frames), np.arange(len(c.video) + 1) / c.fps, c.sample_rate) for c in every]


def painted(areas, size: int = 32, at=(4, 4)) -> np.ndarray:
    """Grey pictures with a mouth-coloured block of so many rows of six pixels."""
    video = np.full((len(areas), size, size, 3), 128, np.uint8)
    for frame, rows in zip(video, areas, strict=True):
        frame[at[0] : at[0] + rows, at[1] : at[1] + 6] = mouth.MOUTH
    return video


def test_the_mouths_colour_is_the_one_the_world_paints():
    assert mouth.MOUTH == scene.MOUTH


def test_nothing_else_in_the_world_has_the_mouths_hue():
    palette = [scene.SKIN, scene.DARK, scene.TROUSERS, *scene.COLOURS.values(), *map(scene.wall, scene.COLOURS)]
    for colour in palette:
        assert opening(np.full((1, 4, 4, 3), colour, np.uint8))[0] == 0
    for index in range(60):
        if World().subset(index) == "event":
            assert opening(World().clip(index).video).max() == 0


@pytest.mark.parametrize("subset", ["easy", "hard"])
def test_true_clips_score_high_and_shuffled_ones_low(clips, subset):
    some = clips[subset][:12]
    scores = [score(clip) for clip in some]
    assert np.mean([values["mouth"] for values in scores]) > 0.85
    assert all(values["mouth_found"] == 1 for values in scores)
    assert floor(pairs(some)) < 0.45
    assert p_value(pairs(some), rounds=500) < 0.01


def test_moving_the_sound_lowers_the_measure_step_by_step(every, curves):
    def mean(frames):
        return np.mean([correlate(*pair) for pair in zip(curves, heard(every, frames), strict=True)])

    values = {k: mean(k) for k in range(-9, 10)}
    for way in (1, -1):
        steps = [values[way * k] for k in range(4)]
        assert all(before > after + 0.03 for before, after in pairwise(steps)), steps
        assert all(values[way * k] < min(values[1], values[-1]) - 0.1 for k in range(2, 10))


@pytest.mark.parametrize("frames", [-7, -3, -1, 0, 1, 2, 5])
def test_the_lag_is_the_shift_of_the_sound_positive_where_it_is_late(every, curves, frames):
    found_lags = [lag(*pair) for pair in zip(curves, heard(every, frames), strict=True)]
    assert np.mean([found_lag == frames for found_lag in found_lags]) >= 0.95


def test_the_lag_of_a_late_copy_of_the_curve_is_exact():
    curve = np.random.default_rng(0).random(60)
    for frames in range(-mouth.FURTHEST, mouth.FURTHEST + 1):
        moved = np.roll(curve, frames)
        assert lag(curve, moved) == frames
        assert shifted(curve, moved, frames) == pytest.approx(1)
    assert lag(curve, np.zeros(60)) == 0 and lag(curve[:1], curve[:1]) == 0


def test_silence_counts_zero_and_foreign_sound_is_at_chance(every, curves):
    assert all(score(replace(clip, audio=np.zeros_like(clip.audio)))["mouth"] == 0 for clip in every[:10])
    features = [np.stack(pair) for pair in zip(curves, heard(every, 0), strict=True)]
    true, foreign = np.mean([correlate(*pair) for pair in features]), np.mean(shuffled(features, seed=5))
    assert abs(foreign - floor(features)) < 0.1 and foreign < true - 0.4


def test_a_set_of_clips_has_its_floor_and_chance(clips):
    features = pairs(clips["easy"][:12])
    assert MOUTH.pool(features) == {"shuffled": floor(features), "p": p_value(features)}
    assert MOUTH.pool(features[:1]) == {} == MOUTH.pool([])
    [result] = MOUTH.score(clips["easy"][:1])
    assert np.array_equal(result.feature, features[0])


def test_opening_is_the_share_of_mouth_pixels_wherever_they_are():
    areas = [1, 3, 5, 2]
    here, there = opening(painted(areas)), opening(painted(areas, at=(20, 22)))
    assert np.allclose(here, np.array(areas) * 6 / 32**2)
    assert np.allclose(here, there)


def test_opening_keeps_its_curve_under_blur(clips):
    for clip in clips["easy"][:3] + clips["hard"][:3]:
        soft = clip.video.astype(float)
        for axis in (1, 2):
            soft = (np.roll(soft, 1, axis) + 2 * soft + np.roll(soft, -1, axis)) / 4
        assert np.corrcoef(opening(clip.video), opening(soft.astype(np.uint8)))[0, 1] > 0.95


def test_a_real_mp4_keeps_the_score(clips, tmp_path):
    from ccl.media import read_clip, write_clip

    for clip in (clips["easy"][0], clips["hard"][0]):
        write_clip(clip, tmp_path / "clip.mp4")
        values = score(read_clip(tmp_path / "clip.mp4"))
        assert values["mouth_found"] == 1 and values["mouth"] > score(clip)["mouth"] - 0.08
        assert score(tmp_path / "clip.mp4")["mouth"] == pytest.approx(values["mouth"], abs=0.01)


def test_the_envelope_is_the_loudness_of_each_frame():
    audio = np.zeros(16_000, np.float32)
    audio[6400:12800] = np.sin(np.arange(6400))
    curve = envelope(audio, np.arange(26) / 25, 16_000)
    assert curve.shape == (25,) and np.allclose(curve[:9], 0) and np.allclose(curve[21:], 0)
    assert np.allclose(curve[11:19], (0.5**0.5) ** 0.5, atol=0.01)


def test_sound_shorter_than_the_pictures_counts_as_silence():
    curve = envelope(np.ones(640, np.float32), np.arange(11) / 25, 16_000)
    assert curve.shape == (10,) and np.allclose(curve[2:], 0)


@pytest.mark.parametrize("case", ["no mouth", "mouth that never moves", "mute", "steady sound", "mouth of two pixels"])
def test_what_cannot_move_together_counts_as_zero(case):
    moving, noisy = painted([1, 3, 5, 2] * 6), np.zeros(24 * 640, np.float32)
    noisy[3000:9000] = 0.5
    video = {
        "no mouth": np.full_like(moving, 128),
        "mouth that never moves": painted([3] * 24),
        "mouth of two pixels": painted([1] * 24)[:, :, :6].repeat(20, 2),
    }.get(case, moving)
    if case == "mouth of two pixels":
        video = np.full((24, 64, 64, 3), 128, np.uint8)
        video[::2, 5, 5:7] = mouth.MOUTH
    audio = {"mute": np.zeros_like(noisy), "steady sound": np.ones_like(noisy)}.get(case, noisy)
    values = score(Clip(video, audio))
    assert values["mouth"] == 0
    assert set(values) == {"mouth", "mouth_found"}  # nothing moves together, so there is no lag
    assert values["mouth_found"] == (0 if case in ("no mouth", "mouth of two pixels") else 1)


def test_noise_pictures_score_near_zero():
    rng = np.random.default_rng(0)
    clip = TEST.clip(0)
    noise = rng.integers(0, 256, clip.video.shape, np.uint8)
    assert abs(score(replace(clip, video=noise))["mouth"]) < 0.35


def test_a_missing_stream_is_a_reason():
    results = MOUTH.score([Clip(painted([1, 2]), None), Clip(None, np.zeros(9, np.float32))])
    assert results == [Failed("no audio stream"), Failed("no video stream")]


def test_torchmetrics_sees_the_means_and_the_clips_that_failed(clips):
    metric = Mouth()
    metric.update([*clips["easy"][:3], Clip(None, np.zeros(9, np.float32))])
    values = metric.compute()
    assert values["mouth"] == pytest.approx(np.mean([score(clip)["mouth"] for clip in clips["easy"][:3]]))
    assert values["scored"] == 3 and values["failed"] == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (48, 48), (90, 160)])
def test_the_opening_is_the_naive_one_however_the_pictures_lie_in_memory(size):
    red, green, blue = mouth.MOUTH
    full = min(red, blue) - green

    def naive(picture: np.ndarray) -> float:
        excess = [min(min(r, b) - g, full) for r, g, b in picture.reshape(-1, 3).tolist()]
        return sum(x for x in excess if x > int(0.15 * full)) / (full * len(excess))

    video = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    video.flags.writeable = False
    planes = np.moveaxis(np.ascontiguousarray(np.moveaxis(video, -1, 1)), 1, -1)  # as decoders of planes give them
    for pictures in (video, video[:, ::-1], video[:, :, ::2], planes):
        assert opening(pictures) == pytest.approx([naive(picture) for picture in pictures], rel=1e-12)
    assert opening(video[:0]).shape == (0,)


def test_correlation_of_equal_curves_is_one():
    curve = np.array([0.01, 0.2, 0.05, 0.3])
    assert correlate(curve, 3 * curve + 1) == pytest.approx(1)
    assert found(curve) and not found(curve / 1000) and not found(np.zeros(0))


@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_a_derangement_moves_everything(count):
    for seed in range(5):
        partner = derangement(count, seed)
        assert sorted(partner) == list(range(count)) and not (partner == np.arange(count)).any()


def test_one_clip_cannot_be_shuffled():
    with pytest.raises(ValueError, match="two clips at least, not 1"):
        derangement(1)


def test_the_table_of_pairs_is_that_of_a_naive_loop(clips):
    features = pairs(clips["easy"][:5])
    features.append(np.stack([features[0][0], np.zeros(features[0].shape[1])]))  # mute
    features.append(features[0] / 1000)  # no mouth
    features.append(features[1][:, :40])
    naive = [[correlate(one[0, :40], other[1, :40]) for other in features] for one in features]
    assert np.allclose(table(features), naive)


def test_shuffled_pairs_are_those_of_a_naive_loop(clips):
    some = clips["easy"][:5]
    partner = derangement(5, 3)
    naive = [score(replace(clip, audio=some[partner[i]].audio))["mouth"] for i, clip in enumerate(some)]
    assert np.allclose(shuffled(pairs(some), 3), naive)


def test_the_p_value_of_pairs_without_relation_is_not_small(clips):
    some = clips["easy"][:12]
    partner = derangement(len(some), 1)
    wrong = [replace(clip, audio=some[partner[i]].audio) for i, clip in enumerate(some)]
    assert p_value(pairs(wrong), rounds=300) > 0.05
