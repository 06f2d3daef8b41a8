"""A clip as its file holds it, decoded once and shared by all metrics.

What a metric derives from it (the pictures at 25 a second, the sound at 16 kHz, face tracks) is made once, on first
demand, and goes with the film: what was found in the pictures alone goes with the pictures, whatever sound they get.
T frames, H x W pixels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float32, Int, UInt8

from ccl import arguments
from ccl.media import TORCHAUDIO, Clip, MediaError, is_pictures, is_sound, read_natural, resample
from ccl.rows import Row
from ccl.types import SLOWEST

Made = TypeVar("Made")
Looked = dict[Path, dict[Hashable, Any]]  # by file, what was found in its pictures and is small: it outlasts the film


class Unscorable(ValueError):  # noqa: N818 - a finding, not a fault
    """This clip has no value of this metric; the message is the reason, in words, without the clip's name."""


class Kept(Generic[Made]):
    """What a network has made of a film's pictures or of its sound, for whoever asks it for the same again.

    It comes out of `Film.once` with what the network is to be given, and is filled where the network runs.
    """

    def __init__(self) -> None:
        self._made: list[Made] = []

    def get(self, make: Callable[[], Made]) -> Made:
        """What is kept, made by `make` where nothing is."""
        if not self._made:
            self._made.append(make())
        return self._made[0]


@dataclass
class Film:
    """A decoded clip with what the test set knows of it.

    Args:
        clip: at its own frame rate and size, and its own sample rate, mono; a stream it lacks is None.
        row: of the test set: what was to be said (`speech`, `lang`), the prompt.
        path: of the file, if it came from one.
        without: why a stream is missing, by "video" and "audio".
    """

    clip: Clip
    row: Row = field(default_factory=lambda: Row(""))
    path: Path | None = None
    without: dict[str, str] = field(default_factory=dict)
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _seen: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # made without looking at the sound
    _lasting: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # of that, what is of `Looked`
    _heard: bool = field(default=False, repr=False)  # whether what is being made has looked at it

    @classmethod
    def read(cls, path: str | Path, row: Row | None = None, looked: Looked | None = None) -> Film:
        """Decode a file. MediaError where neither stream can be read.

        Args:
            path: of the file.
            row: of the test set; None knows its name alone.
            looked: what was found in its pictures before, and what will be.
        """
        clip, without = read_natural(path)
        lasting = {} if looked is None else looked.setdefault(Path(path), {})
        return cls(clip, row or Row(Path(path).stem), Path(path), without, _lasting=lasting)

    @classmethod
    def of(cls, source: Film | Clip | str | Path) -> Film:
        """A film of whatever is given: itself, a clip, or a path. ValueError for anything else."""
        if isinstance(source, Film):
            return source
        wanted = "a path, a ccl.types.Clip or a ccl.evaluation.Film"
        arguments.instance("a clip", source, (str, Path, Clip, Film), wanted)
        if isinstance(source, Clip):
            video, audio = source.video, source.audio
            if video is not None and not is_pictures(video):
                raise Unscorable(f"video is {arguments.described(video)}; it must be an array (T, H, W, 3) of uint8")
            if audio is not None and not is_sound(audio):  # samples of 16 bits would be deafening
                raise Unscorable(
                    f"audio is {arguments.described(audio)}; it must be an array (S,) of floats in [-1, 1]"
                )
            return cls(source, Row(source.id, source.prompt, speech=source.meta.get("speech", "")))
        return cls.read(source)

    def with_sound(self, audio: Float32[np.ndarray, " s"], sample_rate: int) -> Film:
        """The same pictures with another sound; what was or will be found in them is found once for both."""
        without = {stream: why for stream, why in self.without.items() if stream != "audio"}
        clip = replace(self.clip, audio=audio, sample_rate=sample_rate)
        return Film(clip, self.row, self.path, without, _seen=self._seen, _lasting=self._lasting)

    def once(self, key: Hashable, make: Callable[[], Made], *, lasting: bool = False) -> Made:
        """What `make` gives, made once for this film, or for these pictures where it asks for no sound; an error is
        kept and raised again.

        Args:
            key: of what is made.
            make: makes it.
            lasting: it is of pictures alone, took long and is small: it is kept for later films of the same file.
        """
        seen = self._lasting if lasting else self._seen
        if key in self._made:
            made, self._heard = self._made[key], True
        else:
            made = seen[key] if key in seen else self._make(key, make, seen)
        if isinstance(made, Exception):
            raise made
        return made

    def _make(self, key: Hashable, make: Callable[[], Any], seen: dict[Hashable, Any]) -> Any:
        before, self._heard = self._heard, False
        try:
            made = make()
        except (Unscorable, MediaError) as error:
            made = error
        (self._made if self._heard else seen)[key] = made
        self._heard |= before
        return made

    @property
    def video(self) -> UInt8[np.ndarray, "t h w 3"]:
        """All pictures at the file's own times. Unscorable where there are none."""
        if self.clip.video is None or not len(self.clip.video):
            raise Unscorable(self.without.get("video", "no video stream"))
        return self.clip.video

    @property
    def times(self) -> np.ndarray:
        """(T,) float64 seconds of each picture, the first at 0."""
        if self.clip.times is not None:
            return self.clip.times
        return np.arange(len(self.video)) / self.clip.fps

    @property
    def seconds(self) -> float:
        """Length: of the pictures where there are any, else of the sound."""
        if self.clip.video is not None and len(self.clip.video):
            return len(self.clip.video) / self.clip.fps
        return len(self.audio) / self.clip.sample_rate

    def indices(self, fps: float | int) -> Int[np.ndarray, " n"]:
        """Which picture stands at each tick of a constant rate, by the rule of ffmpeg's fps filter."""
        arguments.number("fps", fps, SLOWEST)
        return self.once(("indices", fps), lambda: constant_rate(self.times, self.seconds, fps))

    def frames(self, fps: float | int) -> UInt8[np.ndarray, "n h w 3"]:
        """The pictures at a constant rate, as `ffmpeg -vf fps=` gives them; without a copy where nothing changes."""
        index = self.indices(fps)
        if len(index) == len(self.video) and np.array_equal(index, np.arange(len(index))):
            return self.video
        return self.video[index]

    @property
    def audio(self) -> Float32[np.ndarray, " s"]:
        """All samples, mono, at the file's own rate. Unscorable where there are none."""
        self._heard = True
        if self.clip.audio is None or not len(self.clip.audio):
            raise Unscorable(self.without.get("audio", "no audio stream"))
        if not self._finite:
            raise Unscorable("the sound holds NaN or infinity")
        return self.clip.audio

    @cached_property
    def _finite(self) -> bool:
        return self.clip.audio is not None and bool(np.isfinite(self.clip.audio).all())

    def sound(self, sample_rate: int) -> Float32[np.ndarray, " r"]:
        """The samples at another rate, by torchaudio's windowed sinc, the resampler of the reference codes."""
        return self.once(
            ("sound", sample_rate), lambda: resample(self.audio, self.clip.sample_rate, sample_rate, TORCHAUDIO)
        )


def constant_rate(times: np.ndarray, end: float, fps: float | int) -> Int[np.ndarray, " n"]:
    """Index of the picture shown at each tick n / fps: the last whose time, rounded to ticks, is not after it.

    Two pictures that round to one tick: the later one stays, as in libavfilter's vf_fps (round=near).
    """
    ticks = np.floor(times * fps + 0.5 + 1e-6).astype(int)
    count = max(1, int(np.floor(end * fps + 0.5 + 1e-6)))
    return np.maximum(np.searchsorted(ticks, np.arange(count), side="right") - 1, 0)
