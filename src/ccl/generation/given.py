"""What a row gives, read onto a model's grid: pictures, sound, a clip that is gone on from or led to, a voice.

Whatever had to be cut, padded or cropped becomes a note, a sentence on the clip. F pictures, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ccl import arguments
from ccl.generation.windows import pictures_of
from ccl.grid import PICTURES, Grid
from ccl.media import Clip, MediaError, first_picture, fit_image, is_sound, read_audio, read_clip, read_image
from ccl.rows import Row
from ccl.types import AV, VOICE_SECONDS, Stream

LONGEST = 600.0  # seconds of a clip that is gone on from
LOUDEST = 100.0  # of samples: far above what any recording overshoots 1 by, and below what integers of 16 bits are


@dataclass(frozen=True)
class Media:
    """What one clip is given, as media: video (F, H, W, 3) uint8, audio (S,) float32, or None.

    Args:
        start: from the clip's beginning on: the whole of a stream, a first picture, what the clip goes on from, of as
            many pictures as the codec makes whole latent frames of.
        end: up to the clip's end: a last picture, what the clip leads to.
        voice: outside the clip: a sound of whoever is to speak, (S,) float32.
    """

    start: AV[Any] = AV(None, None)
    end: AV[Any] = AV(None, None)
    voice: Any = None

    def without_first(self) -> Media:
        """The same without a first picture, which a network is shown instead."""
        return replace(self, start=AV(None, self.start.audio))

    def window(self, given: Stream | None, first: int, grid: Grid) -> Media:
        """The media of one window of several: of a stream that is given whole, what lies in it.

        Args:
            given: that stream.
            first: picture of the window.
            grid: of a window.
        """
        video, audio = self.start
        if given == "video":
            video = video[first : first + grid.frames]
        if given == "audio":
            begin = grid.samples_of(first)
            audio = audio[begin : begin + grid.samples]
        return replace(self, start=AV(video, audio))


def read(row: Row, grid: Grid, notes: list[str]) -> Media:
    """What is given, a clip that is gone on from or led to apart (see `film_of`).

    Args:
        row: that names it.
        grid: of the clip.
        notes: gets a sentence for each thing that was cut, padded or cropped.
    """
    pictures = frames(row.video, grid, notes) if row.image is None else picture(row.image, grid, notes)
    last = None if row.last_image is None else picture(row.last_image, grid, notes, "the last image")
    return Media(AV(pictures, sound(row.audio, grid, notes)), AV(last, None), voice(row.voice, grid, notes))


def film_of(clip: Any, grid: Grid, wanted: AV[bool], notes: list[str]) -> AV[Any]:
    """A whole clip, however long, with the grid's size and rates: video (F, H, W, 3) uint8 and audio (S,) float32.

    Args:
        clip: a path, or a Clip.
        grid: of the model.
        wanted: its streams; the others are None.
        notes: gets a sentence for what was cropped.

    Raises:
        ValueError: a stream is missing, the clip is no clip or too long, or its sound is not as long as its pictures.
    """
    if isinstance(clip, str | Path):
        if not wanted.video:
            return whole_pictures(AV(None, read_audio(clip, grid.sample_rate)), grid)
        most = min(round(LONGEST * grid.fps), PICTURES // (3 * grid.height * grid.width))
        room = grid.resized(frames=1 + most // grid.stride_time * grid.stride_time)
        found = read_clip(clip, grid=room, require=wanted, shorter=True)
        if found.video is not None and len(found.video) == room.frames:
            raise ValueError(f"{clip} is longer than {room.seconds:.0f} s; cut it to its last seconds")
        note_crop(first_picture(clip), grid, str(clip), notes)
        return AV(found.video, found.audio)
    arguments.instance("the clip", clip, Clip, "the path of a clip, or a ccl.media.Clip")
    if (clip.fps, clip.sample_rate) != (grid.fps, grid.sample_rate):
        rates = f"{clip.fps:g} pictures and {clip.sample_rate:,} samples a second"
        raise ValueError(f"the clip has {rates}; this model needs {grid.fps:g} and {grid.sample_rate:,}: save it first")
    for stream, needed in wanted._asdict().items():
        if needed and getattr(clip, stream) is None:
            raise ValueError(f"the clip has no {stream}")
    pictures = fitted(clip.video, grid, "the clip", notes) if wanted.video else None
    return whole_pictures(AV(pictures, clip.audio if wanted.audio else None), grid)


def whole_pictures(film: AV[Any], grid: Grid) -> AV[Any]:
    """A film whose sound is as long as its pictures, or as whole ones beside it would be."""
    length = grid.samples_of(pictures_of(film, grid.fps, grid.sample_rate))
    return AV(film.video, None if film.audio is None else to_length(film.audio, length))


def picture(image: Any, grid: Grid, notes: list[str], what: str = "the image") -> UInt8[np.ndarray, "1 h w 3"]:
    """A path, or a picture of any size, in the grid's."""
    name = str(image) if isinstance(image, str | Path) else what
    if isinstance(image, str | Path):
        image = read_image(image)
    image = array(what, image, "(H, W, 3) uint8")
    if image.ndim != 3:
        raise ValueError(f"{what} is {image.shape} {image.dtype}; it must be (H, W, 3) uint8")
    return fitted(image[None], grid, name, notes)


def frames(video: Any, grid: Grid, notes: list[str]) -> UInt8[np.ndarray, "f h w 3"] | None:
    """A path, or pictures of any size at the grid's rate, in the grid's size."""
    if video is None:
        return None
    if isinstance(video, str | Path):
        return film(video, grid, notes)
    wanted = f"({grid.frames}, H, W, 3) uint8, {grid.fps:g} pictures a second"
    video = array("the video", video, wanted)
    if video.ndim != 4 or len(video) != grid.frames:
        raise ValueError(f"the video is {video.shape} {video.dtype}; this model needs {wanted}")
    return fitted(video, grid, "the video", notes)


def film(path: str | Path, grid: Grid, notes: list[str]) -> UInt8[np.ndarray, "f h w 3"] | None:
    """The beginning of a file, on the grid."""
    alone = AV(True, False)
    try:  # a little more than is needed, to see whether it goes on
        longer = replace(grid, frames=grid.frames + grid.stride_time)
        video = read_clip(path, grid=longer, require=alone).video
        assert video is not None
        video = video[: grid.frames]
        notes.append(f"{path} goes on after {grid.seconds:.2f} s; its first {grid.seconds:.2f} s were taken")
    except MediaError:
        video = read_clip(path, grid=grid, require=alone).video
    note_crop(first_picture(path), grid, str(path), notes)
    return video


def fitted(pictures: np.ndarray, grid: Grid, name: str, notes: list[str]) -> UInt8[np.ndarray, "f h w 3"]:
    """Pictures in the grid's size: the largest centred part of that shape, resized."""
    if pictures.shape[3] != 3 or pictures.dtype != np.uint8 or 0 in pictures.shape:
        raise ValueError(f"{name} has pictures of {pictures.shape[1:]} {pictures.dtype}; they must be (H, W, 3) uint8")
    if pictures.shape[1:3] == (grid.height, grid.width):
        return pictures
    note_crop(pictures[0], grid, name, notes)
    return np.stack([fit_image(picture, grid.height, grid.width) for picture in pictures])


def note_crop(picture: np.ndarray, grid: Grid, name: str, notes: list[str]) -> None:
    """Say which part of pictures like this one is taken, where their shape is not the grid's."""
    height, width, _ = picture.shape
    scale = min(height / grid.height, width / grid.width)
    tall, wide = round(scale * grid.height), round(scale * grid.width)
    if (tall, wide) != (height, width):
        notes.append(f"{name} is {width} x {height}; its middle {wide} x {tall} was taken")


def sound(audio: Any, grid: Grid, notes: list[str]) -> Float32[np.ndarray, " s"] | None:
    """A path, or samples at the grid's rate: cut, or padded with silence, to the length of a clip."""
    if audio is None:
        return None
    name, audio = samples_of(audio, grid, "the sound")
    seconds, wanted = len(audio) / grid.sample_rate, grid.seconds
    if len(audio) > grid.samples:
        notes.append(f"{name} lasts {seconds:.2f} s; its first {wanted:.2f} s were taken")
    elif len(audio) < grid.samples:
        notes.append(f"{name} lasts {seconds:.2f} s; silence follows, up to {wanted:.2f} s")
    return to_length(audio, grid.samples)


def voice(audio: Any, grid: Grid, notes: list[str]) -> Float32[np.ndarray, " s"] | None:
    """A path, or samples at the grid's rate: the first VOICE_SECONDS of them."""
    if audio is None:
        return None
    name, audio = samples_of(audio, grid, "the voice")
    most = round(VOICE_SECONDS * grid.sample_rate)
    if len(audio) > most:
        seconds = len(audio) / grid.sample_rate
        notes.append(f"{name} lasts {seconds:.2f} s; its voice was taken from the first {VOICE_SECONDS:g} s")
    return audio[:most]


def samples_of(audio: Any, grid: Grid, what: str) -> tuple[str, Float32[np.ndarray, " s"]]:
    """Samples at the grid's rate of a path or an array, and what to call them."""
    name = str(audio) if isinstance(audio, str | Path) else what
    if isinstance(audio, str | Path):
        audio = read_audio(audio, grid.sample_rate)
    needed = "mono samples (S,), floats in [-1, 1]"
    audio = array(what, audio, needed)
    if not is_sound(audio) or not len(audio):
        raise ValueError(f"{what} is {arguments.described(audio)}; this model needs {needed}")
    audio = audio.astype(np.float32)
    if not np.abs(audio).max() <= LOUDEST:
        raise ValueError(f"{what} reaches {np.abs(audio).max():g}; samples are from -1 to 1")
    return name, audio


def array(name: str, given: Any, wanted: str) -> np.ndarray:
    """What is given as an array: an array, a tensor or nested lists. ValueError where it is none."""
    try:
        return np.asarray(given)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is {arguments.described(given)}; this model needs {wanted}") from error


def to_length(audio: Float32[np.ndarray, " s"], samples: int) -> Float32[np.ndarray, " n"]:
    """Cut, or pad with silence, to a length: latents hold a whole number of blocks, a clip may not."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))
