"""Files as cameras, browsers, recorders and cutters leave them: what is read is what is shown, or a reason.

The given cases come from public reports; each has siblings that are built here. Right values are those of ffmpeg, of
the file's own tables, or written out.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from ccl import media
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.av_align import AVAlign, aligned
from ccl.evaluation.metrics.imagebind import clip_pictures
from ccl.evaluation.metrics.wer import WER
from ccl.files import machine_trouble
from ccl.grid import Grid
from ccl.media import Clip, MediaError, first_picture, read_audio, read_clip, read_image, read_natural, write_clip
from ccl.media.pictures import Pictures
from ccl.media.sound import weights
from ccl.rows import Row
from ccl.types import AV
from helpers import ROOT
from helpers.tiny_clips import TINY, tiny_clip

DATA = Path(os.environ.get("CCL_TEST_DATA", "none"))
CASES = DATA / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="CCL_TEST_DATA names no folder with cases")
GRID = Grid(frames=81, fps=16.0, height=96, width=128, sample_rate=16_000)


def film(
    path: Path,
    *,
    times: Sequence[int] | None = range(0, 400, 40),
    lasts: Sequence[int] | None = None,
    codec: str = "ffv1",
) -> Path:
    """Pictures of 32 x 24 that get brighter, by 10 each, at times in ms; `lasts` is how long each one is shown."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "bgr0" if codec == "ffv1" else "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 10 * index % 256, np.uint8), format="rgb24")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            for packet in video.encode(frame):
                if lasts:
                    packet.duration = round(lasts[index] / 1000 / packet.time_base)
                container.mux(packet)
        container.mux(video.encode(None))
    return path


def sound(path: Path, samples: np.ndarray, layout: str = "mono", rate: int = 48_000, codec: str = "pcm_s16le") -> Path:
    """A file of one sound, (S, C) float."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        kind = stream.codec_context.format.name
        data = np.round(samples * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in av.AudioResampler(format=kind, layout=layout, rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def tone(hertz: float, seconds: float = 1.0, rate: int = 48_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def pitch(audio: np.ndarray, rate: int, at: float) -> float:
    part = audio[int(at * rate) : int((at + 0.1) * rate)]
    return float(np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part)), 65_536))) * rate / 65_536)


def beeps(audio: np.ndarray, rate: int) -> list[float]:
    """Seconds at which it becomes loud."""
    width = int(rate * 0.004)
    level = np.convolve(np.abs(audio), np.ones(width) / width, "same")
    loud = level > 0.25 * max(level.max(), 1e-3)
    found: list[float] = []
    for i in np.flatnonzero(loud[1:] & ~loud[:-1]) / rate:
        if not found or i - found[-1] > 0.5:
            found.append(round(float(i), 2))
    return found


def refusal(path: Path) -> str:
    with pytest.raises(MediaError) as error:
        read_natural(path)
    assert str(error.value).startswith(f"{path}: ")
    return error.value.reason


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


# Sound ---------------------------------------------------------------------------------------------------------------


@needs_cases
def test_each_block_of_sound_is_read_at_its_own_rate():
    clip = read_natural(CASES / "rate.mp3")[0]
    heard = [pitch(clip.audio, clip.sample_rate, at) for at in beeps(clip.audio, clip.sample_rate)]
    assert len(heard) == 7 and heard == pytest.approx([1000] * 7, abs=15)


JOINED = [
    ("mp3", "libmp3lame", (24_000, 48_000)),
    ("mp3", "libmp3lame", (48_000, 16_000)),
    # Whose demuxers count all blocks in the first one's rate: up to twice as fast or slow, or by a twelfth.
    ("aac", "aac", (24_000, 48_000)),
    ("aac", "aac", (48_000, 24_000)),
    ("aac", "aac", (44_100, 48_000)),
    ("aac", "aac", (48_000, 24_000, 48_000)),
    ("ogg", "flac", (44_100, 48_000)),
]


@pytest.mark.parametrize(("kind", "codec", "rates"), JOINED)
def test_joined_sounds_of_several_rates_keep_pitch_and_length(kind, codec, rates, tmp_path):
    whole = b"".join(
        sound(tmp_path / f"{rate}.{kind}", tone(1000, 2, rate)[:, None], rate=rate, codec=codec).read_bytes()
        for rate in rates
    )
    (tmp_path / f"joined.{kind}").write_bytes(whole)  # an mp3 with the tags of the second one in its middle
    clip = read_natural(tmp_path / f"joined.{kind}")[0]
    seconds = 2 * len(rates)
    assert clip.sample_rate == max(rates) and len(clip.audio) / clip.sample_rate == pytest.approx(seconds, abs=0.15)
    heard = [pitch(clip.audio, clip.sample_rate, at + 0.5) for at in range(seconds)]
    assert heard == pytest.approx([1000] * seconds, abs=2)
    blocks = np.abs(clip.audio[: len(clip.audio) // 100 * 100].reshape(-1, 100)).max(1)
    assert (blocks < 0.01).mean() < 0.03  # no gap but the encoders' own, at the joints


def test_a_joined_sound_may_lie_in_another_container_since(tmp_path):
    parts = [sound(tmp_path / f"{n}.mp3", tone(1000, 1)[:, None], codec="libmp3lame").read_bytes() for n in (0, 1)]
    (tmp_path / "joined.mp3").write_bytes(b"".join(parts))
    with av.open(str(tmp_path / "joined.mp3")) as given, av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        tags = 0
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                tags += bytes(packet)[0] != 0xFF
                packet.stream = stream
                container.mux(packet)
    assert tags == 1
    audio = read_audio(tmp_path / "a.mkv", 48_000)
    assert len(audio) / 48_000 == pytest.approx(2, abs=0.15) and pitch(audio, 48_000, 1.5) == pytest.approx(1000, abs=2)


@needs_cases
def test_whisper_reads_a_speech_whose_rate_changes_midway():
    said = (
        "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    wer = WER(str(DATA / "weights" / "whisper-tiny.en.pt"))
    assert wer.score([Film.read(CASES / "rate_speech.mkv", Row("a", said, speech=said))])[0].values["wer"] == 0


@needs_cases
def test_speech_in_the_centre_of_5_1_is_as_loud_as_ffmpegs_mix():
    audio = read_natural(CASES / "fc51.m4a")[0].audio[int(1.01 * 48_000) : int(1.09 * 48_000)]
    assert 20 * np.log10(np.sqrt((audio**2).mean()) / 0.3535) == pytest.approx(-10.7, abs=0.3)


# ITU-R BS.775 as ffmpeg's -ac 1 has it: centre 1, sides and backs less 3 dB each; divided by their sum. No LFE.
HALF = 2**-0.5
MIXES = {
    "stereo": [HALF, HALF],
    "3.0": [HALF, HALF, 1],
    "quad": [HALF, HALF, 0.5, 0.5],
    "5.1": [HALF, HALF, 1, 0, 0.5, 0.5],
    "5.1(side)": [HALF, HALF, 1, 0, 0.5, 0.5],
    "7.1": [HALF, HALF, 1, 0, 0.5, 0.5, 0.5, 0.5],
}


@pytest.mark.parametrize("layout", MIXES)
def test_channels_are_mixed_with_their_weights(layout, tmp_path):
    expected = np.array(MIXES[layout]) / sum(MIXES[layout])
    np.testing.assert_allclose(weights(layout, len(expected)), expected, atol=1e-6)
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, len(expected)))
    mixed = read_audio(sound(tmp_path / "a.wav", channels, layout), 48_000)
    np.testing.assert_allclose(mixed, channels @ expected, atol=1e-4)


def test_eight_channels_in_planes_are_read(tmp_path):
    centre = np.zeros((48_000, 8))
    centre[:, 2] = tone(440)
    audio = read_audio(sound(tmp_path / "a.m4a", centre, "7.1", codec="aac"), 48_000)
    assert np.sqrt((audio[9600:38_400] ** 2).mean()) == pytest.approx(0.3535 * weights("7.1", 8)[2], rel=0.03)


def test_stereo_in_antiphase_is_a_reason_and_wide_stereo_is_not(tmp_path):
    left = tone(440)
    assert "antiphase" in refusal(sound(tmp_path / "a.wav", np.stack([left, -0.9 * left], 1), "stereo"))
    for name, right in {"b": 0 * left, "c": tone(660), "d": left}.items():
        assert read_audio(sound(tmp_path / f"{name}.wav", np.stack([left, right], 1), "stereo")).any()


@pytest.mark.parametrize("anti", [slice(0, 48_000), slice(72_000, 144_000)])
def test_a_second_of_antiphase_is_a_reason(anti, tmp_path):
    left = tone(440, 3)
    right, quiet = left.copy(), np.ones_like(left)
    right[anti] *= -1
    assert "antiphase" in refusal(sound(tmp_path / "a.wav", np.stack([left, right], 1), "stereo"))
    quiet[anti] = 0.1  # a hundredth of the power: a room's noise may have any phase
    read_audio(sound(tmp_path / "b.wav", np.stack([left, right], 1) * quiet[:, None], "stereo"))


@pytest.mark.parametrize("rate", [1, 100_000_000, 2**31 - 1])
def test_absurd_sample_rates_are_refused(rate, tmp_path):
    path = sound(tmp_path / "a.wav", tone(440)[:, None])
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    assert f"{rate:,} samples a second" in refusal(path) or "corrupt" in refusal(path)
    with pytest.raises(MediaError):
        read_audio(path)


# Streams -------------------------------------------------------------------------------------------------------------


@needs_cases
def test_the_default_sound_track_is_read():
    clip = read_natural(CASES / "two.mkv")[0]
    assert len(beeps(clip.audio, clip.sample_rate)) == 7


@pytest.mark.parametrize("flagged", [0, 1])
def test_the_track_with_the_default_flag_is_read(flagged, tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for index, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if index == flagged else 0
        for stream, hertz in zip(streams, (500, 1500), strict=True):
            data = np.round(32767 * tone(hertz, rate=16_000)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert pitch(read_audio(tmp_path / "a.mkv"), 16_000, 0.4) == pytest.approx((500, 1500)[flagged], abs=2)


# Orientation ---------------------------------------------------------------------------------------------------------


@needs_cases
def test_a_mirrored_front_camera_is_read_as_it_is_shown():
    picture = read_natural(CASES / "m_hflip.mp4")[0].video[3].astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 100) & (picture[..., 2] < 100)
    y, x = np.nonzero(red)
    assert (round(y.mean() / len(picture), 2), round(x.mean() / picture.shape[1], 2)) == (0.18, 0.94)


# (a, b, c, d) of the matrix that sends (x, y) to (a x + c y, b x + d y).
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_display_matrices_move_each_corner_where_they_say(matrix, tmp_path):
    corners = np.zeros((9, 16, 24, 3), np.uint8)
    corners[:, :8, :12], corners[:, :8, 12:], corners[:, 8:, :12] = 60, 120, 180  # and black
    path = tmp_path / "a.mp4"
    write_clip(Clip(corners, None), path)
    data, one = bytearray(path.read_bytes()), 65_536
    at = data.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    shown = read_natural(path)[0].video[0, ..., 0].astype(int)
    assert shown.shape == ((24, 16) if b else (16, 24))
    for y, x in ((4, 6), (4, 18), (12, 6), (12, 18)):
        to_x, to_y = a * (x - 12) + c * (y - 8), b * (x - 12) + d * (y - 8)
        got = shown[shown.shape[0] // 2 + to_y, shown.shape[1] // 2 + to_x]
        assert got == pytest.approx(corners[0, y, x, 0], abs=12)


# Joined --------------------------------------------------------------------------------------------------------------


@needs_cases
def test_pictures_and_sound_whose_times_start_anew_are_a_reason():
    assert "start anew after 4.00 s" in refusal(CASES / "disc.ts")


@needs_cases
def test_one_stream_whose_times_start_anew_goes_on():
    assert len(read_audio(CASES / "disc.ts", 48_000)) / 48_000 == pytest.approx(8.064, abs=0.001)  # as ffmpeg -vn
    pictures = read_clip(CASES / "disc.ts", require=AV(True, False))
    assert len(pictures.video) == 200 and pictures.times[-1] == pytest.approx(199 / 25, abs=1e-3)


# What is no file of media, and the machine ---------------------------------------------------------------------------

ELSEWHERE = {
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{beside}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile {beside}\n",
}


@pytest.mark.parametrize("name", [f"a.{kind}" for kind in ELSEWHERE] + ["a.mp4"])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_only_points_elsewhere_opens_nothing(kind, name, tmp_path):
    beside = film(tmp_path / "beside.mkv")
    path = tmp_path / name
    path.write_text(ELSEWHERE[kind].format(beside=beside.name))
    assert "no media file" in refusal(path)
    with pytest.raises(MediaError, match="no media file"):
        read_clip(path.read_bytes(), id="a")


def test_a_colon_or_a_percent_sign_in_a_name_is_part_of_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mkv", "a%03d.mkv", "http:b.mkv", "-i.mkv"):
        film(tmp_path / "film.mkv").rename(name)
        assert len(read_natural(name)[0].video) == 10


def test_a_picture_that_would_start_a_program_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(path)
    with pytest.raises(MediaError, match="not a picture"):
        read_image(path, 16, 16)


def test_the_machines_trouble_is_no_files_fault(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mkv")
    for error in (OSError(28, "No space left on device"), MemoryError(), OSError(24, "Too many open files")):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(media.read.Pictures, "add", fail)
        with pytest.raises(type(error)) as raised:
            read_natural(path)
        assert machine_trouble(raised.value)


def test_what_ffmpeg_makes_up_of_a_file_is_not_the_machines_trouble(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mkv")

    def fail(*_: object) -> None:
        raise av.error.OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(media.read.Pictures, "add", fail)
    with pytest.raises(MediaError, match="corrupt or truncated") as raised:
        read_natural(path)
    assert not machine_trouble(raised.value)


def test_writing_to_an_open_file_needs_no_other_one(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    file = io.BytesIO()
    write_clip(tiny_clip(), file)
    assert read_clip(file.getvalue()).video.shape == tiny_clip().video.shape


def test_a_clip_prints_in_a_line():
    said = repr(
        Clip(np.zeros((81, 96, 128, 3), np.uint8), np.zeros(81_000, np.float32), 16.0, prompt="x" * 999, id="a")
    )
    assert said.startswith("Clip('a', 81 pictures of 96 x 128 at 16 fps, 5.06 s of sound at 16,000 Hz, prompt 'xxx")
    assert len(said) < 200 and repr(Clip(None, None)) == "Clip()"


# The table of docs/media.md -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
@pytest.mark.parametrize(
    "words", ["mov cut by -c copy", "mp4 slides", "mkv cut after", "m4a 7.1", "mp4 cover picture", "ts joined, 48 then"]
)
def test_rows_of_the_table_agree_with_ffmpeg(words, tmp_path):
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "media.py")
    table = importlib.util.module_from_spec(spec)
    sys.modules["table"] = table
    spec.loader.exec_module(table)
    container, trait = words.split(" ", 1)
    (made,) = [made for made in table.ROWS if made.container == container and made.trait.startswith(trait)]
    cells, well = table.row(made, tmp_path / "row")
    assert well, cells


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


def test_an_empty_packet_at_the_end_of_a_stream_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "end.nut"
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("ffv1", rate=25), container.add_stream("flac", rate=44_100)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        for index in range(10):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts = index
            container.mux(pictures.encode(frame))
        for index in range(4):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), format="s16", layout="mono")
            block.sample_rate, block.pts = 44_100, 4608 * index
            container.mux(sound.encode(block))
        container.mux(pictures.encode(None)), container.mux(sound.encode(None))
    clip, without = read_natural(path)
    assert without == {} and len(clip.video) == 10 and len(clip.audio) == 4 * 4608


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not on the PATH")
@pytest.mark.parametrize(("shape", "said"), [((1, 200), "0.005"), ((200, 1), "200"), ((1, 30_000), "3.33e-05")])
def test_pixels_of_a_shape_that_none_has_are_refused(shape: tuple[int, int], said: str, tmp_path: Path) -> None:
    """A table of 1:30000 makes pictures of no width, one of 30000:1 takes all memory."""
    path = tmp_path / "shape.avi"
    shaped(path, Fraction(*shape))
    reason = rf"its pixels claim to be {said} times as wide as high; 1/64 to 64 are read"
    for read in (read_natural, first_picture, lambda path: read_clip(path, grid=TINY, require=AV(True, False))):
        with pytest.raises(MediaError, match=reason):
            read(path)
    shaped(path, Fraction(1, 50))  # a narrow one keeps a column
    assert first_picture(path).shape == (32, 1, 3)


def shaped(path: Path, aspect: Fraction) -> None:
    """Ten pictures of 32 x 32 pixels of that shape."""
    pictures = ["-f", "lavfi", "-i", "testsrc=s=32x32:r=25:d=0.4", "-vf", f"setsar={aspect}:max=100000"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *pictures, str(path)], check=True)


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffmpeg and ffprobe are not on the PATH")
def test_the_shape_of_pixels_is_the_containers_and_where_it_says_none_the_streams(tmp_path: Path) -> None:
    """As ffprobe has it: H.264 of 2:1 in an mp4 that says 1:1, in one that says nothing, and in a transport stream."""
    plain, own, silent, bare = (tmp_path / name for name in ("plain.mp4", "own.mp4", "silent.mp4", "bare.ts"))
    shaped(plain, Fraction(1, 1))
    for path in (own, bare):
        wider = ["-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", str(path)]
        subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-i", str(plain), *wider], check=True)
    assert own.read_bytes().count(b"pasp") == 1
    silent.write_bytes(own.read_bytes().replace(b"pasp", b"free"))
    for path, width in ((own, 32), (silent, 64), (bare, 64)):
        asked = ["-select_streams", "v:0", "-show_entries", "stream=sample_aspect_ratio", "-of", "csv=p=0", str(path)]
        said = subprocess.run(["ffprobe", "-v", "error", *asked], check=True, capture_output=True, text=True).stdout
        assert said.split()[0] == f"{width // 32}:1"
        assert first_picture(path).shape == (32, width, 3)
