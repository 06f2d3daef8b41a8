"""What a browser makes of a file, without decoding its pictures: whether it is shown, how long, how loud it is when."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ccl.media.container import best_stream, opened
from ccl.media.errors import MediaError
from ccl.media.read import decode
from ccl.media.sound import Sound
from ccl.types import STREAMS

PARTS = 200  # of a clip's time, in each of which its sound has one loudness
# What Chromium, Firefox and Safari all decode, by the container that they take it in: of Apple's only the newest AV1.
_PICTURES = {"mp4": {"h264"}, "webm": {"vp8", "vp9"}}
_SOUND = {
    "mp4": {"aac", "mp3"}, "webm": {"opus", "vorbis"}, "wav": {"pcm_s16le", "pcm_u8", "pcm_f32le"}, "flac": {"flac"},
    "mp3": {"mp3"},
}  # fmt: skip
_PIXELS = {"yuv420p", "yuvj420p"}  # of h264: others are decoded in software, where at all


@dataclass(frozen=True)
class Look:
    """What is known of a file before any of its pictures is decoded.

    Args:
        seconds: of the longer of its streams, as they say, from the first picture on.
        strange: what browsers do not show of it: "hevc", "mpeg4 in avi"; "" where all is shown.
        loudness: (PARTS,) the highest sample, 0..1, of each part of these seconds; empty without sound.
    """

    seconds: float
    strange: str = ""
    loudness: Float32[np.ndarray, " parts"] = field(default_factory=lambda: np.zeros(0, np.float32))


def look(path: str | Path) -> Look:
    """Look at a file.

    Raises:
        MediaError: it is absent, corrupt, truncated, or holds neither pictures nor sound.
        OSError, MemoryError: the machine is in trouble.
    """
    name = str(path)
    with opened(path, name) as container:
        seen, heard = streams(container, name)
        kind = kind_of(container, Path(path))
        strange = ", ".join(filter(None, (unseen(seen, kind), unheard(heard, kind))))
        start, end = span(seen) if seen else (None, 0.0)
        sound = Sound(heard, name) if heard else None
        if sound:
            decode(container, None, sound, path, name)
    if sound is None:
        return Look(end - (start or 0.0), strange)
    try:
        sound.finish()
    except MediaError:  # channels that cancel each other out: there is nothing to draw
        return Look(end - (start or 0.0), strange)
    samples = sound.from_time(start)
    seconds = max(end - (start or 0.0), len(samples) / sound.rate)
    return Look(seconds, strange, loudness(samples, seconds * sound.rate))


def streams(container: Any, name: str) -> tuple[Any, Any]:
    """Pictures and sound, None where there are none to be read; MediaError where there are neither."""
    found: dict[str, Any] = {}
    why = []
    for kind in STREAMS:
        try:
            found[kind] = best_stream(container, kind, name, found.get("video"))
        except MediaError as error:
            why.append(error.reason)
    if not found:
        raise MediaError(name, "; ".join(why))
    return found.get("video"), found.get("audio")


def kind_of(container: Any, path: Path) -> str:
    """The container as browsers tell them apart."""
    names = container.format.name.split(",")
    if "matroska" in names:  # by one demuxer with webm, which is part of it; browsers go by the name
        return "webm" if path.suffix.lower() == ".webm" else "mkv"
    return "mp4" if "mp4" in names else names[0]


def span(stream: Any) -> tuple[float, float]:
    """Seconds at which a stream begins and ends by its own or its container's word."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration:
        return start, start + float(stream.duration * stream.time_base)
    return start, start + (stream.container.duration or 0) / 1e6


def unseen(stream: Any, kind: str) -> str:
    """What browsers cannot show of the pictures."""
    if stream is None:
        return ""
    codec, pixels = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt
    if codec == "h264" and pixels not in _PIXELS:
        return f"{codec} of {pixels}"
    return "" if codec in _PICTURES.get(kind, ()) else codec + place(codec, kind, _PICTURES)


def unheard(stream: Any, kind: str) -> str:
    """What browsers cannot play of the sound."""
    if stream is None:
        return ""
    codec = stream.codec_context.codec.canonical_name
    return "" if codec in _SOUND.get(kind, ()) else f"{codec} sound{place(codec, kind, _SOUND)}"


def place(codec: str, kind: str, known: dict[str, set[str]]) -> str:
    """The container of a codec, where that alone is strange."""
    return f" in {kind}" if any(codec in codecs for codecs in known.values()) else ""


def loudness(samples: Float32[np.ndarray, " s"], length: float) -> Float32[np.ndarray, " parts"]:
    """The highest sample of each of PARTS equal parts of a time of `length` samples, which may outlast the sound.

    What is no number is shown as silence.
    """
    if not len(samples):
        return np.zeros(0, np.float32)
    edges = np.linspace(0, max(length, len(samples)), PARTS + 1).astype(int)
    starts = np.minimum(edges[:-1], len(samples) - 1)
    peaks = np.maximum.reduceat(np.nan_to_num(np.abs(samples)), starts)
    peaks[edges[:-1] >= len(samples)] = 0
    return np.minimum(peaks, 1).astype(np.float32)
