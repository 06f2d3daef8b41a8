"""Clips for browsers: the same pictures and sound, of codecs that all of them play, and no word of who made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from ccl.media import MediaError, is_shown, read_natural, write_clip, write_encoded, write_shown
from helpers.films import DATA, film, sound, tone
from helpers.tiny_clips import tiny_clip

SECRET = "secretsystem"


def planted(path: Path, *, codec: str = "libx264", layout: str = "stereo", **options: str) -> Path:
    """A film that says SECRET wherever its maker can write: in tags of the container and of its streams."""
    with av.open(str(path), "w") as container:
        container.metadata.update(title=SECRET, comment=SECRET, artist=SECRET)
        video = container.add_stream(codec, rate=25, options={"x264-params": "bframes=2", **options})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=48_000, layout=layout)
        for stream in (video, audio):
            stream.metadata.update(title=SECRET, handler_name=SECRET)
        for index in range(20):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 12 * index, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        heard = np.stack([tone(400, 0.8), tone(900, 0.8)]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(heard, format="fltp", layout=layout)
        frame.sample_rate = 48_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def codecs(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [stream.codec_context.name for stream in container.streams]


def same(one: Path, other: Path) -> None:
    a, b = read_natural(one)[0], read_natural(other)[0]
    for key in ("video", "audio", "times"):
        assert np.array_equal(getattr(a, key), getattr(b, key)), key
    assert (a.fps, a.sample_rate) == (b.fps, b.sample_rate)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_what_browsers_play_is_copied_as_it_is(suffix: str, tmp_path: Path) -> None:
    source, target = planted(tmp_path / f"clip{suffix}"), tmp_path / "shown.mp4"
    assert is_shown(source)
    write_shown(source, target)
    same(source, target)
    with av.open(str(target)) as container:
        assert container.streams.audio[0].layout.name == "stereo"


@pytest.mark.skipif(not (DATA / "clips").is_dir(), reason="CCL_TEST_DATA names no folder with clips")
def test_clips_of_the_field_are_copied_as_they_are(tmp_path: Path) -> None:
    for name in ("condfoley_hitting_bag", "versebench_419"):
        assert is_shown(DATA / "clips" / f"{name}.mp4")
        write_shown(DATA / "clips" / f"{name}.mp4", tmp_path / "shown.mp4")
        same(DATA / "clips" / f"{name}.mp4", tmp_path / "shown.mp4")


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_nothing_says_who_made_it(codec: str, tmp_path: Path) -> None:
    source, target = planted(tmp_path / "clip.mp4", codec=codec), tmp_path / "shown.mp4"
    before = source.read_bytes()
    assert SECRET.encode() in before and b"x26" in before
    write_shown(source, target)
    assert SECRET.encode() not in target.read_bytes()
    if codec == "libx264":  # the copy has lost the encoder's notes; what we encode says our own
        assert b"x264" not in target.read_bytes()


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_what_some_browser_cannot_play_is_converted(pixels: str, tmp_path: Path) -> None:
    source, target = tmp_path / "clip.mkv", tmp_path / "shown.mp4"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, pixels
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * index, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    assert not is_shown(source)
    write_shown(source, target)
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    a, b = read_natural(source)[0].video, read_natural(target)[0].video
    assert np.abs(a.astype(int) - b).mean() < 3


def test_hevc_keeps_its_times_and_its_sound(tmp_path: Path) -> None:
    source, target = planted(tmp_path / "clip.mp4", codec="libx265", layout="stereo"), tmp_path / "shown.mp4"
    assert not is_shown(source)
    write_shown(source, target)
    assert codecs(target) == ["h264", "aac"]
    a, b = read_natural(source)[0], read_natural(target)[0]
    assert np.allclose(a.times, b.times, atol=1e-3) and abs(len(a.audio) - len(b.audio)) <= 1024
    length = min(len(a.audio), len(b.audio))
    assert np.corrcoef(a.audio[:length], b.audio[:length])[0, 1] > 0.98


def test_odd_sizes_and_sounds_alone_are_converted(tmp_path: Path) -> None:
    odd = film(tmp_path / "odd.mkv")
    write_shown(odd, tmp_path / "a.mp4")
    assert read_natural(tmp_path / "a.mp4")[0].video.shape[1:3] == (24, 32)
    write_shown(sound(tmp_path / "s.wav", tone(400)[:, None]), tmp_path / "b.mp4")
    assert codecs(tmp_path / "b.mp4") == ["aac"]
    clip = replace(tiny_clip(1), video=np.zeros((5, 17, 19, 3), np.uint8))
    write_encoded(clip, tmp_path / "c.mp4")
    assert read_natural(tmp_path / "c.mp4")[0].video.shape[1:3] == (16, 18)


def test_what_is_broken_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    write_clip(tiny_clip(0, seconds=2.0), tmp_path / "whole.mp4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    for bad in (b"", b"no film", whole[: len(whole) // 2]):
        (tmp_path / "bad.mp4").write_bytes(bad)
        with pytest.raises(MediaError, match=r"bad\.mp4"):
            write_shown(tmp_path / "bad.mp4", tmp_path / "out.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "whole.mp4"]
