"""Whether a mouth moves with its voice: the talking world's own sync measure.

The inside of the world's mouths is the only thing with more red and more blue than green. Its area in each frame,
wherever it is, is the mouth's opening; the sound's envelope is its loudness in each frame; the measure is their Pearson
correlation. A clip without a mouth, without sound, or where either never changes counts as 0. Beside it belong the
ceiling (true clips through the codec) and the floor (`floor`: each picture with another clip's sound).
T frames, H x W pixels, S samples; a pair is an opening and an envelope, (2, T).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.tables import shuffling

# The world's mouth colour, as data/world/scene.py paints it (evaluation imports nothing of data; a test compares them).
MOUTH = (205, 0, 150)

_LEAST = 0.15  # colour that counts, as a share of the mouth's own: what blur and codecs leave of other hues lies below
_FOUND = 0.0015  # of the picture that the open mouth must cover: 3.5 pixels of 48 x 48
_SILENT = 1e-3  # root mean square below which a frame is silent, and a clip with nothing above it mute
_STILL = 1e-6  # a standard deviation below this is no movement
FURTHEST = 7  # frames, either way, that the lag is sought in

Pair = Float[np.ndarray, "2 t"]


class Mouth(Metric):
    """Correlation of the mouth's opening with the sound's envelope, in -1..1; whether a mouth was found, 0 or 1; and by
    how many frames the sound is late, where there is something to compare.
    """

    name = "mouth"
    columns = (
        Column("mouth", "Mouth", sync=True),
        Column("mouth_found", "Mouth found", shown=False),
        Column("mouth_lag", "lag, frames", better="", shown=False),
    )

    def prepare(self, film: Film) -> np.ndarray:
        """Opening and envelope of each frame, (2, T)."""
        curve = opening(film.video)
        return np.stack([curve, envelope(film.audio, np.append(film.times, film.seconds), film.clip.sample_rate)])

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        return [Measured(_values(pair), pair) for pair in inputs]

    def pool(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None = None) -> dict[str, float]:
        """The floor of the first column and how likely the true pairs' mean is by chance."""
        return {} if len(features) < 2 else {"shuffled": floor(features), "p": p_value(features)}

    def protocol(self) -> dict[str, Any]:
        return {
            "mouth": "pixels with more red and blue than green, at the file's own frame rate",
            "envelope": "square root of the rms of each frame, smoothed (1/4, 1/2, 1/4)",
            "lag": f"of the highest correlation within {FURTHEST} frames, positive where the sound is late",
            "not found or still": 0,
        }


def opening(video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, " t"]:
    """The share of each picture that is mouth, in 0..1; a blurred pixel counts for what is left of the colour."""
    import cv2

    full = min(MOUTH[0], MOUTH[2]) - MOUTH[1]
    least = int(_LEAST * full)
    curve = np.zeros(len(video))
    planes = None  # written over by each picture: to be given memory takes longer than the sums
    for index, picture in enumerate(video):
        planes = red, green, blue = cv2.split(picture, planes)
        excess = cv2.subtract(cv2.min(red, blue, red), green, red)  # of red and blue over green, nowhere below 0
        cv2.threshold(excess, full, 0, cv2.THRESH_TRUNC, excess)
        cv2.threshold(excess, least, 0, cv2.THRESH_TOZERO, excess)
        curve[index] = cv2.sumElems(excess)[0] / (full * excess.size)
    return curve


def found(curve: Float[np.ndarray, " t"]) -> bool:
    """Whether the opening of `opening` is a mouth's: large enough at its widest."""
    return bool(len(curve) and curve.max() >= _FOUND)


def envelope(
    audio: Float[np.ndarray, " s"], times: Float[np.ndarray, " edges"], sample_rate: int
) -> Float[np.ndarray, " t"]:
    """Loudness during each frame: the square root of the root mean square, smoothed over neighbours; 0 in silence.

    The root lies between amplitude, which only sees the loudest vowels, and decibels, in which silence weighs most.

    Args:
        audio: mono.
        times: seconds at which the frames begin, and at which the last one ends.
        sample_rate: Hz.
    """
    edges = np.round(times * sample_rate).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(audio.astype(np.float64) ** 2)])
    at = np.minimum(edges, len(audio))
    rms = np.sqrt(np.diff(energy[at]) / np.maximum(np.diff(edges), 1))
    rms[rms < _SILENT] = 0
    padded = np.pad(np.sqrt(rms), 1, mode="edge")
    return padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4


def correlate(curve: Float[np.ndarray, " t"], loudness: Float[np.ndarray, " t"]) -> float:
    """Pearson correlation of an opening and an envelope; 0 where no mouth is found or either never changes."""
    if not found(curve):
        return 0.0
    curve, loudness = curve - curve.mean(), loudness - loudness.mean()
    spread = np.sqrt(np.array([curve @ curve, loudness @ loudness]))  # standard deviations, times the root of frames
    if spread.min() < _STILL * np.sqrt(len(curve)):
        return 0.0
    return float(np.clip(curve @ loudness / spread.prod(), -1, 1))


def lag(curve: Float[np.ndarray, " t"], loudness: Float[np.ndarray, " t"], furthest: int = FURTHEST) -> int:
    """By how many frames the sound is late: the shift of the highest correlation; negative where it is early.

    Of shifts that correlate equally, the smallest.
    """
    shifts = sorted(range(-furthest, furthest + 1), key=abs)
    return max(shifts, key=lambda k: shifted(curve, loudness, k))


def shifted(curve: Float[np.ndarray, " t"], loudness: Float[np.ndarray, " t"], late: int) -> float:
    """Correlation of the frames that both have once the sound is moved forward by `late` frames."""
    frames = len(curve) - abs(late)
    if frames < 2:
        return 0.0
    return correlate(curve[max(0, -late) :][:frames], loudness[max(0, late) :][:frames])


def table(pairs: Sequence[np.ndarray]) -> Float[np.ndarray, "n n"]:
    """`correlate` of every clip's opening with every clip's envelope, all cut to the shortest clip's length.

    Each pair is (2, T) with a T of its own.
    """
    frames = min((pair.shape[1] for pair in pairs), default=0)
    curves, loudness = (np.stack([pair[row, :frames] for pair in pairs]) for row in (0, 1))
    moves = (curves.std(1) >= _STILL) & np.array([found(curve) for curve in curves])
    sounds = loudness.std(1) >= _STILL
    for rows, counts in ((curves, moves), (loudness, sounds)):
        rows -= rows.mean(1, keepdims=True)
        rows[counts] /= np.linalg.norm(rows[counts], axis=1, keepdims=True)
        rows[~counts] = 0
    return curves @ loudness.T


def shuffled(pairs: Sequence[np.ndarray], seed: int = 0) -> Float[np.ndarray, " n"]:
    """The measure of each clip's pictures with another clip's sound."""
    return table(pairs)[np.arange(len(pairs)), shuffling.derangement(len(pairs), seed)]


def floor(pairs: Sequence[np.ndarray], seed: int = 0, rounds: int = 8) -> float:
    """What the measure gives by chance, by `shuffling.floor`."""
    return shuffling.floor(table(pairs), seed, rounds)


def p_value(pairs: Sequence[np.ndarray], seed: int = 0, rounds: int = 2000) -> float:
    """True pairs against shuffled, by `shuffling.p_value`."""
    return shuffling.p_value(table(pairs), seed, rounds)


def _values(pair: Pair) -> dict[str, float]:
    curve, loudness = pair
    r = correlate(curve, loudness)
    values = {"mouth": r, "mouth_found": float(found(curve))}
    return values | {"mouth_lag": float(lag(curve, loudness))} if r else values
