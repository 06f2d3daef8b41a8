"""LAION's aesthetic score of pictures (Schuhmann 2022, sa_0_4_vit_l_14_linear), 1 to 10: VBench's aesthetic quality.

One linear layer on CLIP ViT-L/14's embedding of a picture, taught on ratings of generated ones; the mean over pictures.
VBench tells a tenth of it. What it rates is what a picture shows and how, and little of noise or blur.
N pictures, E = 768.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.metrics.clip import CLIP, squares
from ccl.evaluation.nets.filled import filled
from ccl.weights import catalogue as files

WIDTH = 768


class Aesthetic(Metric):
    """Mean aesthetic score of the pictures, higher is better.

    Args:
        pictures: how many of the film's, evenly from the first to the last; VBench takes all.
        weights: file of the linear layer; None looks it up.
        clip: folder of CLIP ViT-L/14, or a file in it; None looks it up.
        device: where CLIP runs.
        precision: of its matrix products and convolutions.
        chunk: pictures to a forward; None is CLIP's own.
    """

    name = "aesthetic"
    usual = False
    columns = (Column("aesthetic", "Aesthetic"),)
    batch_size, gpu_batch_size = 4, 16

    def __init__(
        self,
        *,
        pictures: int = 16,
        weights: str | Path | None = None,
        clip: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.file = weights
        # Its tower alone is asked.
        self.clip = CLIP(
            pictures=pictures, checkpoint="clip-large", weights=clip, device=device, precision=precision, chunk=chunk
        )

    def prepare(self, film: Film) -> UInt8[Tensor, "n 3 s s"]:
        """Its pictures, resized and cropped."""
        return squares(film.video, self.clip.pictures, self.clip.side)

    def measure(self, inputs: Sequence[UInt8[Tensor, "n 3 s s"]]) -> list[Measured]:
        clip = self.clip
        with torch.autocast(clip.place.type, torch.bfloat16, enabled=clip.precision == "bf16"):
            seen = clip.see(torch.cat(list(inputs)))
        scores = self.layer(F.normalize(seen, dim=1))[:, 0].split([len(pictures) for pictures in inputs])
        return [Measured({"aesthetic": float(score.mean())}) for score in scores]

    @property
    def path(self) -> Path:
        """The layer's file. MissingWeights where it is not here."""
        return files.locate("aesthetic", self.file)

    @cached_property
    def layer(self) -> nn.Linear:
        """Read once. ValueError where the file is another's."""
        with torch.inference_mode(False):
            try:
                return filled(lambda: nn.Linear(WIDTH, 1), files.read(self.path), "the aesthetic predictor")
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from error

    def load(self) -> None:
        _ = self.layer, self.clip.net

    def find(self) -> object:
        return self.path, self.clip.source

    def protocol(self) -> dict[str, Any]:
        said = self.clip.protocol()
        return {
            "model": "LAION's sa_0_4_vit_l_14_linear on CLIP ViT-L/14",
            "pictures": said["pictures"],
            "score": "mean over pictures, 1 to 10",
            "precision": said["precision"],
            "weights": {"aesthetic": files.sha256(self.path), "clip": said["weights"]},
        }
