"""Clips, sounds and pictures in and out of files (PyAV). The only file of the project that touches containers.

Time zero of a clip is its first picture: sound is placed by its timestamps, so that an offset between the streams, an
encoder's priming or a gap survives as what it is. Every write is whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import wave
from collections.abc import Iterator
from fractions import Fraction
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import av.error
import av.stream
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from ccl.files import replacing_path
from ccl.grid import Grid
from ccl.types import AV, Clip

# Sound may end this much before the picture (an encoder's last block) and is then padded with silence.
SOUND_SLACK = 0.1
SMALL = 480 * 480  # pixels, below which threads cost more than they save
LARGEST = {"pictures": 8 * 2**30, "sound": 2**30}  # bytes that one file may unfold to
_RESIZE = Interpolation.AREA
_CONVERT = Interpolation.AREA


class MediaError(ValueError):
    """A file that cannot be used: `str` is one sentence naming it, `reason` the part after its name."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = str(name), reason

    def __reduce__(self) -> tuple[Any, ...]:  # it travels between the processes of a loader
        return MediaError, (self.name, self.reason)


# Reading ------------------------------------------------------------------------------------------------------------


class _Fit:
    """Turns decoded frames to RGB; with a grid, the largest centred part of their shape, resized."""

    def __init__(self, frame: Any, grid: Grid | None, aspect: float) -> None:
        self.turns = round(frame.rotation / 90) % 4  # quarters, counterclockwise
        width, height = round(frame.width * aspect), frame.height
        if grid is None:
            self.height, self.width = height, width
        else:
            self.height, self.width = (grid.width, grid.height) if self.turns % 2 else (grid.height, grid.width)
        scale = max(self.height / height, self.width / width)
        # Never smaller than the grid, so that a crop remains; a scaled picture is at most one pixel out of shape.
        self.full = max(self.width, round(width * scale)), max(self.height, round(height * scale))
        self.left, self.top = (self.full[0] - self.width) // 2, (self.full[1] - self.height) // 2
        self.threads = 1 if self.full[0] * self.full[1] < SMALL else None
        self.converter = VideoReformatter()  # one for all frames: to set one up takes longer than to use it

    def empty(self, count: int) -> np.ndarray:
        """(T, H, W, 3), of which `__call__` fills one picture."""
        upright = (self.width, self.height) if self.turns % 2 else (self.height, self.width)
        return np.empty((count, *upright, 3), np.uint8)

    @property
    def size(self) -> int:
        """Bytes of a picture."""
        return 3 * self.height * self.width

    def __call__(self, frame: Any, out: np.ndarray) -> None:
        """Write the frame to `out` (H, W, 3), without another copy on the way."""
        frame = self.converter.reformat(frame, *self.full, "rgb24", interpolation=_RESIZE, threads=self.threads)
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        rows = rows[self.top : self.top + self.height, 3 * self.left : 3 * (self.left + self.width)]
        if self.turns:
            out[:] = np.rot90(rows.reshape(self.height, self.width, 3), self.turns)
        else:
            out.reshape(self.height, -1)[:] = rows


class _Pictures:
    """Collects the pictures of a stream, brought to the grid's rate (nearest by timestamp) and size."""

    def __init__(self, stream: Any, grid: Grid | None, name: str) -> None:
        self.stream, self.grid, self.name = stream, grid, name
        self.rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.unit = float(stream.time_base)
        self.fps = self.rate if grid is None else grid.fps
        self.count, self.decoded, self.done = 0, 0, False
        self.start: float | None = None
        self._fit: _Fit | None = None
        self._video: list[np.ndarray] = []  # one array of all pictures with a grid, else an array for each
        self.times: list[float] = []  # of each picture as the file has it
        self._last: tuple[float, Any] | None = None  # the newest frame, not yet known to be the nearest to anything

    @property
    def video(self) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        if self.grid:
            return self._video[0][: self.count]
        video = np.empty((self.count, *self._video[0].shape[1:]), np.uint8)
        for index in range(self.count):  # one by one, so that there are never two of all
            video[index] = self._video[index][0]
            self._video[index] = video[index : index + 1]
        return video

    def add(self, frame: Any) -> None:
        time = self.decoded / self.rate if frame.pts is None else frame.pts * self.unit
        if self._fit is None:
            self.start = time
            self._fit = _Fit(frame, self.grid, float(self.stream.sample_aspect_ratio or 1))
            self._video = [self._fit.empty(self.grid.frames)] if self.grid else []
        self.decoded += 1
        self.times.append(time)
        if self.grid is None:
            # Whoever asks for a constant rate gets pictures for a gap, too.
            span = max(self.decoded, (time - self.times[0]) * max(self.rate, 25.0))
            if span * (size := self._fit.size) > LARGEST["pictures"]:
                raise MediaError(self.name, _too_large(span * size, "pictures"))
            self._video.append(self._fit.empty(1))
            self._fit(frame, self._video[-1][0])
            self.count += 1
            return
        if self._last is not None:
            # The previous frame is the nearest one to all times before the middle between it and this one.
            self._emit(until=(self._last[0] + time) / 2)
        self._last = (time, frame)

    def finish(self) -> None:
        """At the end of the file the last frame holds for its own duration."""
        if self._last is not None and self.start is not None:
            available = floor((self._last[0] - self.start + 1 / self.rate) * self.fps + 0.01)
            self._emit(until=self.start + (available - 0.5) / self.fps)

    def _emit(self, until: float) -> None:
        """Take the newest frame for all times before `until` that have none yet."""
        assert self.grid is not None and self._last is not None and self._fit is not None and self.start is not None
        first = self.count
        while not self.done and self.start + self.count / self.fps < until:
            if self.count == first:
                self._fit(self._last[1], self._video[0][first])
            else:
                self._video[0][self.count] = self._video[0][first]
            self.count += 1
            self.done = self.count == self.grid.frames


class _Sound:
    """Collects mono samples at the file's own rate, by timestamp."""

    def __init__(self, stream: Any, grid: Grid | None, pictures: _Pictures | None, name: str) -> None:
        self.stream, self.grid, self.pictures, self.name = stream, grid, pictures, name
        self.rate = int(stream.codec_context.sample_rate)
        self.unit = float(stream.time_base) * self.rate
        self.chunks: list[tuple[int, np.ndarray]] = []  # position from time 0 of the file, samples
        self.end = 0
        self.done = False

    def add(self, frame: Any) -> None:
        at = self.end if frame.pts is None else round(frame.pts * self.unit)
        samples = _mono(frame)
        if abs(at - self.end) <= self.rate // 100 and self.chunks:
            at = self.end  # jitter of coarse timestamps is no gap
        self.chunks.append((at, samples))
        self.end = at + len(samples)
        if (size := 4 * (self.end - self.chunks[0][0])) > LARGEST["sound"]:
            raise MediaError(self.name, _too_large(size, "sound"))
        start = self.pictures.start if self.pictures else 0.0
        if self.grid is not None and start is not None:
            self.done = self.end >= (start + self.grid.seconds + SOUND_SLACK) * self.rate

    def from_time(self, start: float | None, sample_rate: int) -> np.ndarray:
        """(S,) samples at `sample_rate`, the first one at `start` seconds (None: where the sound begins)."""
        first = self.chunks[0][0] if start is None else round(start * self.rate)
        if (size := 4 * (self.end - first)) > LARGEST["sound"]:  # a late beginning is silence, and counts
            raise MediaError(self.name, _too_large(size, "sound"))
        out = np.zeros(max(0, self.end - first), np.float32)
        for at, samples in self.chunks:
            skip = max(0, first - at)
            if skip < len(samples):
                out[at + skip - first : at - first + len(samples)] = samples[skip:]
        return resample(out, self.rate, sample_rate)


def read_clip(
    source: str | Path | bytes,
    *,
    grid: Grid | None = None,
    prompt: str = "",
    id: str = "",
    require: AV[bool] = AV(True, True),
    sample_rate: int = 16_000,
) -> Clip:
    """Read a file of any container and codec that ffmpeg knows.

    With a grid: its first `grid.frames` pictures at `grid.fps` (nearest by timestamp), centre-cropped and resized with
    anti-aliasing, and the sound of exactly that time, mono. Without: all pictures at their own rate and size; where
    both streams are read, the sound is cut or padded to the length of the pictures.

    Args:
        source: a path, or the bytes of a file.
        grid: what the clip is brought to.
        prompt: goes into the clip.
        id: names the clip; default the file's name without its ending.
        require: streams that must be there; a stream not required is not read and is None.
        sample_rate: Hz of the sound, where there is no grid.

    Raises:
        MediaError: a required stream is missing, the clip is too short, the file is corrupt, truncated or absent.
    """
    name = (id or "clip in memory") if isinstance(source, bytes) else str(source)
    id = id or ("" if isinstance(source, bytes) else Path(source).stem)
    with _opened(source, name) as container:
        pictures = _Pictures(_stream(container, "video", name), grid, name) if require.video else None
        sound = _Sound(_stream(container, "audio", name), grid, pictures, name) if require.audio else None
        _decode(container, pictures, sound, name)
    fps = grid.fps if grid else (pictures.fps if pictures else 25.0)
    sample_rate = grid.sample_rate if grid else sample_rate
    video = None if pictures is None else _checked_pictures(pictures, name)
    audio = None
    if sound is not None:
        if not sound.chunks:
            raise MediaError(name, "its audio stream holds no sound")
        audio = sound.from_time(pictures.start if pictures else None, sample_rate)
        length = grid.samples if grid else (len(audio) if video is None else round(len(video) / fps * sample_rate))
        if grid is not None and len(audio) < length - SOUND_SLACK * sample_rate:
            have, need = len(audio) / sample_rate, length / sample_rate
            raise MediaError(name, f"sound too short ({have:.2f} of {need:.2f} s)")
        # A lossy codec overshoots what it was given.
        audio = np.clip(_fit_length(audio, length), -1, 1)
    return Clip(video=video, audio=audio, fps=fps, sample_rate=sample_rate, prompt=prompt, id=id)


def read_natural(path: str | Path) -> tuple[Clip, dict[str, str]]:
    """A file as it is: all pictures with their times, all sound at its own rate, mono; nothing is cut or padded.

    Returns:
        The clip, and why a stream is missing, by "video" and "audio", where one alone can be read.

    Raises:
        MediaError: neither can, or the file is corrupt, truncated or absent.
    """
    name, without = str(path), {}
    with _opened(path, name) as container:
        streams = {}
        for kind in AV._fields:
            try:
                streams[kind] = _stream(container, kind, name)
            except MediaError as error:
                without[kind] = error.reason
        if not streams:
            raise MediaError(name, "; ".join(without.values()))
        pictures = _Pictures(streams["video"], None, name) if "video" in streams else None
        sound = _Sound(streams["audio"], None, None, name) if "audio" in streams else None
        _decode(container, pictures, sound, name)
    fps, rate, video, times, audio = 25.0, 16_000, None, None, None
    if pictures is not None:
        fps, video = pictures.fps, _checked_pictures(pictures, name)
        times = np.asarray(pictures.times) - pictures.times[0]
    if sound is not None and not sound.chunks:
        without["audio"] = "its audio stream holds no sound"
    elif sound is not None:
        rate = sound.rate
        audio = np.clip(sound.from_time(pictures.start if pictures else None, rate), -1, 1)
    return Clip(video, audio, fps, rate, id=Path(path).stem, times=times), without


def first_picture(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A file's first picture, upright, at its own size; nothing else is decoded. MediaError where there is none."""
    name = str(path)
    with _opened(path, name) as container:
        stream = _stream(container, "video", name)
        stream.codec_context.thread_type = "NONE"  # with threads, several pictures are decoded before one comes
        try:
            for frame in container.decode(stream):
                fit = _Fit(frame, None, float(stream.sample_aspect_ratio or 1))
                if fit.size > LARGEST["pictures"]:
                    raise MediaError(name, _too_large(fit.size, "pictures"))
                out = fit.empty(1)
                fit(frame, out[0])
                return out[0]
        except av.error.FFmpegError as error:
            raise MediaError(name, _reason(error, "is corrupt or truncated")) from error
    raise MediaError(name, "its video stream holds no picture")


def read_audio(source: str | Path | bytes, sample_rate: int = 16_000) -> Float32[np.ndarray, " s"]:
    """The sound of any audio or video file: mono in [-1, 1], whole. MediaError as `read_clip`."""
    audio = read_clip(source, require=AV(False, True), sample_rate=sample_rate).audio
    assert audio is not None
    return audio


def read_image(path: str | Path, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as RGB, turned as its EXIF says, centre-cropped and resized with anti-aliasing.

    Raises:
        MediaError: the file is absent or no picture.
    """
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            return np.array(ImageOps.fit(upright, (width, height), Image.Resampling.BOX))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MediaError(path, _reason(error, "is not a picture that can be read")) from error


def resample(audio: Float32[np.ndarray, " s"], rate: int, to: int) -> Float32[np.ndarray, " r"]:
    """Change the rate of samples without delay (zero-phase polyphase filter)."""
    if rate == to or not len(audio):
        return audio
    from scipy.signal import resample_poly

    ratio = Fraction(to, rate)
    return resample_poly(audio, ratio.numerator, ratio.denominator).astype(np.float32)


@contextlib.contextmanager
def _opened(source: str | Path | bytes, name: str) -> Iterator[Any]:
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise MediaError(name, "no such file")
    try:
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(name, _reason(error, "is corrupt, truncated or no media file")) from error
    with container:
        yield container


def _stream(container: Any, kind: str, name: str) -> Any:
    # A cover picture in a sound file is listed as a video stream.
    found = [s for s in getattr(container.streams, kind) if not s.disposition & av.stream.Disposition.attached_pic]
    if not found:
        raise MediaError(name, f"no {kind} stream")
    stream = found[0]
    if stream.codec_context is None:
        raise MediaError(name, f"its {kind} stream has a format this ffmpeg cannot decode")
    small = kind == "audio" or stream.codec_context.width * stream.codec_context.height < SMALL
    stream.codec_context.thread_type = "NONE" if small else "AUTO"
    stream.codec_context.thread_count = 1 if small else 0
    return stream


def _decode(container: Any, pictures: _Pictures | None, sound: _Sound | None, name: str) -> None:
    """Run through the file once, until both collectors have what they need."""
    collectors = {c.stream.index: c for c in (pictures, sound) if c is not None}
    try:
        for packet in container.demux([c.stream for c in collectors.values()]):
            collector = collectors[packet.stream.index]  # a flushing packet has no stream_index of its own
            if collector.done:
                continue
            for frame in packet.decode():
                if collector is pictures and frame.is_corrupt:
                    raise MediaError(name, f"its picture {collector.decoded} is corrupt")
                collector.add(frame)
            if collector.done and all(c.done for c in collectors.values()):
                return
    except av.error.FFmpegError as error:
        raise MediaError(name, _reason(error, "is corrupt or truncated")) from error
    if pictures and not pictures.done:
        pictures.finish()


def _checked_pictures(pictures: _Pictures, name: str) -> np.ndarray:
    promised = pictures.stream.frames  # 0 where the container does not say
    if pictures.decoded < 0.95 * promised and not pictures.done:
        raise MediaError(name, f"is truncated: {pictures.decoded} of the {promised} pictures its header promises")
    if pictures.grid is not None and not pictures.done:
        have = f"{pictures.count} of {pictures.grid.frames} frames at {pictures.fps:g} fps"
        raise MediaError(name, f"too short ({have})")
    if not pictures.count:
        raise MediaError(name, "its video stream holds no picture")
    return pictures.video


def _mono(frame: Any) -> np.ndarray:
    """(S,) float32 in [-1, 1]: the mean of a frame's channels."""
    if frame.format.name == "fltp" and frame.layout.nb_channels == 1:  # AAC as we write it, without detours
        return np.frombuffer(frame.planes[0], np.float32, frame.samples)
    data = frame.to_ndarray()
    data = data if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
    return data.mean(0, dtype=np.float32)


def _fit_length(audio: np.ndarray, length: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly `length` samples."""
    return np.ascontiguousarray(np.pad(audio[:length], (0, max(0, length - len(audio)))))


def _too_large(size: int | float, what: str) -> str:
    return f"its {what} would take {size / 2**30:,.0f} GB and more, {LARGEST[what] / 2**30:g} is the most that is read"


def _reason(error: Exception, what: str) -> str:
    detail = getattr(error, "strerror", None) or str(error)
    return f"{what} ({detail.strip().rstrip('.')})" if detail.strip() else what


# Writing ------------------------------------------------------------------------------------------------------------


def write_clip(
    clip: Clip, target: str | Path | io.BufferedIOBase, *, crf: int = 12, audio_bitrate: int = 64_000
) -> None:
    """Write an mp4 (h264 yuv420p, AAC mono) that plays everywhere; equal clips give equal bytes.

    A clip without pictures becomes an mp4 with sound alone, or a wav where the path ends in .wav; without sound, a
    silent mp4.

    Args:
        clip: any even height and width.
        target: a path, replaced whole or not at all, or an open binary file.
        crf: quality of x264: 12 keeps small clips intact, 18 is good for large ones.
        audio_bitrate: bits a second; 96,000 is the most that AAC takes at 16 kHz.

    Raises:
        MediaError: the clip is empty, odd in size or of another type than its fields promise.
    """
    if not isinstance(target, (str, Path)):
        # The index can only be put in front of a real file.
        with TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            _encode(clip, path, clip.id or "clip", crf, audio_bitrate)
            target.write(path.read_bytes())
        return
    if Path(target).suffix.lower() == ".wav":
        if clip.audio is None:
            raise MediaError(target, "a clip without sound cannot become a wav file")
        write_wav(target, clip.audio, clip.sample_rate)
        return
    with replacing_path(target) as path:
        _encode(clip, path, str(target), crf, audio_bitrate)


def write_wav(path: str | Path, audio: Float32[np.ndarray, " s"], sample_rate: int = 16_000) -> None:
    """Mono 16-bit PCM; samples beyond [-1, 1] are clipped."""
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    with replacing_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())


def write_png(path: str | Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """An RGB picture, lossless."""
    with replacing_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def gif_bytes(video: UInt8[np.ndarray, "t h w 3"], fps: float, *, every: int = 2) -> bytes:
    """An endless animated GIF of every `every`-th frame, for TensorBoard, which shows no mp4."""
    frames = [Image.fromarray(frame) for frame in video[::every]]
    file = io.BytesIO()
    # GIF counts in hundredths of a second.
    duration = max(20, round(100 * every / fps) * 10)
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return file.getvalue()


def _encode(clip: Clip, path: Path, name: str, crf: int, audio_bitrate: int) -> None:
    if clip.video is None and clip.audio is None:
        raise MediaError(name, "a clip with neither pictures nor sound cannot be written")
    if clip.video is not None:
        shape = clip.video.shape
        if clip.video.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or not len(clip.video):
            raise MediaError(name, f"video must be (T, H, W, 3) uint8, not {shape} {clip.video.dtype}")
        if shape[1] % 2 or shape[2] % 2:
            raise MediaError(name, f"video is {shape[2]} x {shape[1]}; h264 needs an even width and height")
    if clip.audio is not None and (clip.audio.ndim != 1 or not np.isfinite(clip.audio).all()):
        raise MediaError(name, "audio must be finite mono samples of shape (S,)")
    # bitexact: no version strings, so that equal clips are equal bytes and shards have a stable sha256.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    try:
        with av.open(str(path), "w", format="mp4", options=options) as container:
            video = None if clip.video is None else _video_stream(container, clip, crf)
            audio = None if clip.audio is None else _audio_stream(container, clip, audio_bitrate)
            if video is not None:
                _mux_video(container, video, clip)
            if audio is not None:
                _mux_audio(container, audio, clip)
    except av.error.FFmpegError as error:
        raise MediaError(name, _reason(error, "cannot be written")) from error


def _video_stream(container: Any, clip: Clip, crf: int) -> Any:
    assert clip.video is not None
    # One thread and no B-frames: the same bytes on every machine, and no reordering delay to be undone by an edit list.
    options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "threads": "1"}
    stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1001), options=options)
    stream.height, stream.width, stream.pix_fmt = *clip.video.shape[1:3], "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU601
    return stream


def _audio_stream(container: Any, clip: Clip, bitrate: int) -> Any:
    stream = container.add_stream("aac", rate=clip.sample_rate, layout="mono")
    stream.bit_rate = bitrate
    return stream


def _mux_video(container: Any, stream: Any, clip: Clip) -> None:
    for index, picture in enumerate(clip.video):  # type: ignore[arg-type]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, interpolation=_CONVERT)
        frame.pts, frame.time_base = index, 1 / stream.codec_context.framerate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _mux_audio(container: Any, stream: Any, clip: Clip) -> None:
    samples = np.clip(clip.audio, -1, 1).astype(np.float32)  # type: ignore[arg-type]
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = clip.sample_rate, 0, Fraction(1, clip.sample_rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
