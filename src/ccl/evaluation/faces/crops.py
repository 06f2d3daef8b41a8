"""The pictures that SyncNet looks at: a face cut out of a film by the rule of its pipeline.

The crop begins at the top of the face and ends well below the chin, with the face in the middle from left to right.
N ticks, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from ccl.evaluation.faces.settings import SMOOTHED, Settings
from ccl.evaluation.faces.shots import FPS
from ccl.evaluation.faces.track import Track
from ccl.evaluation.film import Film

SIDE = 224
GREY = 110  # of what lies outside the picture


def crop(film: Film, track: Track, settings: Settings) -> UInt8[np.ndarray, "n 224 224 3"]:
    """RGB crops of a track, one for each tick.

    Upstream then stores them as MPEG-4 and reads them back; here they stay as they are.
    """
    import cv2
    from scipy.signal import medfilt

    left, top, right, bottom = track.boxes.T
    half, middle_y, middle_x = np.maximum(bottom - top, right - left) / 2, (top + bottom) / 2, (left + right) / 2
    if settings.follow == "overlap":
        half, middle_y, middle_x = (medfilt(values, SMOOTHED) for values in (half, middle_y, middle_x))
    ticks = film.indices(FPS)[track.start : track.start + len(track.boxes)]
    crops = np.empty((len(ticks), SIDE, SIDE, 3), np.uint8)
    for i, (picture, s, y, x) in enumerate(zip(ticks, half, middle_y, middle_x, strict=True)):
        crops[i] = cv2.resize(window(film.video[picture], s, y, x, settings.crop_scale), (SIDE, SIDE))
    return crops


def window(
    picture: UInt8[np.ndarray, "h w 3"], s: float, y: float, x: float, scale: float
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Around a face of half size s at (y, x): from s above to s (1 + 2 scale) below, s (1 + scale) to each side.

    Upstream pads the whole picture and cuts; rounding is towards zero in the padded picture's coordinates.
    """
    pad = int(s * (1 + 2 * scale))
    height, width = picture.shape[:2]
    y0, y1 = (min(int(y + pad + side), height + 2 * pad) - pad for side in (-s, s * (1 + 2 * scale)))
    x0, x1 = (min(int(x + pad + side), width + 2 * pad) - pad for side in (-s * (1 + scale), s * (1 + scale)))
    out = np.full((y1 - y0, x1 - x0, 3), GREY, np.uint8)
    inside = picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    above, before = max(-y0, 0), max(-x0, 0)
    out[above : above + inside.shape[0], before : before + inside.shape[1]] = inside
    return out
