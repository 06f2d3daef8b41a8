"""Who speaks: Light-ASD's score of a face's crops with the sound of the same time."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ccl.evaluation.nets.light_asd import LightASD
from ccl.weights import catalogue as files

SIDE = 112  # of the crop's middle
CEPSTRA = 4  # a picture


def speaking(crops: UInt8[np.ndarray, "n 224 224 3"], sound: Float[np.ndarray, " s"], path: Path) -> float:
    """Mean score over a track; above 0 the face speaks. The sound is at 16 kHz and begins with the first crop.

    One pass over the whole track, where upstream's demo averages passes over pieces of 1 to 6 s.

    Raises:
        ValueError: the file is not Light-ASD's, or the sound is shorter than a picture.
    """
    from ccl.evaluation.dsp.mfcc import mfcc

    amplitude = np.clip(np.round(sound.astype(np.float64) * 32768), -32768, 32767)  # as 16-bit files hold it
    cepstra = mfcc(amplitude)
    pictures = min(len(crops), len(cepstra) // CEPSTRA)
    if pictures < 1:
        raise ValueError(f"{len(sound)} samples of sound are too few to tell who speaks")
    net = loaded(path, path.stat().st_mtime_ns)
    faces = torch.from_numpy(grey(crops[:pictures])).float()
    with torch.inference_mode():
        scores = net(faces[None], torch.from_numpy(cepstra[: CEPSTRA * pictures]).float()[None])
    return float(scores.mean())


def grey(crops: UInt8[np.ndarray, "n 224 224 3"]) -> UInt8[np.ndarray, "n 112 112"]:
    """The middle of the crops without colour."""
    import cv2

    edge = (crops.shape[1] - SIDE) // 2
    middle = crops[:, edge : edge + SIDE, edge : edge + SIDE]
    return np.stack([cv2.cvtColor(np.ascontiguousarray(one), cv2.COLOR_RGB2GRAY) for one in middle])


@lru_cache(maxsize=1)
def loaded(path: Path, changed: int) -> LightASD:
    """The network of a file, kept for the next track."""
    state = files.read(path)
    try:
        return LightASD.of(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
