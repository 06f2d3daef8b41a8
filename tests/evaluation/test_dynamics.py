"""Dynamic degree: known motion has its length, a still picture none, and VBench's rule decides; and A/V lengths."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ccl.evaluation.metrics import Dynamics, Lengths
from ccl.evaluation.metrics.base import Failed, Measured
from ccl.evaluation.metrics.dynamics import FPS, THRESHOLD, longest, moves
from ccl.media import Clip, read_natural, write_clip

pytest.importorskip("cv2", reason="needs the eval extra")
SIDE = 128


def texture(step: float, pictures: int = 9, fps: float = 8.0, side: int = SIDE) -> Clip:
    """A random landscape that moves by so many pixels a picture."""
    import cv2

    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (side, 4 * side)).astype(np.float32), (0, 0), side / 40)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    moved = [cv2.warpAffine(wide, np.float32([[1, 0, -step * i], [0, 1, 0]]), (side, side)) for i in range(pictures)]
    return Clip(np.repeat(np.stack(moved).round().astype(np.uint8)[..., None], 3, 3), None, fps)


def values(metric: Dynamics, *clips: Clip | Path) -> list[dict[str, float]]:
    results = metric.score(clips)
    assert all(isinstance(result, Measured) for result in results), results
    return [result.values for result in results if isinstance(result, Measured)]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_what_moves_by_a_known_step_has_its_length_in_pixels_of_256(step):
    assert longest(texture(step).video, SIDE).mean() == pytest.approx(step * 256 / SIDE, rel=0.15)


def test_length_is_the_same_at_another_size():
    large, small = longest(texture(4, side=256).video, 256), longest(texture(4, side=256).video, 128)
    assert small.mean() == pytest.approx(large.mean(), rel=0.1)


def test_a_still_picture_does_not_move_at_all_and_noise_always_does():
    still = Clip(np.repeat(texture(0).video[:1], 9, 0), None, 8.0)
    noise = Clip(np.random.default_rng(0).integers(0, 255, (9, SIDE, SIDE, 3), np.uint8), None, 8.0)
    frozen, wild, slow, fast = values(Dynamics(short=SIDE), still, noise, texture(1), texture(5))
    assert frozen["dynamic"] == 0 and frozen["motion"] < 1e-3
    assert wild["dynamic"] == fast["dynamic"] == 1 and slow["dynamic"] == 0
    assert slow["motion"] < fast["motion"]


def test_pictures_are_compared_at_eight_a_second():
    every, third = texture(1, 25, 25.0), Clip(texture(1, 25).video[::3], None, 25 / 3)
    assert values(Dynamics(short=SIDE), every) == values(Dynamics(short=SIDE), third)


@pytest.mark.parametrize("pictures", [2, 3, 9, 16, 41])
@pytest.mark.parametrize("fps", [4.0, 8.0, 25.0])
def test_the_rule_is_vbenchs_loop(pictures, fps):
    rng, seen = np.random.default_rng(pictures), set()
    for high in (2, 8, 9, 30):
        lengths = rng.uniform(0, high, pictures - 1)
        count, needed, moved = 0, max(1, round(4 * (pictures / 16.0))), False
        for length in lengths:
            count += length > max(1.0, 8.0 / fps) * 6.0
            moved = moved or count >= needed
        assert moves(lengths, fps) == moved
        seen.add(moved)
    assert seen or (THRESHOLD, FPS) == (6, 8)


def test_too_few_pictures_have_a_reason():
    assert Dynamics().score([texture(1, 1)]) == [Failed("one picture alone has no motion")]
    assert Dynamics().score([texture(1, 3, fps=25.0)]) == [Failed("its 3 pictures are too few to move")]
    with pytest.raises(ValueError, match="short is 8"):
        Dynamics(short=8)


def test_hands_at_work_move_more_than_a_talking_head_and_a_frozen_one_does_not():
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no real clips")
    clips = Path(data) / "clips"
    read = (read_natural(clips / f"{name}.mp4")[0] for name in ("versebench_syncnet_1", "condfoley_hitting_bag"))
    head, hands = (Clip(clip.video[:30], None, clip.fps) for clip in read)
    frozen = Clip(np.repeat(head.video[:1], 30, 0), None, head.fps)
    of_head, of_hands, of_frozen = (one["motion"] for one in values(Dynamics(short=64), head, hands, frozen))
    assert of_hands > of_head > 1 and of_frozen < 0.01


# Lengths -------------------------------------------------------------------------------------------------------------


def lengths(seconds: float) -> dict[str, float]:
    clip = Clip(np.zeros((50, 16, 16, 3), np.uint8), np.zeros(round(seconds * 16_000), np.float32), 25.0, 16_000)
    [result] = Lengths().score([clip])
    assert isinstance(result, Measured)
    return result.values


def test_lengths_differ_by_what_the_longer_stream_has_more():
    assert lengths(2.0) == {"av_length": 0, "av_surplus": 0}
    assert lengths(1.5) == {"av_length": 0.5, "av_surplus": -0.5}
    assert lengths(2.25) == {"av_length": 0.25, "av_surplus": 0.25}


def test_a_clip_of_one_stream_has_no_length_to_compare():
    mute, blind = Lengths().score(
        [Clip(np.zeros((9, 16, 16, 3), np.uint8), None), Clip(None, np.zeros(99, np.float32))]
    )
    assert mute == Failed("no audio stream") and blind == Failed("no video stream")


def test_a_written_file_has_the_lengths_it_was_given(tmp_path):
    sound = np.sin(np.arange(48_000) / 9).astype(np.float32)
    write_clip(Clip(texture(1, 50, 25.0).video, sound, 25.0, 16_000), file := tmp_path / "long.mp4")
    [result] = Lengths().score([file])
    assert isinstance(result, Measured) and result.values["av_surplus"] == pytest.approx(1.0, abs=0.064)
