"""AV-Align: whether things move when sounds begin (Yariv et al., 2023), as MOVA's av_align_score.py computes it.

Moments of sound are onsets, moments of motion the local maxima of the optical flow's mean length; the score is how many
of both meet within a picture's time, over how many there are. No weights. T pictures, H x W pixels, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ccl.evaluation.dsp.onset import onsets
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.media import FFMPEG, resample

SMALLEST = 16  # pixels, of the window of the flow and its neighbourhood
SAMPLE_RATE = 44_100
LEAST = 0.1  # pixels a picture: a maximum of the flow below this is no motion
# Pyramid's factor and levels, window, iterations, neighbourhood and its sigma, flags.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


class AVAlign(Metric):
    """Intersection over union of the moments of sound and of motion, in 0..1; 0 where nothing moves or sounds.

    Args:
        height: pictures taller than this are made smaller first, and their flow is told in pixels of their own size;
            None keeps them as they are, as the published code does. Farneback costs 30 ms for a picture of 640 x 352.
        threads: of OpenCV; None leaves its own setting. Any number gives the same flow.
    """

    name = "av_align"
    columns = (Column("av_align", "AV-Align", digits=3, sync=True),)

    def __init__(self, height: int | None = None, threads: int | None = None) -> None:
        super().__init__()
        if height is not None and height < SMALLEST:
            raise ValueError(f"height is {height}; flow needs {SMALLEST} pixels at least")
        self.height, self.threads = height, threads

    def prepare(self, film: Film) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Onsets in seconds, the flow of each picture, and the pictures' times."""
        # What a shorter filter leaves above the old band, 16 kHz to 44.1, counts as sound here.
        sound = resample(film.audio, film.clip.sample_rate, SAMPLE_RATE, FFMPEG)
        if len(film.video) < 2:
            raise Unscorable("one picture alone has no motion")
        look = partial(flow, film.video, height=self.height, threads=self.threads)
        curve = film.once(("flow", self.height), look, lasting=True)
        return onsets(sound, SAMPLE_RATE) / SAMPLE_RATE, curve, film.times

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[Measured]:
        return [Measured({"av_align": aligned(heard, peaks(curve), times)}) for heard, curve, times in inputs]

    def missing(self) -> str:
        return "" if find_spec("cv2") else "AV-Align needs OpenCV: pip install 'ccl[eval]'"

    def protocol(self) -> dict[str, Any]:
        return {
            "onsets": f"librosa 0.11 onset_detect defaults, {SAMPLE_RATE} Hz mono by {FFMPEG.name}",
            "flow": "mean Farneback flow at the file's own frame rate, maxima of 0.1 pixels or more",
            "height": self.height or "native",
            "match": "one to one, in order, closer than that picture's time; intersection over union",
        }


def flow(
    video: UInt8[np.ndarray, "t h w 3"], *, height: int | None = None, threads: int | None = None
) -> Float[np.ndarray, " t"]:
    """Mean length of the optical flow into each picture, in pixels; the first has that of the second."""
    import cv2

    before = cv2.getNumThreads()
    scale = min(1.0, (height or video.shape[1]) / video.shape[1])
    size = max(1, round(video.shape[2] * scale)), max(1, round(video.shape[1] * scale))
    lengths = []
    try:
        cv2.setNumThreads(before if threads is None else threads)
        last: Any = None
        unset: Any = None  # a field to begin with, of which there is none
        for picture in video:
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            grey = grey if scale == 1 else cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
            if last is not None:
                field = cv2.calcOpticalFlowFarneback(last, grey, unset, *FARNEBACK)
                lengths.append(cv2.mean(cv2.magnitude(field[..., 0], field[..., 1]))[0] / scale)
            last = grey
    finally:
        cv2.setNumThreads(before)
    return np.array([*lengths[:1], *lengths])


def peaks(curve: Float[np.ndarray, " t"]) -> np.ndarray:
    """Pictures whose flow is larger than that of both neighbours, and `LEAST` at least."""
    inner = curve[1:-1]
    return 1 + np.flatnonzero((curve[:-2] < inner) & (inner > curve[2:]) & (inner >= LEAST))


def aligned(heard: Float[np.ndarray, " a"], moved: Int[np.ndarray, " v"], times: Float[np.ndarray, " t"]) -> float:
    """`overlap` of onsets with the pictures into which there is motion, none of them the first."""
    return overlap(heard, times[moved], 1 / np.maximum(times[moved] - times[moved - 1], 1e-6))


def overlap(
    heard: Float[np.ndarray, " a"], seen: Float[np.ndarray, " v"], fps: float | Float[np.ndarray, " v"]
) -> float:
    """Intersection over union: each onset takes the first motion that is free and less than a picture's time away.

    Args:
        heard: seconds of the onsets.
        seen: seconds of the motions.
        fps: pictures a second, at each motion where they vary.
    """
    free, hits = list(zip(seen, 1 / np.broadcast_to(fps, seen.shape), strict=True)), 0
    for time in heard:
        near = next((i for i, (other, lasts) in enumerate(free) if other - lasts < time < other + lasts), None)
        if near is not None:
            del free[near]
            hits += 1
    union = len(heard) + len(seen) - hits
    return hits / union if union else 0.0
