"""From phonemes to lips: how open and how wide a mouth is while a sentence is spoken.

Each sound has an opening; vowels open further the louder they are; the lips take about 40 ms from one to the next.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ccl.data.world.voice import Speech

_RATE = 200  # points a second of the curves
_SMOOTH = 0.018  # seconds, one standard deviation
# First letter of espeak-ng's mnemonic, stress marks removed -> (how open, how wide), each in 0..1.
_VOWELS = {
    "a": (1.0, 0.8), "A": (1.0, 0.7), "V": (0.85, 0.7), "0": (0.9, 0.5), "O": (0.85, 0.4), "o": (0.8, 0.3),
    "E": (0.8, 0.9), "e": (0.75, 0.9), "3": (0.7, 0.6), "@": (0.6, 0.6), "I": (0.6, 0.9), "i": (0.6, 1.0),
    "U": (0.55, 0.3), "u": (0.55, 0.2),
}  # fmt: skip
_CONSONANTS = {
    "m": (0.0, 0.6), "b": (0.0, 0.6), "p": (0.0, 0.6), "f": (0.1, 0.6), "v": (0.15, 0.6), "w": (0.25, 0.1),
    "r": (0.35, 0.4), "l": (0.35, 0.7), "j": (0.35, 0.9), "n": (0.25, 0.7), "N": (0.25, 0.7), "h": (0.3, 0.6),
    "k": (0.15, 0.6), "g": (0.15, 0.6), "t": (0.1, 0.7), "d": (0.12, 0.7), "s": (0.1, 0.8), "z": (0.12, 0.8),
    "S": (0.15, 0.3), "Z": (0.15, 0.3), "T": (0.15, 0.7), "D": (0.15, 0.7), "*": (0.12, 0.7),
}  # fmt: skip
_CLOSED = (0.0, 0.6)
_STRESS = "',%=_:|"


def shape(name: str) -> tuple[float, float, bool]:
    """How open and wide a phoneme is, and whether it is a vowel. A pause, and what is unknown, is closed."""
    letter = name.lstrip(_STRESS)[:1]
    if letter in _VOWELS:
        return *_VOWELS[letter], True
    return *_CONSONANTS.get(letter, _CLOSED), False


def lips(speech: Speech, onset: float, frames: int, fps: float) -> np.ndarray:
    """(frames, 2) how open and how wide, in 0..1, at the middle of each frame; speech begins at `onset` seconds."""
    points = np.arange(round(frames / fps * _RATE)) / _RATE
    curve = np.tile(np.asarray(_CLOSED), (len(points), 1))
    loud = _loudness(speech, points - onset)
    for phoneme in speech.phonemes:
        is_open, width, vowel = shape(phoneme.name)
        during = slice(*np.searchsorted(points, (onset + phoneme.start, onset + phoneme.end)))
        curve[during, 0] = is_open * (0.25 + 0.75 * loud[during] if vowel else 1.0)
        curve[during, 1] = width
    curve = gaussian_filter1d(curve, _SMOOTH * _RATE, axis=0)
    middles = (np.arange(frames) + 0.5) / fps
    return np.stack([np.interp(middles, points, curve[:, i]) for i in range(2)], axis=1)


def _loudness(speech: Speech, t: np.ndarray) -> np.ndarray:
    """Root mean square of the sound over 30 ms around each time, as a share of its loudest."""
    power = gaussian_filter1d(speech.audio.astype(np.float64) ** 2, 0.012 * speech.sample_rate, truncate=3)
    rms = np.sqrt(np.interp(t, np.arange(len(power)) / speech.sample_rate, power, left=0, right=0))
    return rms / max(float(rms.max()), 1e-9)
