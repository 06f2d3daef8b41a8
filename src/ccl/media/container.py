"""Opening a file, choosing its streams, and passing through its packets on one line of time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import av.error
from av.stream import Disposition

from ccl.media.errors import MediaError, faults
from ccl.media.timeline import continuous
from ccl.media.whole import is_joined, missing_bytes

MP3_SYNC = 0xFF  # the first byte of every block
FLAC_HEAD = b"fLaC\0\0\0\x22"  # how a file begins, after whatever tags
JOINED = "holds several files joined end to end, of which the first alone can be read"
SMALL = 480 * 480  # pixels, below which threads cost more than they save
# Demuxers whose input names other files, addresses or devices, or is a program.
_ELSEWHERE = {
    *("applehttp", "avisynth", "concat", "dash", "dvdvideo", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap"),
    *("sdp", "sdns", "tty", "vapoursynth", "vobsub", "webm_dash_manifest"),
    *("alsa", "fbdev", "kmsgrab", "oss", "video4linux2,v4l2", "x11grab"),
}
_FILES = {
    "format_whitelist": ",".join(sorted(av.formats_available - _ELSEWHERE)),
    "protocol_whitelist": "file",
}


@contextmanager
def opened(source: str | Path | bytes, name: str) -> Iterator[Any]:
    """A container of the file alone: it opens no other file and no address.

    Raises:
        MediaError: the file is absent, no media file, or only points at others.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise MediaError(name, "no such file")
    with faults(source, name, "is corrupt, truncated or no media file"):
        try:
            # A colon in a name is no protocol.
            file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
            container = av.open(file, metadata_errors="ignore", options=dict(_FILES))
        except av.error.ArgumentError:
            raise MediaError(name, "is no media file, or holds none: playlists and the like are not read") from None
    with container:
        yield container


def best_stream(container: Any, kind: Literal["video", "audio"], name: str, beside: Any = None) -> Any:
    """The stream of a kind that is read.

    Args:
        container: opened.
        kind: of stream.
        name: of the file.
        beside: a stream that it should belong to.

    Raises:
        MediaError: there is none, or it cannot be decoded.
    """
    # A cover picture in a sound file is listed as a video stream.
    found = [s for s in getattr(container.streams, kind) if not s.disposition & Disposition.attached_pic]
    if not found:
        raise MediaError(name, f"no {kind} stream")
    best = container.streams.best(kind, beside)
    stream = best if best in found else max(found, key=lambda s: bool(s.disposition & Disposition.default))
    if stream.codec_context is None:
        raise MediaError(name, f"its {kind} stream has a format this ffmpeg cannot decode")
    small = kind == "audio" or stream.codec_context.width * stream.codec_context.height < SMALL
    stream.codec_context.thread_type = "NONE" if small else "AUTO"
    stream.codec_context.thread_count = 1 if small else 0
    return stream


def packets(container: Any, streams: Sequence[Any], source: str | Path | bytes, name: str) -> Iterator[Any]:
    """All packets of some streams, on one line of time, then each stream's empty one that flushes its decoder.

    Raises:
        MediaError: at the end of the file, where it holds less than it promises, or more than can be read.
    """
    stored = {stream.index: len(stream.index_entries) for stream in streams}  # of cuts, too: a header's count is not
    read = dict.fromkeys(stored, 0)
    kinds = container.format.name.split(",")
    found = container.demux(streams)
    if "mp4" not in kinds:  # whose times are sums of lengths
        found = continuous(found, streams, name, leaps=kinds[0] in ("mpeg", "mpegts"))
    mp3 = {stream.index for stream in streams if stream.codec_context.name in ("mp3", "mp3float")}
    for packet in found:
        timed, size = packet.dts is not None, packet.size
        read[packet.stream.index] += timed or size > 0
        if timed and not size:
            continue  # a picture that was left out, or a stream's end; a decoder would take it for the end of all
        if kinds[0] == "flac" and FLAC_HEAD in bytes(packet):  # with it, the blocks about it would go lost
            raise MediaError(name, JOINED)
        if mp3 and size and packet.stream.index in mp3 and memoryview(packet)[0] != MP3_SYNC:
            continue  # tags of a file that was joined on, in whatever container since
        yield packet
    with _bytes(source) as file:
        if missing := missing_bytes(file):
            raise MediaError(name, f"is truncated: {missing:,} bytes of those that it promises are missing")
        if is_joined(file):
            raise MediaError(name, JOINED)
    for stream in streams:
        if read[stream.index] < stored[stream.index]:
            have = f"{read[stream.index]} of the {stored[stream.index]} {stream.type} packets in its index"
            raise MediaError(name, f"is truncated: {have}")


def _bytes(source: str | Path | bytes) -> io.BufferedIOBase:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")
