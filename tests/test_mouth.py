"""The mouth measure: finds mouths by colour, wherever they are, and counts what it cannot find as 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ccl.data.world import World, scene
from ccl.evaluation.metrics import Mouth, mouth
from ccl.evaluation.metrics.mouth import correlate, derangement, envelope, floor, found, opening, p_value, shuffled
from ccl.types import Clip

TEST = World(split="test")
MOUTH = Mouth()


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Clip]]:
    return {"easy": [TEST.clip(i) for i in range(12)], "hard": [TEST.clip(i) for i in range(100, 112)]}


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
    scores = [MOUTH.score(clip) for clip in clips[subset]]
    assert np.mean([score["mouth"] for score in scores]) > 0.85
    assert all(score["mouth_found"] == 1 for score in scores)
    assert floor(clips[subset]) < 0.45
    assert p_value(clips[subset], rounds=500) < 0.01


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
        score = MOUTH.score(read_clip(tmp_path / "clip.mp4"))
        assert score["mouth_found"] == 1 and score["mouth"] > MOUTH.score(clip)["mouth"] - 0.08


def test_the_envelope_is_the_loudness_of_each_frame():
    audio = np.zeros(16_000, np.float32)
    audio[6400:12800] = np.sin(np.arange(6400))
    curve = envelope(audio, 25, 25.0, 16_000)
    assert curve.shape == (25,) and np.allclose(curve[:9], 0) and np.allclose(curve[21:], 0)
    assert np.allclose(curve[11:19], (0.5**0.5) ** 0.5, atol=0.01)


def test_sound_shorter_than_the_pictures_counts_as_silence():
    curve = envelope(np.ones(640, np.float32), 10, 25.0, 16_000)
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
    score = MOUTH.score(Clip(video, audio))
    assert score["mouth"] == 0
    assert set(score) == set(MOUTH.columns)
    assert score["mouth_found"] == (0 if case in ("no mouth", "mouth of two pixels") else 1)


def test_noise_pictures_score_near_zero():
    rng = np.random.default_rng(0)
    clip = TEST.clip(0)
    noise = rng.integers(0, 256, clip.video.shape, np.uint8)
    assert abs(MOUTH.score(replace(clip, video=noise))["mouth"]) < 0.35


def test_a_missing_stream_is_an_error_that_names_the_clip():
    with pytest.raises(ValueError, match="clip x has no sound"):
        MOUTH.score(Clip(painted([1, 2]), None, id="x"))
    with pytest.raises(ValueError, match="clip y has no pictures"):
        MOUTH.score(Clip(None, np.zeros(9, np.float32), id="y"))


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


def test_shuffled_pairs_are_those_of_a_naive_loop(clips):
    some = clips["easy"][:5]
    partner = derangement(5, 3)
    naive = [MOUTH.score(replace(clip, audio=some[partner[i]].audio))["mouth"] for i, clip in enumerate(some)]
    assert np.allclose(shuffled(some, 3), naive)


def test_the_p_value_of_pairs_without_relation_is_not_small(clips):
    some = clips["easy"]
    partner = derangement(len(some), 1)
    wrong = [replace(clip, audio=some[partner[i]].audio) for i, clip in enumerate(some)]
    assert p_value(wrong, rounds=300) > 0.05
