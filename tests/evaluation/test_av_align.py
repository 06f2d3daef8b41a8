"""AV-Align: moments of sound and of motion, and how they are matched."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'ccl[eval]'")

from ccl.evaluation.film import Film  # noqa: E402
from ccl.evaluation.metrics import av_align  # noqa: E402
from ccl.evaluation.metrics.av_align import AVAlign, flow, overlap, peaks  # noqa: E402
from ccl.evaluation.metrics.base import Failed, Measured  # noqa: E402
from ccl.media import Clip  # noqa: E402

CLIPS = Path(os.environ.get("CCL_TEST_DATA", "none")) / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="CCL_TEST_DATA names no folder with clips")


def score(clip: Clip, metric: AVAlign | None = None) -> float:
    [result] = (metric or AVAlign()).score([clip])
    assert isinstance(result, Measured)
    return result.values["av_align"]


def texture(height: int = 64, width: int = 96) -> np.ndarray:
    """Soft noise, in which motion is seen everywhere."""
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) * 4 - 382


def moving(steps) -> np.ndarray:
    """A texture that moves to the right by so many pixels into each picture."""
    base = texture(64, 160)
    at = np.cumsum(steps).astype(int)
    return np.stack([np.clip(base[:, 60 - x : 156 - x], 0, 255) for x in at]).astype(np.uint8)


def nods(frames: int, at: tuple[int, ...]) -> np.ndarray:
    """A texture that jumps by two pixels, once to the right and once back, into the pictures of `at`."""
    steps = np.zeros(frames, int)
    steps[list(at)] = [2 if k % 2 == 0 else -2 for k in range(len(at))]
    return moving(steps)


def bursts(seconds: float, at: tuple[float, ...], rate: int = 44_100) -> np.ndarray:
    sound, rng = np.zeros(int(seconds * rate), np.float32), np.random.default_rng(1)
    for time in at:
        sound[int(time * rate) :][:2000] = rng.uniform(-1, 1, 2000) * np.linspace(1, 0, 2000)
    return sound


@pytest.mark.slow
@needs_clips
def test_a_real_clip_gets_the_published_codes_value():
    # 0.302 by MOVA's av_align_score.py; 125 pictures of 768 x 480 take 6 s
    assert score(Film.read(CLIPS / "versebench_syncnet_1.mp4").clip) == pytest.approx(0.302, abs=5e-4)


def test_jumps_on_the_beat_align_and_those_beside_do_not():
    at = (10, 20, 30, 40)
    video = nods(50, at)
    on_time = bursts(2, tuple(frame / 25 for frame in at))
    late = bursts(2, tuple(frame / 25 + 0.16 for frame in at))
    assert score(Clip(video, on_time, sample_rate=44_100)) == 1
    assert score(Clip(video, late, sample_rate=44_100)) == 0
    assert score(Clip(video, bursts(2, (0.4, 1.2)), sample_rate=44_100)) == 0.5


@pytest.mark.parametrize("case", ["still", "silent", "both"])
def test_nothing_that_moves_or_sounds_gives_zero(case):
    video = nods(50, (10, 30)) if case == "silent" else nods(50, ())
    sound = bursts(2, (0.4, 1.2)) if case == "still" else np.zeros(88_200, np.float32)
    assert score(Clip(video, sound, sample_rate=44_100)) == 0


def test_the_flow_is_the_mean_distance_moved_and_the_first_is_the_seconds():
    curve = flow(moving([0, 1, 0, 2, 0]))
    assert curve.shape == (5,) and curve[0] == curve[1]
    assert np.allclose(curve[1:], [1, 0, 2, 0], atol=0.15)


def test_smaller_pictures_tell_the_flow_in_pixels_of_their_own_size():
    steps = [0, 2, 0, 4, 0]
    assert np.allclose(flow(moving(steps), height=32), flow(moving(steps)), atol=0.35)
    # Never made larger; where arrays lie in memory decides how sums are vectorised.
    assert np.allclose(flow(moving(steps), height=200), flow(moving(steps)), rtol=1e-6, atol=1e-9)


def test_the_flow_is_that_of_a_naive_loop_with_any_number_of_threads():
    video = moving([0, 1, 3, 0])
    grey = [cv2.cvtColor(picture[..., ::-1], cv2.COLOR_BGR2GRAY) for picture in video]
    naive = [
        np.sqrt((cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0) ** 2).sum(-1)).mean()
        for a, b in zip(grey[:1] + grey[:-1], grey[1:2] + grey[1:], strict=True)
    ]
    before = cv2.getNumThreads()
    for threads in (None, 1, 2):
        assert np.allclose(flow(video, threads=threads), naive, rtol=1e-5)
    assert cv2.getNumThreads() == before


def test_peaks_are_strict_maxima_of_a_tenth_of_a_pixel():
    assert peaks(np.array([0.5, 0.2, 0.3, 0.2, 0.1, 0.1, 0.05, 0.09, 0.05, 0.4, 0.4, 0.2, 0.9])).tolist() == [2]
    assert peaks(np.array([0, 0.1, 0])).tolist() == [1]
    assert peaks(np.array([1.0])).tolist() == []


def naive_overlap(heard, seen, fps):
    used: set[int] = set()
    for time in heard:
        for i, other in enumerate(seen):
            if i not in used and abs(time - other) < 1 / fps:
                used.add(i)
                break
    union = len(heard) + len(seen) - len(used)
    return len(used) / union if union else 0


def test_matching_is_that_of_a_naive_loop():
    rng = np.random.default_rng(0)
    for _ in range(100):
        heard, seen = (np.sort(rng.random(rng.integers(0, 12)) * 0.7) for _ in range(2))
        assert overlap(heard, seen, 20.0) == naive_overlap(heard, seen, 20)


def test_one_motion_serves_one_onset_and_a_whole_picture_away_is_too_far():
    assert overlap(np.array([1.0, 1.01]), np.array([1.0]), 25.0) == 0.5
    assert overlap(np.array([1.0]), np.array([1.25]), 4.0) == 0
    assert overlap(np.array([1.0]), np.array([1.24]), 4.0) == 1


def test_what_cannot_be_scored_is_a_reason(monkeypatch):
    sound = bursts(1, (0.4,))
    assert AVAlign().score([Clip(nods(50, ()), None), Clip(None, sound), Clip(nods(1, ()), sound)]) == [
        Failed("no audio stream"),
        Failed("no video stream"),
        Failed("one picture alone has no motion"),
    ]
    assert AVAlign().missing() == ""
    monkeypatch.setattr(av_align, "find_spec", lambda name: None)
    assert "pip install 'ccl[eval]'" in AVAlign().missing()


def test_the_protocol_tells_of_smaller_pictures():
    assert AVAlign().protocol()["height"] == "native" and AVAlign(height=240).protocol()["height"] == 240
