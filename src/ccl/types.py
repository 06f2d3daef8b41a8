"""The small vocabulary that everything else is written in.

AV pairs what belongs to the video stream with what belongs to the audio stream; Route says who may see whom;
Pass is one forward of a guidance rule; Scale is a guidance strength for each stream; Clip is media at the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from ccl import arguments

T = TypeVar("T")
Stream = Literal["video", "audio"]
# What a closed route of an interaction leaves: learnable tokens, nothing (a gate of 0), or as much as an open one.
Closed = Literal["context", "nothing", "same"]
STREAMS: tuple[Stream, Stream] = ("video", "audio")
SLOWEST = 1e-6  # pictures a second


class AV(NamedTuple, Generic[T]):
    """A value for each stream. A stream that takes no part is None, and `map` and `zip` leave it so.

    A named tuple, so that torch's pytree utilities (FSDP2 hooks, torch.compile, checkpointing) see the tensors within.
    """

    video: T
    audio: T

    def map(self, f: Callable[[T], Any]) -> AV[Any]:
        return AV(*(None if x is None else f(x) for x in self))

    @staticmethod
    def zip(f: Callable[..., Any], *pairs: AV[Any]) -> AV[Any]:
        """f(video of each, ...), f(audio of each, ...); None where the first pair's stream is None."""
        return AV(*(None if xs[0] is None else f(*xs) for xs in zip(*pairs, strict=True)))


if not TYPE_CHECKING:  # beartype cannot read a named tuple that is generic at run time; type checkers can
    AV.__class_getitem__ = classmethod(lambda cls, _: cls)
    del AV.__orig_bases__


@dataclass(frozen=True)
class Route:
    """Which direction sees the other stream's latents (CCL Sec. 4.2, Dynamic Context Routing).

    Args:
        a2v: audio informs video: the video stream may attend to audio latents.
        v2a: video informs audio: the audio stream may attend to video latents.
    """

    a2v: bool = True
    v2a: bool = True


OPEN = Route(True, True)
CLOSED = Route(False, False)


@dataclass(frozen=True)
class Pass:
    """One forward of a guidance rule: which text it reads and which route it takes."""

    text: Literal["positive", "negative"]
    route: Route


@dataclass(frozen=True)
class Scale:
    """Guidance strength for each stream. ValueError where one is no number: every clip would be noise of NaN."""

    video: float = 4.0
    audio: float = 3.0

    def __post_init__(self) -> None:
        for stream in STREAMS:
            arguments.number(f"the scale of {stream}", getattr(self, stream))


@dataclass(frozen=True)
class Widths:
    """What an interaction needs to know of the two streams.

    Args:
        video: channels of the video stream, d_v.
        audio: channels of the audio stream, d_a.
        head_dim: channels of an attention head, the same in both streams.
    """

    video: int
    audio: int
    head_dim: int


def is_pictures(x: object) -> bool:
    """Whether it is an array (T, H, W, 3) of uint8."""
    return isinstance(x, np.ndarray) and x.ndim == 4 and x.shape[3] == 3 and x.dtype == np.uint8


def is_sound(x: object) -> bool:
    """Whether it is an array (S,) of floats."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind == "f"


@dataclass(frozen=True)
class Clip:
    """A clip at the edge of the system.

    Args:
        video: (T, H, W, 3) uint8 frames, or None for a clip that is only heard.
        audio: (S,) float32 mono samples in [-1, 1], or None for a clip that is only seen.
        fps: frames a second; where they have times of their own, their count over their duration.
        sample_rate: Hz.
        prompt: one prompt for both streams, spoken words in double quotes.
        id: names the clip in files and messages.
        meta: whatever else is known of it.
        times: (T,) seconds of each picture, the first at 0; None where they follow from `fps`.
    """

    video: np.ndarray | None
    audio: np.ndarray | None
    fps: float = 25.0
    sample_rate: int = 16_000
    prompt: str = ""
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    times: np.ndarray | None = None

    def __repr__(self) -> str:
        parts = [repr(self.id)] if self.id else []
        if self.video is not None and self.video.ndim == 4:
            count, height, width = self.video.shape[:3]
            parts.append(f"{count} pictures of {height} x {width} at {self.fps:g} fps")
        if self.audio is not None:
            parts.append(f"{len(self.audio) / self.sample_rate:.2f} s of sound at {self.sample_rate:,} Hz")
        if self.prompt:
            parts.append(f"prompt {self.prompt if len(self.prompt) <= 80 else self.prompt[:77] + '...'!r}")
        return f"Clip({', '.join(parts)})"

    def save(self, path: str | Path) -> None:
        """Write an mp4, or the sound alone where the path ends in .wav; whole or not at all."""
        from ccl.media import write_clip

        write_clip(self, path)


@dataclass
class Batch:
    """What a loader yields: media, or ready latents, of B clips.

    Args:
        id: names of the clips.
        prompt: one for both streams.
        media: video (B, 3, F, H, W) uint8 and audio (B, S) float32, or None where latents are given.
        latents: normalised latents (B, C, T, ...), or None where media are given.
        text: ccl.text.states.TextStates of the prompts, or None where they are yet to be encoded.
        grid: what the clips' grid has otherwise than the model's, where they come from a bucket.
        task: name of the step's task, put here by the TaskRouter callback.
    """

    id: list[str]
    prompt: list[str]
    media: AV[Any] | None = None
    latents: AV[Any] | None = None
    text: Any = None
    grid: dict[str, Any] = field(default_factory=dict)
    task: str = ""
