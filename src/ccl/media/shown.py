"""A clip as any browser shows it, and with nothing in it but pictures and sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from ccl.files import replacing_path
from ccl.media.browser import kind_of, streams, unheard, unseen
from ccl.media.clip import Clip
from ccl.media.container import opened, packets
from ccl.media.errors import MediaError, faults
from ccl.media.read import read_natural
from ccl.media.resampling import FFMPEG, resample
from ccl.media.write import write_clip

CRF, RATE, BITRATE = 16, 48_000, 192_000  # of what must be encoded anew, so that one sees and hears no difference
# Supplemental units of H.264, in which encoders write who they are, and anybody may write anything.
_PLAIN = "filter_units=remove_types=6"


def is_shown(source: str | Path) -> bool:
    """Whether every browser plays a file as it is, so that `write_shown` copies it. MediaError where it is none."""
    with opened(source, str(source)) as container:
        return _fits(container, Path(source))


def write_shown(source: str | Path, target: str | Path) -> None:
    """Write an mp4 that every browser plays and that tells nothing of where it comes from.

    An mp4 or mov that browsers play is copied packet by packet, so pictures and sound are the file's own; any other
    file is encoded anew as it is read, its sound then mono. Names, dates, comments and the encoder's own notes stay
    behind.

    Args:
        source: a film, or a sound alone.
        target: a path, replaced whole or not at all.

    Raises:
        MediaError: the file is corrupt, truncated or absent.
        OSError, MemoryError: the machine is in trouble.
    """
    with opened(source, str(source)) as container:
        if _fits(container, Path(source)):
            _copy(container, Path(source), Path(target))
            return
    write_encoded(read_natural(source)[0], target)


def write_encoded(clip: Clip, target: str | Path) -> None:
    """Write a clip's pictures and sound as `write_shown` does that must encode; an odd row or column is left out."""
    if clip.video is not None:
        height, width = (side // 2 * 2 for side in clip.video.shape[1:3])
        clip = replace(clip, video=clip.video[:, :height, :width])
    if clip.audio is not None:
        clip = replace(clip, audio=resample(clip.audio, clip.sample_rate, RATE, FFMPEG), sample_rate=RATE)
    write_clip(clip, target, crf=CRF, audio_bitrate=BITRATE)


def _fits(container: Any, source: Path) -> bool:
    """Whether an mp4 can take a file's packets as they are: others do not say when each is to be decoded."""
    seen, heard = streams(container, str(source))
    kind = kind_of(container, source)
    return kind == "mp4" and not unseen(seen, kind) and not unheard(heard, kind)


def _copy(container: Any, source: Path, target: Path) -> None:
    """Packets of pictures and sound into a new mp4; each is decoded on the way, so that what is broken is told here."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    found = [stream for stream in streams(container, str(source)) if stream is not None]
    with (
        replacing_path(target) as partial,
        faults(str(source), str(source), "is corrupt or truncated"),
        av.open(str(partial), "w", format="mp4", options=options) as out,
    ):
        copies = {stream.index: out.add_stream_from_template(stream) for stream in found}
        filters = {
            stream.index: BitStreamFilterContext(_PLAIN, stream, copies[stream.index])
            for stream in found
            if stream.codec_context.name == "h264"
        }
        for packet in packets(container, found, str(source), str(source)):
            index = packet.stream.index
            if any(getattr(frame, "is_corrupt", False) for frame in packet.decode()):
                raise MediaError(source, "a picture in it is corrupt")
            whole = packet.dts is not None
            for part in filters[index].filter(packet if whole else None) if index in filters else [packet] * whole:
                part.stream = copies[index]
                out.mux(part)
