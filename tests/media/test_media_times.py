"""Files as cameras, browsers, recorders and cutters leave them: how long they last, and when each picture is shown.

The given cases come from public reports; each has siblings that are built here. Right values are those of ffmpeg, of
the file's own tables, or written out.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.av_align import AVAlign, aligned
from ccl.evaluation.metrics.imagebind import clip_pictures
from ccl.grid import Grid
from ccl.media import read_audio, read_clip, read_natural, write_clip
from ccl.media.pictures import Pictures
from ccl.types import AV
from helpers.films import CASES, GRID, film, needs_cases, refusal, sound, tone
from helpers.tiny_clips import tiny_clip

# Cuts and lengths ----------------------------------------------------------------------------------------------------


@needs_cases
def test_a_cut_shows_what_its_edit_list_leaves():
    clip = read_natural(CASES / "cut.mp4")[0]
    assert len(clip.video) == 137  # of 150 in its header; ffmpeg decodes 137


def edited(path: Path, skip: int) -> Path:
    """An mp4 with an edit list put into it that begins `skip` ms into the pictures."""
    film(path, times=range(0, 400, 40), codec="mpeg4")
    data = path.read_bytes()
    at = data.index(b"trak") - 4
    size = struct.unpack(">I", data[at : at + 4])[0]
    tkhd = at + 8 + struct.unpack(">I", data[at + 8 : at + 12])[0]
    inner = data[tkhd : at + size]
    if inner[4:8] == b"edts":
        inner = inner[struct.unpack(">I", inner[:4])[0] :]
    unit = struct.unpack(">I", data[(m := data.index(b"mdhd") + 16) : m + 4])[0]
    elst = struct.pack(">I4sIIIiI", 28, b"elst", 0, 1, 400 - skip, skip * unit // 1000, 1 << 16)
    trak = data[at + 8 : tkhd] + struct.pack(">I4s", 8 + len(elst), b"edts") + elst + inner
    moov = data.index(b"moov") - 4
    whole = data[moov + 8 : at] + struct.pack(">I4s", 8 + len(trak), b"trak") + trak + data[at + size :]
    path.write_bytes(data[:moov] + struct.pack(">I4s", 8 + len(whole), b"moov") + whole)
    return path


def test_an_edit_list_that_skips_pictures_makes_no_file_truncated(tmp_path):
    clip = read_natural(edited(tmp_path / "edited.mp4", 160))[0]
    assert len(clip.video) == 6 and len(clip.video) / clip.fps == pytest.approx(0.24)
    assert clip.video[0].mean() == pytest.approx(40, abs=4), "the fifth picture is the first that is shown"


@pytest.mark.parametrize("kind", ["mkv", "avi", "wav", "mp4"])
def test_a_file_that_really_ends_too_soon_is_a_reason(kind, tmp_path):
    path = tmp_path / f"film.{kind}"
    if kind == "wav":
        sound(path, tone(440)[:, None])
    elif kind == "mp4":
        write_clip(tiny_clip(1), path)
    else:
        film(path, times=range(0, 2000, 40))
    data = path.read_bytes()
    read_natural(path)
    path.write_bytes(data[: int(0.8 * len(data))])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("kind", ["mkv", "flv"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_whose_end_never_came_is_a_reason(kind, share, tmp_path):
    path = film(tmp_path / f"film.{kind}", times=range(0, 30_000, 500), codec="flv1" if kind == "flv" else "ffv1")
    assert len(read_natural(path)[0].video) == 60
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))].ljust(len(data), b"\0"))  # as downloads reserve it
    assert any(word in refusal(path) for word in ("truncated", "corrupt"))  # where a picture is cut, it is that


@pytest.mark.parametrize("kind", ["mp4", "mov", "flv", "wav", "flac"])
def test_a_file_behind_a_file_is_a_reason(kind, tmp_path):
    path = tmp_path / f"film.{kind}"
    if kind in ("wav", "flac"):
        sound(path, tone(440)[:, None], codec="flac" if kind == "flac" else "pcm_s16le")
    else:
        film(path, codec="flv1" if kind == "flv" else "libx264")
    read_natural(path)
    path.write_bytes(2 * path.read_bytes())  # `cat`: of one such film ffmpeg, too, reads the first alone
    assert "joined end to end" in refusal(path)


def test_a_size_that_a_writer_left_open_promises_nothing(tmp_path):
    path = sound(tmp_path / "live.wav", tone(440)[:, None])
    data = bytearray(path.read_bytes())
    data[4:8] = data[data.index(b"data") + 4 : data.index(b"data") + 8] = b"\xff" * 4
    path.write_bytes(data)
    assert len(read_audio(path, 48_000)) == pytest.approx(48_000, abs=64)


@needs_cases
def test_the_last_picture_is_held_as_long_as_the_table_says():
    held = Film.read(CASES / "hold.mp4")
    assert (round(held.seconds, 2), len(held.indices(25))) == (8.0, 200)
    assert len(read_clip(CASES / "hold.mp4", grid=GRID).video) == 81


@pytest.mark.parametrize(("kind", "last"), [("mkv", 1500), ("mkv", 8), ("mp4", 1500), ("mp4", 8)])
def test_the_last_picture_lasts_as_its_block_says(kind, last, tmp_path):
    codec = "ffv1" if kind == "mkv" else "mpeg4"
    path = film(tmp_path / f"film.{kind}", times=[0, 40, 80, 120], lasts=[40, 40, 40, last], codec=codec)
    shown = Film.read(path)
    assert shown.seconds == pytest.approx(0.12 + last / 1000, abs=2e-3)
    assert shown.clip.fps == pytest.approx(4 / shown.seconds)


# Clocks --------------------------------------------------------------------------------------------------------------


@needs_cases
def test_the_rate_of_a_browsers_recording_is_that_of_its_pictures():
    clip = read_natural(CASES / "mr_nodd.webm")[0]  # its header counts in ms: 1,000 a second
    assert len(clip.video) == 178 and 29 < clip.fps < 31


@needs_cases
def test_alignment_of_sound_and_motion_goes_by_the_pictures_times():
    pytest.importorskip("cv2")
    steady, varying = (AVAlign().score([CASES / name])[0].values["av_align"] for name in ("bag_cfr.mp4", "bag_vfr.mp4"))
    assert abs(steady - varying) < 0.07


def test_motion_is_matched_at_its_pictures_own_time():
    times = np.array([0.0, 0.5, 1.0, 1.1, 1.2, 1.3])
    assert aligned(np.array([0.8]), np.array([2]), times) == 1  # half a second since the one before
    assert aligned(np.array([0.8]), np.array([3]), times) == 0


def test_clips_of_a_film_hold_the_pictures_of_their_seconds():
    times = np.concatenate([np.arange(20) / 10, 2 + np.arange(60) / 30])  # 10, then 30 a second: 4 s
    seconds = 4.0
    for (first, last), start in zip(clip_pictures(times, seconds).tolist(), np.linspace(0, 2, 5), strict=True):
        inside = [i for i, time in enumerate(times) if start <= time < start + 2]
        assert (first, last) == (inside[0], inside[-1])
    assert clip_pictures(np.array([0.0, 3.9]), 6.0)[2].tolist() == [1, 1]
    assert clip_pictures(np.array([0.0, 5.0]), 6.0)[1].tolist() == [0, 0], "the one that stands"


def test_pictures_are_shown_at_their_times_on_a_grid(tmp_path):
    path = film(tmp_path / "slides.mkv", times=[0, 1000, 1040], lasts=[1000, 40, 960])
    shades = read_clip(path, grid=Grid(frames=49, fps=25.0, height=16, width=16), require=AV(True, False)).video[
        :, 8, 8, 0
    ]
    assert shades.tolist() == [0] * 25 + [10] + [20] * 23


def test_a_clip_with_times_of_its_own_gets_them_back(tmp_path):
    path = film(tmp_path / "film.mkv", times=[0, 40, 200, 1000], lasts=[40, 160, 800, 500])
    clip = read_natural(path)[0]
    np.testing.assert_allclose(clip.times, [0, 0.04, 0.2, 1.0], atol=1e-6)
    whole = read_clip(path, require=AV(True, False))
    assert np.array_equal(whole.times, clip.times) and whole.fps == clip.fps


def test_pictures_that_are_written_keep_their_times(tmp_path):
    clip = read_natural(film(tmp_path / "film.mkv", times=[0, 40, 200, 1000], lasts=[40, 160, 800, 500]))[0]
    clip.save(tmp_path / "saved.mp4")
    back = read_natural(tmp_path / "saved.mp4")[0]
    np.testing.assert_allclose(back.times, clip.times, atol=1e-4)
    assert len(back.video) / back.fps == pytest.approx(1.5, abs=2e-3)


def test_pictures_without_a_time_lie_between_those_that_have_one() -> None:
    """As matroska leaves them whose times would be negative: the first 25 of 75 without, the next at 0."""
    stream = SimpleNamespace(
        average_rate=Fraction(25),
        guessed_rate=None,
        base_rate=Fraction(25),
        time_base=Fraction(1, 1000),
        sample_aspect_ratio=None,
        duration=None,
        start_time=None,
        container=SimpleNamespace(format=SimpleNamespace(name="matroska,webm")),
    )
    for given, start, times in (
        ([None] * 25 + [40 * i for i in range(50)], -1.0, np.arange(75) / 25),
        ([400, None, None, 520, None], 0.4, np.arange(5) / 25),
        ([None, 10_000, 10_040], 9.96, np.arange(3) / 25),
        ([None] * 4, 0.0, np.arange(4) / 25),
    ):
        pictures = Pictures(stream, None, "x")
        for tick in given:
            frame = av.VideoFrame(16, 16, "rgb24")
            frame.pts = tick
            pictures.add(frame)
        assert pictures.start == pytest.approx(start) and np.allclose(pictures.times, times), given
