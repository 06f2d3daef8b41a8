"""A clip as any browser shows it, and with nothing in it but pictures and sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from ccl.files import replacing_path
from ccl.media.clip import Clip
from ccl.media.container import best_stream, opened, packets
from ccl.media.errors import MediaError, faults
from ccl.media.read import read_natural
from ccl.media.write import write_clip
from ccl.types import STREAMS

CODECS = {"h264", "aac", "mp3"}  # what every browser plays, on every machine
PIXELS = {"yuv420p", "yuvj420p"}
CRF, BITRATE = 16, 192_000  # of what must be encoded anew, so that one sees and hears no difference
# Supplemental units of H.264, in which encoders write who they are, and anybody may write anything.
_PLAIN = "filter_units=remove_types=6"


def write_shown(source: str | Path, target: str | Path) -> bool:
    """Write an mp4 that every browser plays and that tells nothing of where it comes from.

    Streams of H.264, AAC and MP3 in an mp4 or mov are copied packet by packet: pictures and sound are the file's own;
    any other file is encoded anew as it is read, its sound then mono. Names, dates, comments and the encoder's own
    notes stay behind.

    Args:
        source: a film, or a sound alone.
        target: a path, replaced whole or not at all.

    Returns:
        Whether it was copied.

    Raises:
        MediaError: the file is corrupt, truncated or absent.
        OSError, MemoryError: the machine is in trouble.
    """
    with opened(source, str(source)) as container:
        streams = _copied(container, str(source))
        if streams:
            _copy(container, streams, Path(source), Path(target))
            return True
    write_encoded(read_natural(source)[0], target)
    return False


def write_encoded(clip: Clip, target: str | Path) -> None:
    """Write a clip's pictures and sound as `write_shown` does that must encode; an odd row or column is left out."""
    if clip.video is not None:
        height, width = (side // 2 * 2 for side in clip.video.shape[1:3])
        clip = replace(clip, video=clip.video[:, :height, :width])
    write_clip(clip, target, crf=CRF, audio_bitrate=min(BITRATE, 6 * clip.sample_rate))


def _copied(container: Any, name: str) -> list[Any]:
    """The streams that are read of the file, where all of them can be copied."""
    found: list[Any] = []
    for kind in STREAMS:
        try:
            found.append(best_stream(container, kind, name, found[0] if found else None))
        except MediaError:
            continue
    # Of mp4 and mov alone: others do not say when their packets are to be decoded.
    fit = "mp4" in container.format.name.split(",") and all(
        stream.codec_context.name.removesuffix("float") in CODECS
        and (stream.type == "audio" or stream.codec_context.pix_fmt in PIXELS)
        for stream in found
    )
    return found if fit else []


def _copy(container: Any, streams: list[Any], source: Path, target: Path) -> None:
    """Packets of some streams into a new mp4; each is decoded on the way, so that what is broken is told here."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        replacing_path(target) as partial,
        faults(str(source), str(source), "is corrupt or truncated"),
        av.open(str(partial), "w", format="mp4", options=options) as out,
    ):
        copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
        filters = {
            stream.index: BitStreamFilterContext(_PLAIN, stream, copies[stream.index])
            for stream in streams
            if stream.codec_context.name == "h264"
        }
        for packet in packets(container, streams, str(source), str(source)):
            index = packet.stream.index
            if any(getattr(frame, "is_corrupt", False) for frame in packet.decode()):
                raise MediaError(source, "a picture in it is corrupt")
            whole = packet.dts is not None
            for part in filters[index].filter(packet if whole else None) if index in filters else [packet] * whole:
                part.stream = copies[index]
                out.mux(part)
