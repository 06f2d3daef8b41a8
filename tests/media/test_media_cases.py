"""Files as cameras, browsers, recorders and cutters leave them: what is read is what is shown, or a reason.

The given cases come from public reports; each has siblings that are built here. Right values are those of ffmpeg, of
the file's own tables, or written out.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ccl import media
from ccl.files import machine_trouble
from ccl.media import Clip, MediaError, first_picture, read_audio, read_clip, read_image, read_natural, write_clip
from ccl.types import AV
from helpers import ROOT
from helpers.films import CASES, film, needs_cases, refusal
from helpers.tiny_clips import TINY, tiny_clip

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
    noted = Clip(None, None, meta={"notes": ["this model has not learned the word 'cat'"]})
    assert repr(noted) == "Clip(note: this model has not learned the word 'cat')"


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
