"""Reading films and sounds; the rules stand in `ccl.media`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ccl.grid import Grid
from ccl.media.clip import Clip
from ccl.media.container import best_stream, opened, packets
from ccl.media.errors import MediaError, check_size, faults
from ccl.media.pictures import Pictures, Upright, pixel_aspect
from ccl.media.sound import Sound, channels
from ccl.types import AV, STREAMS

# Sound may end this much before the picture (an encoder's last block) and is then padded with silence.
SOUND_SLACK = 0.1


def read_clip(
    source: str | Path | bytes,
    *,
    grid: Grid | None = None,
    prompt: str = "",
    id: str = "",
    require: AV[bool] = AV(True, True),
    sample_rate: int = 16_000,
    shorter: bool = False,
) -> Clip:
    """Read a file of any container and codec that ffmpeg knows.

    With a grid: its first `grid.frames` pictures at `grid.fps` (nearest by timestamp), centre-cropped and resized with
    anti-aliasing, and the sound of exactly that time, mono. Without: all pictures at their own times and size; where
    both streams are read, the sound is cut or padded to the length of the pictures.

    Args:
        source: a path, or the bytes of a file.
        grid: what the clip is brought to.
        prompt: goes into the clip.
        id: names the clip; default the file's name without its ending.
        require: streams that must be there; a stream not required is not read and is None.
        sample_rate: Hz of the sound, where there is no grid.
        shorter: than the grid it may be; all of it is read then.

    Raises:
        MediaError: a required stream is missing, the clip is too short, the file is corrupt, truncated or absent.
        OSError, MemoryError: the machine is in trouble.
    """
    name = (id or "clip in memory") if isinstance(source, bytes) else str(source)
    id = id or ("" if isinstance(source, bytes) else Path(source).stem)
    rate = grid.sample_rate if grid else sample_rate
    with opened(source, name) as container:
        seen = best_stream(container, "video", name) if require.video else None
        heard = best_stream(container, "audio", name, seen) if require.audio else None
        pictures = Pictures(seen, grid, name) if seen else None
        sound = Sound(heard, name, rate) if heard else None
        decode(container, pictures, sound, source, name, None if grid is None else grid.seconds + SOUND_SLACK)
    fps, video, times, audio = grid.fps if grid else 25.0, None, None, None
    if pictures is not None:
        pictures.finish(shorter)
        fps, video, times = pictures.fps, pictures.video, None if grid else pictures.times
    if sound is not None:
        sound.finish()
        audio = sound.from_time(pictures.start if pictures else None, rate)
        length = grid.samples if grid else len(audio)
        length = length if video is None else round(len(video) / fps * rate)
        if grid is not None and len(audio) < length - SOUND_SLACK * rate:
            raise MediaError(name, f"sound too short ({len(audio) / rate:.2f} of {length / rate:.2f} s)")
        audio = _fit_length(audio, length)
    return Clip(video, audio, fps, rate, prompt, id, times=times)


def read_natural(path: str | Path) -> tuple[Clip, dict[str, str]]:
    """A file as it is: all pictures with their times, all sound at its own rate, mono; nothing is cut or padded.

    Returns:
        The clip, and why a stream is missing, by "video" and "audio", where one alone can be read.

    Raises:
        MediaError: neither can, or the file is corrupt, truncated or absent.
        OSError, MemoryError: the machine is in trouble.
    """
    name = str(path)
    without: dict[str, str] = {}
    streams: dict[str, Any] = {}
    with opened(path, name) as container:
        for kind in STREAMS:
            try:
                streams[kind] = best_stream(container, kind, name, streams.get("video"))
            except MediaError as error:
                without[kind] = error.reason
        if not streams:
            raise MediaError(name, "; ".join(without.values()))
        pictures = Pictures(streams["video"], None, name) if "video" in streams else None
        sound = Sound(streams["audio"], name) if "audio" in streams else None
        decode(container, pictures, sound, path, name)
    fps, rate, video, times, audio = 25.0, 16_000, None, None, None
    if pictures is not None:
        pictures.finish()
        fps, video, times = pictures.fps, pictures.video, pictures.times
    if sound is not None:
        try:
            sound.finish()
        except MediaError as error:
            without["audio"] = error.reason
        else:
            rate, audio = sound.rate, sound.from_time(pictures.start if pictures else None)
    if video is None and audio is None:
        raise MediaError(name, "; ".join(without.values()))
    return Clip(video, audio, fps, rate, id=Path(path).stem, times=times), without


def first_picture(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A file's first picture, upright, at its own size; nothing else is decoded. MediaError where there is none."""
    name = str(path)
    with opened(path, name) as container:
        stream = best_stream(container, "video", name)
        stream.codec_context.thread_type = "NONE"  # with threads, several pictures are decoded before one comes
        with faults(path, name, "is corrupt or truncated"):
            for frame in container.decode(stream):
                upright = Upright(frame, pixel_aspect(stream, name), None)
                check_size(name, "pictures", upright.size)
                out = upright.empty(1)
                upright(frame, out[0])
                return out[0]
    raise MediaError(name, "its video stream holds no picture")


def read_audio(source: str | Path | bytes, sample_rate: int = 16_000) -> Float32[np.ndarray, " s"]:
    """The sound of any audio or video file: mono in [-1, 1], whole. MediaError as `read_clip`."""
    audio = read_clip(source, require=AV(False, True), sample_rate=sample_rate).audio
    assert audio is not None
    return audio


def read_channels(path: str | Path) -> tuple[Float32[np.ndarray, "c s"], int, tuple[str, ...]]:
    """A file's sound as its codec gives it: each channel by itself, gaps left out, what exceeds full scale kept.

    Returns:
        The channels, their sample rate in Hz, and their names as ffmpeg has them: ("FL", "FR").

    Raises:
        MediaError: there is none, it is corrupt, or its rate or its channels change within it.
        OSError, MemoryError: the machine is in trouble.
    """
    name, blocks, kinds = str(path), [], set[tuple[int, tuple[str, ...]]]()
    with opened(path, name) as container, faults(path, name, "is corrupt or truncated"):
        stream = best_stream(container, "audio", name)
        for frame in container.decode(stream):
            kinds.add((frame.sample_rate, tuple(channel.name for channel in frame.layout.channels)))
            blocks.append(channels(frame).copy())
    if not blocks:
        raise MediaError(name, "its audio stream holds no sound")
    if len(kinds) > 1:
        raise MediaError(name, "its sample rate or its channels change within it")
    [(rate, names)] = kinds
    return np.concatenate(blocks, axis=1), rate, names


def decode(
    container: Any,
    pictures: Pictures | None,
    sound: Sound | None,
    source: str | Path | bytes,
    name: str,
    seconds: float | None = None,
) -> None:
    """Run through the file once, until both collectors have what they need: the sound so many seconds, or all."""
    collectors = {c.stream.index: c for c in (pictures, sound) if c is not None}
    with faults(source, name, "is corrupt or truncated"):
        for packet in packets(container, [c.stream for c in collectors.values()], source, name):
            collector = collectors[packet.stream.index]  # a flushing packet has no stream_index of its own
            if collector.done:
                continue
            for frame in packet.decode():
                collector.add(frame)
            if collector is sound and seconds is not None:
                start = pictures.start if pictures else 0.0
                sound.done = start is not None and sound.end >= start + seconds
            if collector.done and all(c.done for c in collectors.values()):
                return


def _fit_length(audio: np.ndarray, length: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly `length` samples."""
    return np.ascontiguousarray(np.pad(audio[:length], (0, max(0, length - len(audio)))))
