"""The small vocabulary that everything else is written in.

AV pairs what belongs to the video stream with what belongs to the audio stream; Route says who may see whom; View is
what a chunk of a batch sees, be it a training term or a guidance pass; Pass is one forward of a guidance rule; Scale is
a guidance strength for each stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast

from ccl import arguments

T = TypeVar("T")
U = TypeVar("U")
Stream = Literal["video", "audio"]
Text = Literal["positive", "negative", "empty"]
# What a closed route of an interaction leaves: learnable tokens, a stream's own tokens, nothing (a gate of 0), or as
# much as an open one.
Closed = Literal["context", "own", "nothing", "same"]
STREAMS: tuple[Stream, Stream] = ("video", "audio")
SLOWEST = 1e-6  # pictures a second
FACE_MASK = "face_mask"  # where faces are, by this name in a batch's extras and among losses


class AV(NamedTuple, Generic[T]):
    """A value for each stream. A stream that takes no part is None, and `map` and `zip` leave it so.

    A named tuple, so that torch's pytree utilities (FSDP2 hooks, torch.compile, checkpointing) see the tensors within.
    """

    video: T
    audio: T

    def map(self, f: Callable[[Any], U]) -> AV[U]:
        video, audio = ((None if x is None else f(x)) for x in self)
        return AV(cast(U, video), cast(U, audio))

    @staticmethod
    def zip(f: Callable[..., U], *pairs: AV[Any]) -> AV[U]:
        """f(video of each, ...), f(audio of each, ...); None where the first pair's stream is None."""
        video, audio = (None if xs[0] is None else f(*xs) for xs in zip(*pairs, strict=True))
        return AV(cast(U, video), cast(U, audio))

    @property
    def swapped(self) -> AV[T]:
        """For each stream what belongs to the other one."""
        return AV(self.audio, self.video)

    @property
    def pairs(self) -> AV[tuple[T, T]]:
        """For each stream its own and the other one's."""
        return AV((self.video, self.audio), (self.audio, self.video))


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

    @property
    def pair(self) -> AV[bool]:
        """Whether each stream sees the other one."""
        return AV(self.a2v, self.v2a)


OPEN = Route(True, True)
CLOSED = Route(False, False)


class Skip(NamedTuple):
    """What a chunk leaves out in some blocks, of both streams.

    Args:
        what: "block": the whole block, interaction included (Ovi's skip-layer guidance); "self_attention": each token
            attends to itself alone, out = o(v) (LTX-2's perturbed pass).
        layers: of which blocks, counted from 0.
    """

    what: Literal["block", "self_attention"]
    layers: frozenset[int]


class View(NamedTuple):
    """What an equal, consecutive chunk of a batch sees.

    Args:
        route: who sees whom.
        detach: the streams that the other one reads without a gradient (a stream that is given).
        skip: what is left out, in which blocks.
    """

    route: Route = OPEN
    detach: AV[bool] = AV(False, False)
    skip: frozenset[Skip] = frozenset()

    def skips(self, what: str, layer: int) -> bool:
        """Whether a block leaves that out."""
        return any(each.what == what and layer in each.layers for each in self.skip)


WHOLE = View()
ALONE = View(CLOSED)  # neither stream sees the other


@dataclass(frozen=True)
class Pass:
    """One forward of a guidance rule.

    Args:
        text: which prompt each stream reads; "empty" is the encoded empty prompt.
        view: who sees whom, and what is left out.
        null: the streams that are given as a null instead: silence, a still picture.
    """

    text: AV[Text]
    view: View = WHOLE
    null: AV[bool] = AV(False, False)


POSITIVE: AV[Text] = AV("positive", "positive")
NEGATIVE: AV[Text] = AV("negative", "negative")
EMPTY: AV[Text] = AV("empty", "empty")


@dataclass(frozen=True)
class Scale:
    """Guidance strength for each stream. ValueError where one is no number: every clip would be noise of NaN."""

    video: float = 4.0
    audio: float = 3.0

    def __post_init__(self) -> None:
        for stream in STREAMS:
            arguments.number(f"the scale of {stream}", getattr(self, stream))

    @property
    def pair(self) -> AV[float]:
        """Both, to reckon with."""
        return AV(self.video, self.audio)


# In a batch's extras: sound of each clip's speaker, saying something else, (B, S); zeros where nobody speaks.
VOICE = "voice"
VOICE_SECONDS = 1.5  # of it; what is longer is cut


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
        extras: what a network or its interaction needs beside latents and text, by name: tensors (B, ...).
        weight: of each stream's loss, where the batches that are accumulated have not the same streams (mixed data).
    """

    id: list[str]
    prompt: list[str]
    media: AV[Any] | None = None
    latents: AV[Any] | None = None
    text: Any = None
    grid: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    weight: AV[float] = AV(1.0, 1.0)
