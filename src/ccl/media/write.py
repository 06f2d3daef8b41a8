"""Writing films and sounds, whole or not at all."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from jaxtyping import Float32

from ccl.files import replacing, write_whole
from ccl.media.clip import Clip
from ccl.media.errors import MediaError, faults

# As C has it: otherwise swscale rounds differently with each set of vector instructions, and not faster.
_CONVERT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# One thread, and of x264's vector code only what gives the same everywhere: with AVX-512 its look at the frames ahead
# (mbtree) also reads memory that it never wrote, so that quality followed from what had lain there before. No B-frames:
# no reordering delay to be undone by an edit list.
_X264 = {"preset": "veryfast", "bf": "0", "threads": "1", "x264-params": "cpu-independent=1"}
_TICKS = 90_000  # a second, of pictures that have times of their own


def write_clip(
    clip: Clip, target: str | Path | io.BufferedIOBase, *, crf: int = 12, audio_bitrate: int = 64_000
) -> None:
    """Write an mp4 (h264 yuv420p, AAC mono) that plays everywhere; equal clips give equal bytes: pictures by
    every processor, sound by every x86 that has AVX.

    A clip without pictures becomes an mp4 with sound alone, or a wav where the path ends in .wav; without sound, a
    silent mp4. Pictures with times of their own keep them.

    Args:
        clip: any even height and width.
        target: a path, replaced whole or not at all, or an open binary file.
        crf: quality of x264: 12 keeps small clips intact, 18 is good for large ones.
        audio_bitrate: bits a second; 96,000 is the most that AAC takes at 16 kHz.

    Raises:
        MediaError: the clip is empty, odd in size or of another type than its fields promise.
    """
    if not isinstance(target, (str, Path)):
        target.write(_encode(clip, clip.id or "clip", crf, audio_bitrate))
    elif Path(target).suffix.lower() != ".wav":
        write_whole(Path(target), _encode(clip, str(target), crf, audio_bitrate))
    elif clip.audio is None:
        raise MediaError(target, "a clip without sound cannot become a wav file")
    else:
        write_wav(target, clip.audio, clip.sample_rate)


def write_wav(path: str | Path, audio: Float32[np.ndarray, " s"], sample_rate: int = 16_000) -> None:
    """Mono 16-bit PCM; samples beyond [-1, 1] are clipped."""
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    with replacing(path) as target, wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())


class _Reader(io.RawIOBase):
    """Reads what another hand still writes: the muxer itself does so, to put the index in front."""

    def __init__(self, file: io.BytesIO) -> None:
        self.file, self.at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self.file.getbuffer() as data:
            found = bytes(data[self.at :] if size < 0 else data[self.at : self.at + size])
        self.at += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, len(self.file.getvalue()) if whence == 2 else 0)[whence]
        return self.at

    def tell(self) -> int:
        return self.at


def _encode(clip: Clip, name: str, crf: int, audio_bitrate: int) -> bytes:
    """An mp4 in memory, so that a kill leaves nothing behind."""
    if clip.video is None and clip.audio is None:
        raise MediaError(name, "a clip with neither pictures nor sound cannot be written")
    if clip.video is not None:
        shape = clip.video.shape
        if clip.video.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or not len(clip.video):
            raise MediaError(name, f"video must be (T, H, W, 3) uint8, not {shape} {clip.video.dtype}")
        if shape[1] % 2 or shape[2] % 2:
            raise MediaError(name, f"video is {shape[2]} x {shape[1]}; h264 needs an even width and height")
        if clip.times is not None and len(clip.times) != len(clip.video):
            raise MediaError(name, f"there are {len(clip.video)} pictures and {len(clip.times)} times of them")
    if clip.audio is not None and (clip.audio.ndim != 1 or not np.isfinite(clip.audio).all()):
        raise MediaError(name, "audio must be finite mono samples of shape (S,)")
    # bitexact: no version strings, so that equal clips are equal bytes and shards have a stable sha256.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    file = io.BytesIO()
    with (
        faults(b"", name, "cannot be written"),
        av.open(file, "w", format="mp4", options=options, io_open=lambda *_: _Reader(file)) as container,
    ):
        video = None if clip.video is None else _video_stream(container, clip, crf)
        audio = None if clip.audio is None else _audio_stream(container, clip, audio_bitrate)
        if video is not None:
            _mux_video(container, video, clip)
        if audio is not None:
            _mux_audio(container, audio, clip)
    return file.getvalue()


def _video_stream(container: Any, clip: Clip, crf: int) -> Any:
    assert clip.video is not None
    rate, options = Fraction(clip.fps).limit_denominator(1001), {"crf": str(crf), **_X264}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = *clip.video.shape[1:3], "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU601
    if clip.times is not None:
        stream.codec_context.time_base = Fraction(1, _TICKS)
    return stream


def _audio_stream(container: Any, clip: Clip, bitrate: int) -> Any:
    stream = container.add_stream("aac", rate=clip.sample_rate, layout="mono")
    stream.bit_rate = bitrate
    return stream


def _mux_video(container: Any, stream: Any, clip: Clip) -> None:
    assert clip.video is not None
    times, unit = range(len(clip.video)), 1 / stream.codec_context.framerate
    if clip.times is not None:
        times, unit = np.round(clip.times * _TICKS).astype(int).tolist(), Fraction(1, _TICKS)
    packets = []
    for time, picture in zip(times, clip.video, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, interpolation=_CONVERT)
        frame.pts, frame.time_base = time, unit
        packets += stream.encode(frame)
    packets += stream.encode(None)
    if clip.times is not None:  # the encoder cannot know how long the last one is held
        packets[-1].duration = round((len(clip.video) / clip.fps - clip.times[-1]) / packets[-1].time_base)
    container.mux(packets)


def _mux_audio(container: Any, stream: Any, clip: Clip) -> None:
    samples = np.clip(clip.audio, -1, 1).astype(np.float32)  # type: ignore[arg-type]
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = clip.sample_rate, 0, Fraction(1, clip.sample_rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
