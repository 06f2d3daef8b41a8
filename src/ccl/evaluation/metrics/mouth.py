"""Whether a mouth moves with its voice: the talking world's own sync measure.

The inside of the world's mouths is the only thing with more red and more blue than green. Its area in each frame,
wherever it is, is the mouth's opening; the sound's envelope is its loudness in each frame; the measure is their Pearson
correlation. A clip without a mouth, without sound, or where either never changes counts as 0. Beside it belong the
ceiling (true clips through the codec) and the floor (`floor`: each picture with another clip's sound).
T frames, H x W pixels, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from ccl.evaluation.metrics.base import Metric
from ccl.types import Clip

# The world's mouth colour, as data/world/scene.py paints it (evaluation imports nothing of data; a test compares them).
MOUTH = (205, 0, 150)

_LEAST = 0.15  # colour that counts, as a share of the mouth's own: what blur and codecs leave of other hues lies below
_FOUND = 0.0015  # of the picture that the open mouth must cover: 3.5 pixels of 48 x 48
_SILENT = 1e-3  # root mean square below which a frame is silent, and a clip with nothing above it mute
_STILL = 1e-6  # a standard deviation below this is no movement


class Mouth(Metric):
    """Correlation of the mouth's opening with the sound's envelope, in -1..1; whether a mouth was found, 0 or 1."""

    name = "mouth"
    columns = ("mouth", "mouth_found")

    def score(self, clip: Clip) -> dict[str, float]:
        """Score one clip.

        Raises:
            ValueError: the clip lacks its pictures or its sound.
        """
        video, audio = _media(clip)
        curve = opening(video)
        r = correlate(curve, envelope(audio, len(video), clip.fps, clip.sample_rate))
        return {"mouth": r, "mouth_found": float(found(curve))}

    def chance(self, clips: Sequence[Clip]) -> dict[str, float]:
        """The floor of the first column and how likely the true pairs' mean is by chance."""
        return {} if len(clips) < 2 else {"shuffled": floor(clips), "p": p_value(clips)}


def opening(video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, " t"]:
    """The share of each picture that is mouth, in 0..1; a blurred pixel counts for what is left of the colour."""
    red, green, blue = (video[..., i].astype(np.float32) for i in range(3))
    full = min(MOUTH[0], MOUTH[2]) - MOUTH[1]
    share = np.clip((np.minimum(red, blue) - green) / full, 0, 1)
    return np.where(share > _LEAST, share, 0).mean(axis=(1, 2)).astype(np.float64)


def found(curve: Float[np.ndarray, " t"]) -> bool:
    """Whether the opening of `opening` is a mouth's: large enough at its widest."""
    return bool(len(curve) and curve.max() >= _FOUND)


def envelope(audio: Float[np.ndarray, " s"], frames: int, fps: float, sample_rate: int) -> Float[np.ndarray, " t"]:
    """Loudness during each frame: the square root of the root mean square, smoothed over neighbours; 0 in silence.

    The root lies between amplitude, which only sees the loudest vowels, and decibels, in which silence weighs most.
    """
    edges = np.round(np.arange(frames + 1) / fps * sample_rate).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(audio.astype(np.float64) ** 2)])
    at = np.minimum(edges, len(audio))
    rms = np.sqrt(np.diff(energy[at]) / np.maximum(np.diff(edges), 1))
    rms[rms < _SILENT] = 0
    padded = np.pad(np.sqrt(rms), 1, mode="edge")
    return padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4


def correlate(curve: Float[np.ndarray, " t"], loudness: Float[np.ndarray, " t"]) -> float:
    """Pearson correlation of an opening and an envelope; 0 where no mouth is found or either never changes."""
    if not found(curve) or curve.std() < _STILL or loudness.std() < _STILL:
        return 0.0
    return float(np.corrcoef(curve, loudness)[0, 1])


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """(count,) A random permutation of 0..count-1 that leaves nothing in its place.

    Raises:
        ValueError: fewer than two.
    """
    if count < 2:
        raise ValueError(f"shuffling pairs needs two clips at least, not {count}")
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, int)
    partner[order] = np.roll(order, 1)  # one cycle through all: nobody keeps their own
    return partner


def shuffled(clips: Sequence[Clip], seed: int = 0) -> Float[np.ndarray, " n"]:
    """The measure of each clip's pictures with another clip's sound."""
    curves, loudness = _curves(clips)
    return np.array([correlate(curves[i], loudness[j]) for i, j in enumerate(derangement(len(clips), seed))])


def floor(clips: Sequence[Clip], seed: int = 0, rounds: int = 8) -> float:
    """What the measure gives by chance: its mean over `rounds` shufflings of the sound between the clips."""
    curves, loudness = _curves(clips)
    partners = [derangement(len(clips), seed + k) for k in range(rounds)]
    return float(np.mean([correlate(curves[i], loudness[j]) for row in partners for i, j in enumerate(row)]))


def p_value(clips: Sequence[Clip], seed: int = 0, rounds: int = 2000) -> float:
    """One-sided permutation test, true pairs against shuffled: how often a shuffling's mean is as high as the true one.

    The smallest value it can give is 1 / (rounds + 1).
    """
    curves, loudness = _curves(clips)
    table = np.array([[correlate(curve, sound) for sound in loudness] for curve in curves])
    rows, rng = np.arange(len(clips)), np.random.default_rng(seed)
    means = np.array([table[rows, rng.permutation(len(clips))].mean() for _ in range(rounds)])
    return float((1 + np.sum(means >= table.diagonal().mean())) / (rounds + 1))


def _curves(clips: Sequence[Clip]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Openings and envelopes, cut to the shortest clip's length so that any two can be paired."""
    media = [(clip, *_media(clip)) for clip in clips]
    frames = min((len(video) for _, video, _ in media), default=0)
    curves = [opening(video)[:frames] for _, video, _ in media]
    return curves, [envelope(audio, frames, clip.fps, clip.sample_rate) for clip, _, audio in media]


def _media(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    for stream, media in (("pictures", clip.video), ("sound", clip.audio)):
        if media is None:
            raise ValueError(f"clip {clip.id or '(unnamed)'} has no {stream}, so its mouth cannot be measured")
    assert clip.video is not None and clip.audio is not None
    return clip.video, clip.audio
