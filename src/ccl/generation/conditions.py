"""What a clip is given: read onto the model's grid, encoded, and held or shown while the rest is generated.

Given pictures and sound are latent frames that stay as they are (ccl.sampling.Held): the whole of a stream, a first or
last picture, the beginning or the end of a clip. A network of Wan2.1-I2V's kind is shown its first picture instead.
Whatever had to be cut, padded or cropped becomes a note, a sentence on the clip. B clips, T latent frames.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor

from ccl import arguments
from ccl.codecs.base import Codec
from ccl.generation.prompts import written
from ccl.generation.windows import pictures_of
from ccl.grid import PICTURES, Grid
from ccl.image import ImageEncoder
from ccl.image.first import show
from ccl.media import Clip, MediaError, first_picture, fit_image, is_sound, read_audio, read_clip, read_image
from ccl.model.image import Shown
from ccl.model.voice import Voice
from ccl.rows import NAMES, Row
from ccl.sampling import Held
from ccl.tasks import Part, Term
from ccl.text.vocabulary import unknown
from ccl.types import AV, STREAMS, VOICE_SECONDS, Stream

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


@dataclass(frozen=True)
class Conditions:
    """Given media as one model takes them.

    Args:
        codec: of the model.
        grid: of its clips.
        device: where the codec works.
        image: encoder of the first picture, of a network that is shown one.
    """

    codec: Codec
    grid: Grid
    device: torch.device
    image: ImageEncoder | None = None

    def held(self, media: Sequence[Media], like: AV[Any], term: Term) -> Held:
        """Latents of the given media, where they hold, at the times that the term gives them, or None.

        A first picture is a video of one frame, so it holds the first latent frame; rows of a batch may differ.

        Args:
            media: of each row.
            like: noise (B, C, T, ...) of each stream that takes part.
            term: that the clips are sampled on; of a range of times the least is taken.
        """
        clean, mask = zip(*(self._held(stream, media, x) for stream, x in zip(STREAMS, like, strict=True)), strict=True)
        time: AV[float] = AV(*(0.0 if part is None else part.times[0] for part in term.parts))
        return Held(AV(*clean), AV(*mask), time, AV(*(z if t else None for z, t in zip(like, time, strict=True))))

    def _held(self, stream: Stream, media: Sequence[Media], like: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        pairs = [(getattr(m.start, stream), getattr(m.end, stream)) for m in media]
        if like is None or all(x is None for pair in pairs for x in pair):
            return None, None
        clean = torch.zeros_like(like)
        mask = torch.zeros(like.shape[0], like.shape[2], dtype=torch.bool, device=like.device)
        for row, (start, end) in enumerate(pairs):
            if start is not None:
                z = self.beginning(stream, start)
                clean[row, :, : z.shape[1]], mask[row, : z.shape[1]] = z, True
            if end is not None:
                z = self.ending(stream, end)
                first = like.shape[2] - z.shape[1]
                clean[row, :, first:], mask[row, first:] = z, True
        return clean, mask

    def beginning(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) of media that stand at a clip's beginning: of a part of it, what lies whole within.

        A sound goes on as its mirror image, not as silence, which the last latents would hear.
        """
        grid = self.grid
        if stream == "video" or len(media) >= grid.samples:
            return self.encode(stream, media)
        _, latents = grid.beginning(len(media) / grid.sample_rate)
        return self.encode(stream, np.pad(media, (0, grid.samples - len(media)), mode="symmetric"))[:, :latents]

    def ending(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) of media that stand at a clip's end; before them the first picture stands still, and a sound is
        its mirror image. The latent frame of a last picture alone holds it as often as it holds pictures."""
        grid = self.grid
        if stream == "audio":
            _, latents = grid.ending(len(media) / grid.sample_rate)
            z = self.encode(stream, np.pad(media, (grid.samples - len(media), 0), mode="symmetric"))
            return z[:, grid.t_a - latents :]
        pictures = media if len(media) > 1 else media.repeat(grid.stride_time, 0)
        still = pictures[:1].repeat(grid.frames - len(pictures), 0)
        return self.encode(stream, np.concatenate([still, pictures]))[:, grid.t_v - len(pictures) // grid.stride_time :]

    def nulls(self, media: Sequence[Media], wanted: AV[bool]) -> AV[Any]:
        """Latents of what a guidance rule puts in the place of a stream that a pass leaves out; None where none does.

        Silence, and a picture that stands still: the first one given, else mid-grey (paper silent: Harmony names a
        static video, and not which).

        Args:
            media: of each row, as `read` gives them.
            wanted: the streams that some pass leaves out.
        """
        grid = self.grid

        def still(picture: np.ndarray) -> Tensor:
            return self.encode("video", np.broadcast_to(picture, (grid.frames, *picture.shape)))

        def pictures() -> Tensor:
            grey = np.full((grid.height, grid.width, 3), 127.5, np.float32)  # 0 in [-1, 1]
            first = [None if x.start.video is None else x.start.video[0] for x in media]
            blank = [still(grey)] if any(x is None for x in first) else []
            return torch.stack([blank[0] if x is None else still(x) for x in first])

        def silence() -> Tensor:
            return torch.stack([self.encode("audio", np.zeros(grid.samples, np.float32))] * len(media))

        return AV(pictures() if wanted.video else None, silence() if wanted.audio else None)

    def encode(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) latents of one clip's pictures or sound."""
        x = torch.tensor(media, device=self.device)[None]  # a copy: an array may be read-only
        if stream == "audio":
            return self.codec.audio.encode(x, self.grid.t_a)[0]
        return self.codec.video.encode(rearrange(x, "b f h w c -> b c f h w").float() / 127.5 - 1)[0]

    def voice(self, media: Sequence[Media]) -> Voice | None:
        """The reference voices of some clips, each as long as in training; None where no clip is given one."""
        if all(x.voice is None for x in media):
            return None
        length = self.grid.latents_of(VOICE_SECONDS)
        silence = np.zeros(1, np.float32)
        each = [torch.tensor(silence if x.voice is None else x.voice, device=self.device) for x in media]
        latents = torch.cat([self.codec.audio.encode(x[None], length) for x in each])
        return Voice(latents, torch.tensor([x.voice is not None for x in media], device=self.device))

    def shown(self, rows: Sequence[Row], media: Sequence[Media]) -> Shown:
        """The first picture of each row, as a network of Wan2.1-I2V's kind is shown it; of given pictures, the first.

        Raises:
            ValueError: a row has none, or the model has no encoder of it.
        """
        if lacking := [row.id for row, x in zip(rows, media, strict=True) if x.start.video is None]:
            raise ValueError(f"{lacking[0]}: this network is always shown a first picture: give `image`")
        if self.image is None:
            raise ValueError(
                "this network is shown a first picture, but the model's config has no encoder of it, `image`"
            )
        each = []
        for x in media:  # one at a time, so that a clip does not depend on its batch
            picture = torch.tensor(x.start.video[:1], device=self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            each.append(show(picture, self.grid.frames, self.codec.video, self.image))
        return Shown(torch.cat([one.latents for one in each]), torch.cat([one.states for one in each]))


def streams_of(rows: Sequence[Row], wanted: AV[bool]) -> tuple[Stream | None, AV[bool]]:
    """The stream that all rows are given, and which ones are to be generated.

    Raises:
        ValueError: there are no rows, they are not given the same, or what they are given leaves nothing to generate.
    """
    if not rows:
        raise ValueError("there is no prompt to generate from")
    given = {row.given for row in rows}
    if len(given) > 1:
        raise ValueError("the rows of a batch must all be given the same stream")
    if len({(row.prefix is None, row.suffix is None) for row in rows}) > 1:
        raise ValueError("the rows of a batch must all go on from a clip, all lead to one, or none")
    (shared,) = given
    generated = AV(wanted.video and shared != "video", wanted.audio and shared != "audio")
    if not any(generated):
        raise ValueError("nothing is left to generate: ask for a stream that is not given")
    for key, made, what in (("image", 0, "pictures"), ("last_image", 0, "pictures"), ("voice", 1, "sound")):
        if not generated[made] and any(getattr(row, key) is not None for row in rows):
            raise ValueError(f"{NAMES[key]} is given, but no {what} {'are' if made == 0 else 'is'} to be generated")
    return shared, generated


def parts_of(row: Row, generated: AV[bool], *, shown: bool = False) -> AV[Part | None]:
    """What of the generated streams a row gives as latent frames, as training calls it.

    Args:
        row: that is to be generated.
        generated: which streams are.
        shown: whether the network is shown the first picture, which is no latent frame of the clip's then.
    """
    both: Part | None = "prefix" if row.prefix is not None else "suffix" if row.suffix is not None else None
    ends: dict[tuple[bool, bool], Part] = {
        (True, False): "first_frame",
        (False, True): "last_frame",
        (True, True): "first_last",
    }
    pictures = ends.get((row.image is not None and not shown, row.last_image is not None))
    voice: Part | None = None if row.voice is None else "voice"
    return AV(both or pictures if generated.video else None, both or voice if generated.audio else None)


def notes_of(rows: Sequence[Row], remarks: Sequence[str], known: Collection[str] | None) -> list[list[str]]:
    """The notes of each row before its media are read.

    Args:
        rows: whose clips are to be made.
        remarks: on all of them.
        known: words that the model has learned, where it says so; others are noted.
    """
    words = ([note] if known and (note := unknown(written(row), known)) else [] for row in rows)
    return [[*remarks, *of_row] for of_row in words]


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
