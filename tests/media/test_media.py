"""Containers: what goes in comes out, in time, and what cannot be used is named with its reason."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate

from ccl import media
from ccl.files import replacing_path
from ccl.grid import Grid
from ccl.media import (
    Clip,
    MediaError,
    gif_bytes,
    read_audio,
    read_clip,
    read_image,
    resample,
    write_clip,
    write_png,
    write_wav,
)
from ccl.types import AV
from helpers.tiny_clips import TINY, tiny_clip

GRID = Grid(frames=25, fps=25.0, height=48, width=48)


def as_bytes(clip: Clip, **options: int) -> bytes:
    file = io.BytesIO()
    write_clip(clip, file, **options)
    return file.getvalue()


def lag(a: np.ndarray, b: np.ndarray) -> int:
    """Samples by which `a` comes later than `b`."""
    return int(correlate(a, b).argmax()) - (len(b) - 1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_pictures_come_back_almost_the_same():
    clip = tiny_clip(1, GRID)
    assert psnr(read_clip(as_bytes(clip), grid=GRID).video, clip.video) > 30


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_sound_comes_back_in_time_and_whole(sample_rate):
    grid = replace(GRID, sample_rate=sample_rate)
    clip = tiny_clip(2, grid)
    back = read_clip(as_bytes(clip), grid=grid).audio
    assert len(back) == grid.samples
    assert abs(lag(back, clip.audio)) <= 0.002 * sample_rate


def test_equal_clips_are_equal_bytes(tmp_path):
    write_clip(tiny_clip(3), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == as_bytes(tiny_clip(3))


def test_pictures_are_coded_alike_whatever_the_processor_can_do(monkeypatch):
    # x264's vector code rounds otherwise than its C, and that of AVX-512 follows from what lay in memory before.
    rng = np.random.default_rng(0)
    scene = gaussian_filter(rng.normal(size=(80, 100, 3)), (3, 3, 0))
    scene = (128 + 400 * scene).clip(0, 255).astype(np.uint8)
    clip = Clip(np.stack([scene[t : t + 48, 2 * t : 2 * t + 48] for t in range(25)]), None, fps=25.0)
    data = as_bytes(clip)
    plain = media.write._X264["x264-params"] + ":no-asm=1"
    monkeypatch.setitem(media.write._X264, "x264-params", plain)
    assert as_bytes(clip) == data


def test_index_lies_in_front():
    data = as_bytes(tiny_clip())
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_without_a_grid_a_clip_keeps_its_own_rate_and_size():
    clip = replace(tiny_clip(4, GRID), fps=10.0)
    back = read_clip(as_bytes(clip))
    assert back.fps == 10.0 and back.video.shape == clip.video.shape
    assert len(back.audio) == round(len(clip.video) / 10 * 16_000)


def test_rate_is_changed_by_the_nearest_time():
    numbers = np.arange(24, dtype=np.uint8) * 10
    video = np.broadcast_to(numbers[:, None, None, None], (24, 16, 16, 3)).copy()
    data = as_bytes(Clip(video, np.zeros(16_000, np.float32), fps=24.0))
    grid = Grid(frames=9, fps=10.0, height=16, width=16)
    shades = read_clip(data, grid=grid).video[:, 8, 8, 0]
    nearest = [int(np.abs(np.arange(24) / 24 - i / 10).argmin()) for i in range(9)]
    assert np.abs(shades.astype(int) - numbers[nearest]).max() <= 3


def test_wide_clip_loses_its_sides_alone():
    video = np.zeros((9, 32, 96, 3), np.uint8)
    video[:, :, 32:64] = (200, 40, 40)  # the middle third
    back = read_clip(as_bytes(Clip(video, tiny_clip().audio)), grid=TINY).video
    assert back.shape == (9, 16, 16, 3)
    assert np.abs(back[:, :, 2:-2].astype(int) - (200, 40, 40)).max() < 30


def test_a_finer_picture_is_averaged_not_picked():
    video = np.zeros((9, 64, 64, 3), np.uint8)
    video[:, ::2] = 255
    back = read_clip(as_bytes(Clip(video, tiny_clip().audio), crf=1), grid=TINY).video
    assert np.abs(back.astype(int) - 128).max() < 12


def test_turned_clip_stands_upright():
    video = np.zeros((9, 16, 16, 3), np.uint8)
    video[:, :8] = 220  # bright above
    data = bytearray(as_bytes(Clip(video, tiny_clip().audio)))
    matrix = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # 90 degrees clockwise
    back = read_clip(bytes(data), grid=TINY).video.astype(int)
    assert back[:, :, 9:].mean() > 200 > 30 > back[:, :, :7].mean()


def test_sound_that_starts_late_stays_late():
    clip, late = tiny_clip(5, GRID), 0.25
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 48, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for i, picture in enumerate(clip.video):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = np.round(clip.audio * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, int(late * 16_000), Fraction(1, 16_000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    back = read_clip(file.getvalue(), grid=GRID).audio
    assert abs(lag(back, clip.audio) - late * 16_000) <= 32
    assert not back[: int(late * 16_000) - 32].any()


def test_only_the_required_streams_are_read():
    data = as_bytes(replace(tiny_clip(), audio=None))
    clip = read_clip(data, grid=TINY, require=AV(True, False))
    assert clip.audio is None and clip.video.shape == (9, 16, 16, 3)


@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_sound_alone_has_a_file_of_its_own(tmp_path, name):
    sound = tiny_clip(6, GRID).audio
    write_clip(Clip(None, sound), tmp_path / name)
    back = read_audio(tmp_path / name)
    assert abs(len(back) - len(sound)) <= 1024 and lag(back, sound) == 0


def test_wav_is_exact_to_half_a_step(tmp_path):
    sound = tiny_clip(7).audio
    write_wav(tmp_path / "a.wav", sound)
    assert np.abs(read_audio(tmp_path / "a.wav") - sound).max() < 1 / 16_000


@pytest.mark.parametrize("name", ["a.gif", "a.mkv", "a"])
def test_a_clip_is_not_saved_under_the_name_of_another_kind_of_file(name, tmp_path):
    with pytest.raises(MediaError, match="a clip is written as an"):
        tiny_clip(7).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_resampling_does_not_delay():
    time = np.arange(48_000) / 48_000
    sound = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(resample(sound, 48_000, 16_000) - expected)[100:-100].max() < 1e-3


def test_picture_is_cropped_about_its_centre_and_resized(tmp_path):
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = (10, 200, 30)
    write_png(tmp_path / "a.png", picture)
    assert (read_image(tmp_path / "a.png", 16, 16) == (10, 200, 30)).all()


def test_gif_holds_every_second_picture():
    with Image.open(io.BytesIO(gif_bytes(tiny_clip(1).video, 25.0))) as gif:
        assert gif.n_frames == 5 and gif.size == (16, 16)


def refused(data: bytes, **options: object) -> str:
    with pytest.raises(MediaError) as error:
        read_clip(data, id="the clip", **{"grid": TINY, **options})
    assert str(error.value).startswith("the clip: ")
    return error.value.reason


def test_missing_streams_are_named():
    assert refused(as_bytes(replace(tiny_clip(), audio=None))) == "no audio stream"
    assert refused(as_bytes(replace(tiny_clip(), video=None))) == "no video stream"


def test_short_clip_says_how_short():
    assert refused(as_bytes(tiny_clip(seconds=0.2))) == "too short (5 of 9 frames at 25 fps)"


def test_short_sound_says_how_short():
    clip = tiny_clip(seconds=1.0)
    grid = Grid(frames=25, fps=25.0, height=16, width=16)
    assert refused(as_bytes(replace(clip, audio=clip.audio[:8000])), grid=grid).startswith("sound too short (0.")


@pytest.mark.parametrize("part", [0.4, 0.6, 0.9, 0.99])
def test_truncated_file_is_refused(part):
    data = as_bytes(tiny_clip(1, GRID))
    assert "truncated" in refused(data[: int(part * len(data))], grid=GRID)


def test_no_media_file_is_refused(tmp_path):
    assert "no media file" in refused(b"this is text" * 50)
    with pytest.raises(MediaError, match=r"absent.mp4: no such file"):
        read_clip(tmp_path / "absent.mp4")
    with pytest.raises(MediaError, match="not a picture"):
        (tmp_path / "a.png").write_text("text")
        read_image(tmp_path / "a.png", 16, 16)


def test_odd_size_is_refused_in_words():
    with pytest.raises(MediaError, match=r"video is 15 x 16; h264 needs an even width and height"):
        as_bytes(replace(tiny_clip(), video=tiny_clip().video[:, :, :15]))


def test_empty_or_infinite_clip_is_refused():
    with pytest.raises(MediaError, match="neither pictures nor sound"):
        as_bytes(Clip(None, None))
    with pytest.raises(MediaError, match="finite"):
        as_bytes(replace(tiny_clip(), audio=np.full(5760, np.nan, np.float32)))


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in Path(tmp_path).iterdir()] == ["a.txt"] and path.read_text() == "old"


# What a file may unfold to -------------------------------------------------------------------------------------------


def written(path: Path, *, times: list[int] | None = None, sound_at: list[int] | None = None) -> Path:
    """A film of 16 x 12 of which each picture and each block of 160 samples stands at a time of its own, in ms."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 16, 12, "bgr0"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for index, time in enumerate(times or [0, 40]):
            frame = av.VideoFrame.from_ndarray(np.full((12, 16, 3), 20 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame.reformat(format="bgr0")))
        for time in sound_at or [0]:
            block = av.AudioFrame.from_ndarray(np.full((1, 160), 99, np.int16), format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16_000, 16 * time, Fraction(1, 16_000)
            container.mux(audio.encode(block))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return path


GAPS = {
    "its pictures would take": {"times": [0, 40, 10**10]},
    "its sound would take": {"sound_at": [0, 10**9]},
    "its sound would take [0-9,]+ GB": {"sound_at": [10**9]},
}


@pytest.mark.parametrize("said", GAPS)
def test_a_gap_of_months_is_refused_before_it_is_filled(said, tmp_path):
    path = written(tmp_path / "gap.mkv", **GAPS[said])
    with pytest.raises(MediaError, match=said):
        media.read_natural(path)


def test_more_pictures_than_fit_are_refused_while_they_come(tmp_path, monkeypatch):
    monkeypatch.setitem(media.LARGEST, "pictures", 16 * 12 * 3 * 10)
    media.read_natural(written(tmp_path / "fits.mkv", times=[40 * i for i in range(10)]))
    with pytest.raises(MediaError, match="its pictures would take"):
        media.read_natural(written(tmp_path / "more.mkv", times=[40 * i for i in range(11)]))


def test_the_first_picture_comes_alone_and_whole(tmp_path):
    path = written(tmp_path / "film.mkv", times=[0, 40, 80])
    first = media.first_picture(path)
    np.testing.assert_array_equal(first, media.read_natural(path)[0].video[0])
    assert first.shape == (12, 16, 3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    assert media.first_picture(path).shape == (12, 16, 3), "what comes later is not looked at"
    write_clip(Clip(None, np.zeros(1600, np.float32)), tmp_path / "sound.mp4")
    for name, reason in (("sound.mp4", "no video stream"), ("gone.mp4", "no such file")):
        with pytest.raises(MediaError, match=reason):
            media.first_picture(tmp_path / name)
