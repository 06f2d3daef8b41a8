"""What a browser makes of a file: shown or not, how long, how loud it is when."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest

from ccl.media import Clip, MediaError, look, write_clip
from ccl.media.browser import loudness
from helpers.tiny_clips import tiny_clip


def test_loudness_is_the_highest_sample_of_each_part_of_the_time(tmp_path):
    audio = np.zeros(32_000, np.float32)
    audio[8_000:8_160] = 0.8  # the whole of part 50 of 200
    write_clip(Clip(None, audio, sample_rate=16_000), tmp_path / "a.wav")
    found = look(tmp_path / "a.wav")
    assert found.seconds == 2 and found.strange == ""
    assert found.loudness.shape == (200,) and np.flatnonzero(found.loudness > 0.01).tolist() == [50]
    assert found.loudness[50] == pytest.approx(0.8, abs=1e-3)


def test_sound_that_ends_early_is_silent_to_the_end_of_the_pictures(tmp_path):
    clip = tiny_clip(seconds=2)
    write_clip(replace(clip, audio=clip.audio[: len(clip.audio) // 2]), tmp_path / "a.mp4")
    found = look(tmp_path / "a.mp4")
    assert found.seconds == pytest.approx(2) and found.loudness[:90].any() and not found.loudness[115:].any()


def test_samples_that_are_no_numbers_are_shown_as_silence():
    sound = np.full(2000, 0.5, np.float32)
    sound[:995], sound[1000] = np.nan, np.inf
    found = loudness(sound, 2000.0)
    assert not found[:99].any() and found[99] == 0.5 and found[100] == 1 and (found[101:] == 0.5).all()


def test_a_silent_film_has_no_loudness_and_what_is_no_film_is_refused(tmp_path):
    write_clip(replace(tiny_clip(), audio=None), tmp_path / "a.mp4")
    assert look(tmp_path / "a.mp4").loudness.size == 0 and look(tmp_path / "a.mp4").strange == ""
    (tmp_path / "b.mp4").write_bytes(b"no film")
    with pytest.raises(MediaError, match="corrupt"):
        look(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("file", "codec", "pixels", "strange"),
    [
        ("a.mp4", "libx264", "yuv420p", ""),
        ("a.mov", "libx264", "yuv420p", ""),
        ("a.mp4", "libx264", "yuv444p", "h264 of yuv444p"),
        ("a.mkv", "libx264", "yuv420p", "h264 in mkv"),
        ("a.webm", "libvpx-vp9", "yuv420p", ""),
        ("a.mp4", "libsvtav1", "yuv420p", "av1"),
        ("a.mp4", "mpeg4", "yuv420p", "mpeg4"),
    ],
)
def test_what_browsers_do_not_show_is_named(tmp_path, file, codec, pixels, strange):
    with av.open(str(tmp_path / file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, pixels
        for picture in tiny_clip().video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert look(tmp_path / file).strange == strange
