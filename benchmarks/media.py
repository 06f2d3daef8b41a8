"""What is read of films and sounds of every kind, against what ffmpeg makes of the same files.

    python benchmarks/media.py [--write docs/media.md] [--only WORD]

Builds the files with ffmpeg, reads each as `ccl evaluate` does, and lets ffmpeg decode it; docs/media.md says what is
compared.
"""

# ruff: noqa: E501 - a row of the table is a line
from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from ccl.media import MediaError, read_natural

SLACK = 0.05  # seconds: an encoder's priming, a block of sound
TICK = 0.2  # seconds in which ffmpeg counts the few pictures of slides
MARK = "<!-- made by `python benchmarks/media.py --write docs/media.md` -->"
VIDEO = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=4"]
SOUND = ["-f", "lavfi", "-i", "aevalsrc=0.3*sin(880*PI*t)*lt(mod(t\\,1)\\,0.6):sample_rate=48000:duration=4"]
H264 = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
AAC = ["-c:a", "aac"]
# a, b, c, d of display matrices: (x, y) goes to (a x + c y, b x + d y).
TURNS = {
    "turned 90": (0, 1, -1, 0),
    "turned 180": (-1, 0, 0, -1),
    "turned 270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "mirrored and turned": (0, -1, -1, 0),
}


class Made(NamedTuple):
    """A file to be built.

    Args:
        container: ending of its name.
        codecs: for the table.
        trait: what is unusual about it.
        build: writes it.
        refused: what the reason must hold where it is to be refused.
    """

    container: str
    codecs: str
    trait: str
    build: Callable[[Path], None]
    refused: str = ""


@dataclass(frozen=True)
class Seen:
    """Pictures, their seconds, seconds of sound from the first picture, root mean square of the sound."""

    pictures: int
    seconds: float
    sound: float
    level: float


def ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def plain(*arguments: str) -> Callable[[Path], None]:
    """One call of ffmpeg for both streams."""
    return lambda path: (ffmpeg(*VIDEO, *SOUND, *arguments, path), None)[1]


def heard(source: str, *arguments: str) -> Callable[[Path], None]:
    """One call of ffmpeg for a sound alone."""
    return lambda path: (ffmpeg("-f", "lavfi", "-i", source, *arguments, path), None)[1]


def again(first: str, before: list[str], *after: str, ending: str = "mkv") -> Callable[[Path], None]:
    """A film made with the arguments `first`, then read with `before` and written with `after`."""

    def build(path: Path) -> None:
        source = path.with_name(f"source.{ending}")
        ffmpeg(*VIDEO, *SOUND, *first.split(), source)
        ffmpeg(*before, "-i", source, *after, path)

    return build


def turned(matrix: tuple[int, int, int, int]) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        plain(*H264, *AAC)(path)
        data, one = bytearray(path.read_bytes()), 65536
        at = data.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
        a, b, c, d = (one * value for value in matrix)
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        path.write_bytes(data)

    return build


def chopped(build: Callable[[Path], None], part: float) -> Callable[[Path], None]:
    def chop(path: Path) -> None:
        build(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    return chop


def joined(*parts: list[str]) -> Callable[[Path], None]:
    """Files of ffmpeg's, end to end as bytes."""

    def build(path: Path) -> None:
        whole = b""
        for number, arguments in enumerate(parts):
            part = path.with_name(f"part{number}{path.suffix}")
            ffmpeg(*arguments, part)
            whole += part.read_bytes()
        path.write_bytes(whole)

    return build


def covered(path: Path) -> None:
    """A film with a cover picture listed before it."""
    cover, film = path.with_name("cover.png"), path.with_name("plain.mp4")
    ffmpeg("-f", "lavfi", "-i", "color=red:size=300x300", "-frames:v", 1, cover)
    plain(*H264, *AAC)(film)
    ffmpeg("-i", cover, "-i", film, "-map", 0, "-map", 1, "-c", "copy", "-disposition:v:0", "attached_pic", path)


def text(words: str) -> Callable[[Path], None]:
    return lambda path: (path.write_text(words), None)[1]


def claims(rate: int) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        heard("sine=duration=1", "-c:a", "pcm_s16le")(path)
        data = bytearray(path.read_bytes())
        data[24:28] = struct.pack("<I", rate)
        path.write_bytes(data)

    return build


GOP = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 50 -bf 3 -c:a aac"
OPEN = f"{GOP} -x264-params open-gop=1"
CUT = ["-ss", "1.5", "-t", "2"]
SLIDES = "select='eq(n,0)+eq(n,25)+eq(n,60)'"
ROWS = [
    *(Made(kind, "h264, aac", "plain", plain(*H264, *AAC)) for kind in ("mp4", "mov", "mkv", "ts", "flv")),
    Made("mp4", "hevc, aac", "plain", plain("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", *AAC)),
    Made("mp4", "h264, aac", "in fragments", plain(*H264, *AAC, "-movflags", "frag_keyframe+empty_moov")),
    Made("webm", "vp9, opus", "plain", plain("-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus")),
    Made("webm", "vp8, vorbis", "live: no lengths", plain("-c:v", "libvpx", "-cpu-used", "8", "-c:a", "libvorbis", "-live", "1")),
    Made("avi", "mpeg4, mp3", "B-frames, no PTS", plain("-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame")),
    Made("avi", "mpeg4, pcm", "pictures dropped", plain("-vf", "select='not(between(n,30,49))'", "-vsync", "0", "-c:v", "mpeg4", "-c:a", "pcm_s16le")),
    Made("mpg", "mpeg2, mp2", "plain", plain("-c:v", "mpeg2video", "-c:a", "mp2")),
    Made("wmv", "wmv2, wma", "plain", plain("-c:v", "wmv2", "-c:a", "wmav2")),
    Made("gif", "gif", "pictures alone", plain("-map", "0:v")),
    *(Made(kind, "h264, aac", "cut by -c copy", again(GOP, CUT, "-c", "copy")) for kind in ("mp4", "mov", "mkv", "ts", "flv")),
    *(Made(kind, "h264, aac", "cut after a key picture", again(OPEN, [], *CUT, "-c", "copy")) for kind in ("mp4", "mkv")),
    Made("webm", "vp9, opus", "cut by -c copy", again("-c:v libvpx-vp9 -cpu-used 8 -g 25 -c:a libopus", CUT, "-c", "copy", ending="webm")),
    Made("avi", "mpeg4, mp3", "cut by -c copy", again("-c:v mpeg4 -bf 2 -g 25 -c:a libmp3lame", CUT, "-c", "copy", ending="avi")),
    *(Made(kind, "h264, aac", "pictures at odd times", plain("-vf", "setpts='N/25/TB+gt(N,50)*(N-50)/25/TB'", "-vsync", "0", *H264, *AAC)) for kind in ("mp4", "mkv")),
    *(Made(kind, "h264, aac", "slides", plain("-vf", SLIDES, "-vsync", "0", *H264, *AAC)) for kind in ("mp4", "mkv")),
    Made("mp4", "h264, aac", "last picture held", plain("-vf", "tpad=stop_mode=clone:stop_duration=1,select='lt(n,100)+eq(n,124)'", "-vsync", "0", *H264, *AAC)),
    Made("mp4", "h264, aac", "pictures end early", plain("-vf", "trim=0:2.5", *H264, *AAC)),
    Made("mp4", "h264, aac", "sound late by 0.5 s", lambda path: (ffmpeg(*VIDEO, "-itsoffset", 0.5, *SOUND, *H264, *AAC, path), None)[1]),
    Made("mp4", "h264, aac", "pictures late by 0.5 s", lambda path: (ffmpeg("-itsoffset", 0.5, *VIDEO, *SOUND, *H264, *AAC, path), None)[1]),
    *(Made("mp4", "h264, aac", trait, turned(matrix)) for trait, matrix in TURNS.items()),
    Made("mp4", "h264, aac", "cover picture", covered),
    Made("m4a", "aac", "sound alone", heard("sine=duration=3", *AAC)),
    Made("mkv", "h264, aac", "second sound by default", lambda path: (ffmpeg(*VIDEO, "-f", "lavfi", "-i", "anullsrc=duration=4", *SOUND, "-map", 0, "-map", 1, "-map", 2, *H264, *AAC, "-disposition:a:0", 0, "-disposition:a:1", "default", path), None)[1]),
    Made("mp4", "h264, aac", "two tracks of pictures", lambda path: (ffmpeg(*VIDEO, "-f", "lavfi", "-i", "color=red:size=32x32:duration=4", *SOUND, "-map", 1, "-map", 0, "-map", 2, *H264, *AAC, path), None)[1]),
    *(Made(kind, codec, f"{layout}, centre alone", heard(f"aevalsrc={'|'.join('0.5*sin(2000*t)' if i == 2 else '0' for i in range(count))}:c={layout}:d=3", "-c:a", codec)) for kind, codec, layout, count in (("m4a", "aac", "5.1", 6), ("mkv", "ac3", "5.1(side)", 6), ("flac", "flac", "7.1", 8), ("m4a", "aac", "7.1", 8), ("wav", "pcm_s16le", "3.0", 3))),
    Made("wav", "pcm_s16le", "quad", heard("aevalsrc=0.5*sin(2000*t)|0|0|0.2*sin(3000*t):c=quad:d=3")),
    Made("wav", "pcm_s16le", "stereo in antiphase", heard("aevalsrc=0.5*sin(2000*t)|-0.5*sin(2000*t):d=3"), "antiphase"),
    *(Made(kind, codec, "sound alone", heard("sine=duration=3", "-c:a", codec)) for kind, codec in (("wav", "pcm_u8"), ("flac", "flac"), ("ogg", "libvorbis"), ("opus", "libopus"), ("aac", "aac"), ("mp3", "libmp3lame"))),
    Made("mp3", "mp3", "joined, 44.1 then 24 kHz", joined(*(["-f", "lavfi", "-i", "sine=1000:duration=2", "-ar", rate] for rate in ("44100", "24000")))),
    Made("ts", "aac", "joined, 48 then 24 kHz", joined(["-f", "lavfi", "-i", "sine=1000:duration=2", "-ar", "48000", *AAC], ["-f", "lavfi", "-i", "sine=1000:duration=2", "-ar", "24000", *AAC, "-output_ts_offset", "2"])),
    Made("aac", "aac", "joined, 24 then 48 kHz", joined(*(["-f", "lavfi", "-i", "sine=1000:duration=2", "-ar", rate, *AAC] for rate in ("24000", "48000")))),
    Made("ogg", "vorbis", "chained", joined(*(["-f", "lavfi", "-i", f"sine={tone}:duration=2", "-c:a", "libvorbis"] for tone in (500, 1000)))),
    Made("ts", "h264, aac", "joined, times anew", joined(*([*VIDEO, *SOUND, *H264, *AAC],) * 2), "start anew"),
    Made("mp4", "h264, aac", "two files in one", joined(*([*VIDEO, *SOUND, *H264, *AAC],) * 2), "joined end to end"),
    Made("mp4", "h264, aac", "truncated", chopped(plain(*H264, *AAC, "-movflags", "faststart"), 0.7), "truncated"),
    Made("mkv", "h264, aac", "truncated", chopped(plain(*H264, *AAC), 0.7), "truncated"),
    Made("avi", "mpeg4, mp3", "truncated", chopped(plain("-c:v", "mpeg4", "-c:a", "libmp3lame"), 0.7), "truncated|corrupt"),
    Made("wav", "pcm_s16le", "truncated", chopped(heard("sine=duration=3"), 0.7), "truncated"),
    Made("wav", "pcm_s16le", "claims 100 MHz", claims(100_000_000), "100,000,000"),
    Made("mp4", "-", "a playlist", text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n"), "no media file"),
    Made("mp4", "-", "an address (SDP)", text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"), "no media file"),
]  # fmt: skip


def ours(path: Path) -> tuple[Seen, np.ndarray | None]:
    clip, _ = read_natural(path)
    count = 0 if clip.video is None else len(clip.video)
    sound = np.zeros(0, np.float32) if clip.audio is None else clip.audio
    level = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))) if len(sound) else 0.0
    return Seen(count, count / clip.fps if count else 0.0, len(sound) / clip.sample_rate, level), clip.video


def theirs(path: Path, shape: tuple[int, ...] | None) -> tuple[Seen, np.ndarray | None]:
    """What ffmpeg decodes: its own choice of streams, its times, its mix."""
    listing = ffmpeg(
        "-i", path, "-vsync", 0, "-c:v", "rawvideo", "-c:a", "pcm_s16le", "-ac", 1, "-f", "framemd5", "-"
    ).decode()
    kinds = dict(re.findall(r"#media_type (\d+): (\w+)", listing))
    units = {stream: Fraction(unit) for stream, unit in re.findall(r"#tb (\d+): (\S+)", listing)}
    spans: dict[str, list[Fraction]] = {"video": [], "audio": []}
    count = 0
    for line in listing.splitlines():
        if not line.startswith("#"):
            stream, _, pts, lasts, *_ = (part.strip() for part in line.split(","))
            spans[kinds[stream]] += [int(pts) * units[stream], (int(pts) + int(lasts)) * units[stream]]
            count += kinds[stream] == "video"
    start = min(spans["video"] or spans["audio"])
    pictures, level = None, 0.0
    if shape is not None:
        raw = ffmpeg("-i", path, "-vsync", 0, "-an", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")[: int(np.prod(shape))]
        pictures = np.frombuffer(raw, np.uint8).reshape(-1, *shape[1:]) if len(raw) == np.prod(shape) else None
    if spans["audio"]:
        trim = ["-ss", float(max(start, 0))] if spans["video"] else []
        samples = np.frombuffer(ffmpeg("-i", path, *trim, "-ac", 1, "-ar", 48_000, "-f", "s16le", "-"), "<i2") / 32768
        level = float(np.sqrt(np.mean(samples**2)))
    lasts = float(max(spans["video"]) - start) if spans["video"] else 0.0
    ends = float(max(spans["audio"], default=start) - start) if spans["video"] else len(samples) / 48_000
    return Seen(count, lasts, ends, level), pictures


def row(made: Made, folder: Path) -> tuple[list[str], bool]:
    """Cells of the table, and whether all is well."""
    folder.mkdir()
    path = folder / f"film.{made.container}"
    made.build(path)
    head = [made.container, made.codecs, made.trait]
    try:
        mine, video = ours(path)
    except MediaError as error:
        well = bool(made.refused and re.search(made.refused, error.reason))
        return [*head, "refused: " + error.reason.replace("|", " "), "", "", "as meant" if well else "**WRONG**"], well
    other, pictures = theirs(path, None if video is None else video.shape)
    doubts = []
    if made.refused:
        doubts.append("read")
    if mine.pictures != other.pictures:
        doubts.append("count")
    if abs(mine.seconds - other.seconds) > (TICK if made.trait == "slides" else SLACK):
        doubts.append("seconds")
    if abs(mine.sound - other.sound) > SLACK:
        doubts.append("sound")
    if video is not None and (pictures is None or np.abs(video.astype(int) - pictures).mean() > 4):
        doubts.append("pictures")
    if other.level and abs(20 * np.log10(max(mine.level, 1e-9) / other.level)) > 0.5:
        doubts.append("loudness")
    cells = [
        f"{mine.pictures} ({other.pictures})",
        f"{mine.seconds:.2f} ({other.seconds:.2f})",
        f"{mine.sound:.2f} ({other.sound:.2f})",
    ]
    return [*head, *cells, "**WRONG**: " + ", ".join(doubts) if doubts else "agree"], not doubts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="document whose table is replaced, from its mark on")
    parser.add_argument("--only", default="", help="rows in which this word stands")
    args = parser.parse_args()
    if not shutil.which("ffmpeg"):
        print("ffmpeg is not on the PATH; it builds the files, and is what is compared with")
        return 1
    av.logging.set_level(av.logging.PANIC)
    chosen = [made for made in ROWS if args.only in " ".join(made[:3])]
    lines = [
        "| file | codecs | trait | pictures (ffmpeg) | seconds (ffmpeg) | sound ends at (ffmpeg) | |",
        "|" + "---|" * 7,
    ]
    good = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, made in enumerate(chosen):
            cells, well = row(made, Path(folder) / str(number))
            good += well
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    version = ffmpeg("-version").decode().split()[2]
    print(said := f"{good} of {len(chosen)} as they should be; ffmpeg {version}, PyAV {av.__version__}")
    if args.write:
        before = args.write.read_text().split(MARK)[0]
        args.write.write_text("\n".join([f"{before}{MARK}\n", f"{said}.", "", *lines, ""]))
    return int(good < len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
