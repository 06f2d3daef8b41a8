"""Dynamic degree: whether anything moves, so that a still picture, which no sync measure faults, does not win.

The rule of VBench's dynamic_degree.py (Huang et al., CVPR 2024) on another flow: pictures at about 8 a second, of each
pair the mean length of the 5 % longest arrows, and a clip moves where enough pairs are above a threshold. VBench's flow
is RAFT's at the file's own size; this one is Farneback's (OpenCV, no weights) on pictures whose short side is 256, the
size for which the threshold of 6 pixels was set. T pictures, H x W pixels, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.av_align import FARNEBACK
from ccl.evaluation.metrics.base import Column, Measured, Metric

FPS = 8  # pictures a second that are compared, or the file's own where those are fewer
SHORT = 256  # pixels
THRESHOLD = 6.0  # pixels from one picture to the next at 8 a second
LONGEST = 0.05  # share of a picture's pixels


class Dynamics(Metric):
    """Share of the clips that move, and how far the fastest twentieth of the picture does, in pixels of 256 an eighth
    of a second. A talking head may stand still by the first and not by the second.

    Args:
        short: pixels of the short side at which the flow is measured; lengths are told as if it were 256.
    """

    name = "dynamics"
    usual = False
    columns = (
        Column("dynamic", "Dynamic degree", digits=0, percent=True),
        Column("motion", "Motion", ""),
    )

    def __init__(self, short: int = SHORT) -> None:
        super().__init__()
        if short < 32:
            raise ValueError(f"short is {short}; flow needs 32 pixels at least")
        self.short = short

    def prepare(self, film: Film) -> dict[str, float]:
        """The numbers themselves."""
        pictures = film.video[:: max(1, round(film.clip.fps / FPS))]
        if len(pictures) < 2:
            count = len(film.video)
            raise Unscorable(
                "one picture alone has no motion" if count == 1 else f"its {count} pictures are too few to move"
            )
        lengths = longest(pictures, self.short)
        return {"dynamic": float(moves(lengths, film.clip.fps)), "motion": float(lengths.mean())}

    def measure(self, inputs: Sequence[dict[str, float]]) -> list[Measured]:
        return [Measured(values) for values in inputs]

    def missing(self) -> str:
        return "" if find_spec("cv2") else "dynamic degree needs OpenCV: pip install 'ccl[eval]'"

    def protocol(self) -> dict[str, Any]:
        return {
            "rule": f"VBench's: {FPS} pictures a second, as many pairs as a quarter of them above "
            f"{THRESHOLD:g} pixels of {SHORT}",
            "flow": f"Farneback's, where VBench has RAFT's; short side of {self.short} pixels",
        }


def longest(pictures: UInt8[np.ndarray, "t h w 3"], short: int) -> Float[np.ndarray, " p"]:
    """Mean length of the longest arrows from each picture to the next, in pixels of a short side of 256.

    Pictures are mirrored beyond their edges: there Farneback sees things move in two that are the same.
    """
    import cv2

    height, width = pictures.shape[1:3]
    scale = short / min(height, width)
    size = max(short, round(width * scale)), max(short, round(height * scale))
    grey = [cv2.resize(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA) for each in pictures]
    edge = short // 8
    grey = [cv2.copyMakeBorder(each, edge, edge, edge, edge, cv2.BORDER_REFLECT_101) for each in grey]
    unset: Any = None  # a field to begin with, of which there is none
    lengths = []
    for before, after in pairwise(grey):
        field = cv2.calcOpticalFlowFarneback(before, after, unset, *FARNEBACK)[edge:-edge, edge:-edge]
        arrows = np.hypot(field[..., 0], field[..., 1]).ravel()
        count = int(arrows.size * LONGEST)
        lengths.append(float(np.partition(arrows, -count)[-count:].mean()))
    return np.array(lengths) * (SHORT / short)


def moves(lengths: Float[np.ndarray, " p"], fps: float) -> bool:
    """Whether enough pairs are above the threshold: a quarter of the pictures, one at least.

    Args:
        lengths: in pixels of a short side of 256.
        fps: the file's own; below 8 a pair lies further apart, and may move further.
    """
    needed = max(1, round(4 * (len(lengths) + 1) / 16))  # VBench's own rule calls two still pictures moving
    return int((lengths > THRESHOLD * max(1.0, FPS / fps)).sum()) >= needed
