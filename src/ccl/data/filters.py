"""Which clips are no good for training, and why: a filter names what is wrong with a clip, or nothing.

What cannot be a clip at all (no audio, too short, corrupt) is told by reading it; these look at what was read. Filters
that need a network (who speaks, whose lips fit) are handed in as `Least`: nothing here knows of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from ccl.media import Clip

# How the reasons of what cannot be read begin, or what they hold, and the cause that a report counts them under.
CAUSES: tuple[tuple[str, str], ...] = (
    ("no audio stream", "no audio"),
    ("audio stream holds no sound", "no audio"),
    ("mute by its caption", "no audio"),
    ("no video stream", "no video"),
    ("video stream holds no picture", "no video"),
    ("too short", "too short"),
    ("no caption", "no caption"),
    (" samples at ", "another length"),
    ("video is (", "another size"),
)


@runtime_checkable
class Filter(Protocol):
    """Judges a clip. Its `repr` says all that its verdict depends on, and is part of the shards' identity."""

    @property
    def name(self) -> str: ...

    def __call__(self, clip: Clip) -> str:
        """What is wrong, in a few words; "" keeps the clip."""
        ...


@dataclass(frozen=True)
class Silent:
    """Removes clips in which nothing is heard: the loudest 50 ms lie below a level.

    Of mixed data the clip stays, without its sound.

    Args:
        level: dB below full scale.
    """

    level: float = -50.0
    name: ClassVar[str] = "silent"

    def __call__(self, clip: Clip) -> str:
        assert clip.audio is not None
        loudest = loudness(clip.audio, clip.sample_rate)
        return "" if loudest >= self.level else f"the loudest 50 ms have {loudest:.0f} dB, under {self.level:g}"


@dataclass(frozen=True)
class Cuts:
    """Removes clips that cut to another scene: a change of colours that stands out from those around it.

    Args:
        change: mean difference of two pictures, of 255, that may be a cut.
        contrast: how many times the changes around it that it must be: motion and flicker go on, a cut does not.
    """

    change: float = 20.0
    contrast: float = 3.0
    name: ClassVar[str] = "cuts"

    def __call__(self, clip: Clip) -> str:
        assert clip.video is not None
        found = cuts(clip.video, self.change, self.contrast)
        places = ", ".join(f"{index / clip.fps:.2f} s" for index in found[:3])
        return f"{len(found)}, at {places}{', ...' if len(found) > 3 else ''}" if found else ""


@dataclass(frozen=True)
class Least:
    """Removes clips that score too little by a measure that is handed in.

    Args:
        name: of the filter, as "speech".
        score: of a clip; a ValueError says why it has none, which removes it.
        least: score that a clip needs.
        version: of the measure, as a hash of its weights; part of the shards' identity.
    """

    name: str
    score: Callable[[Clip], float] = field(repr=False)
    least: float
    version: str = ""

    def __call__(self, clip: Clip) -> str:
        try:
            score = self.score(clip)
        except ValueError as error:
            return str(error)
        return "" if score >= self.least else f"{score:.3g}, under {self.least:g}"


def cause(reason: str) -> str:
    """What a report counts a reason under: a filter's name, or what could not be read."""
    for part, name in CAUSES:
        if part in reason:
            return name
    name, colon, _ = reason.partition(": ")
    return name if colon and name.replace("-", "").isalpha() else "corrupt"


def loudness(audio: Float[np.ndarray, " s"], sample_rate: int) -> float:
    """dB of the loudest 50 ms, as their root mean square; -inf of pure zeros."""
    window = max(1, round(0.05 * sample_rate))
    padded = np.pad(np.asarray(audio, np.float64), (0, -len(audio) % window))
    power = float((padded.reshape(-1, window) ** 2).mean(1).max(initial=0.0))
    return 10 * float(np.log10(power)) if power > 0 else float("-inf")


def cuts(video: UInt8[np.ndarray, "t h w 3"], change: float, contrast: float, around: int = 6) -> list[int]:
    """Index of the first picture of each new scene.

    Args:
        video: pictures.
        change: least mean difference of two small pictures, of 255.
        contrast: times the median of the changes around, which a cut exceeds.
        around: pictures on each side that a change is compared with.
    """
    small = thumbnails(video)
    changes = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2, 3))
    found: list[int] = []
    for index, value in enumerate(changes):
        others = np.r_[changes[max(0, index - around) : index], changes[index + 1 : index + 1 + around]]
        usual = float(np.median(others)) if len(others) else 0.0
        if value >= change and value >= contrast * usual:
            found.append(index + 1)
    return found


def thumbnails(video: UInt8[np.ndarray, "t h w 3"], side: int = 16) -> Float[np.ndarray, "t a b 3"]:
    """Means of blocks, at most `side` each way: small enough that moving things change little."""
    height, width = (size // -(-size // side) * -(-size // side) for size in video.shape[1:3])
    down, across = (-(-size // side) for size in video.shape[1:3])
    blocks = video[:, :height, :width].reshape(len(video), height // down, down, width // across, across, 3)
    return np.stack([frame.mean(axis=(1, 3), dtype=np.float32) for frame in blocks])
