"""MUSIQ (Ke et al. 2021, arXiv 2108.05997): how good pictures are technically; VBench's imaging quality.

A network taught on people's ratings of photographs scores pictures from 0 to 100 (by those of AVA from 1 to 10), and
their mean counts; VBench tells a hundredth of it. Each picture is seen by itself, none moves. N pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets import musiq
from ccl.evaluation.pictures import evenly, resize_bilinear
from ccl.weights import catalogue as files

Checkpoint = Literal["musiq-spaq", "musiq-koniq", "musiq-ava"]


class MUSIQ(Metric):
    """Mean MUSIQ score of the pictures, higher is better.

    Args:
        pictures: how many of the film's, evenly from the first to the last; 0 is all of them, as VBench.
        longest: pixels of the longer side, to which larger pictures are brought, as VBench; 0 leaves them as they are,
            as pyiqa. What a larger one costs grows faster than its pixels.
        checkpoint: which of the published ones, by its name in `ccl weights list`; VBench's is "musiq-spaq".
        weights: its file; None looks it up.
        device: where the network runs.
        chunk: pictures to a forward; None is 1 on a CPU, else 16.
    """

    name = "musiq"
    usual = False
    columns = (Column("musiq", "MUSIQ"),)

    def __init__(
        self,
        *,
        pictures: int = 16,
        longest: int = 512,
        checkpoint: Checkpoint = "musiq-spaq",
        weights: str | Path | None = None,
        device: str = "cpu",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if pictures < 0 or longest < 0:
            raise ValueError(f"pictures is {pictures} and longest {longest}; neither may be below 0")
        self.pictures, self.longest, self.checkpoint, self.file = pictures, longest, checkpoint, weights
        self.place = torch.device(device)
        self.chunk = chunk or (1 if self.place.type == "cpu" else 16)

    def prepare(self, film: Film) -> UInt8[Tensor, "n 3 h w"]:
        """Its pictures, as bytes, none larger than the network is to see."""
        return torch.cat([fitted(picture, self.longest) for picture in evenly(film.video, self.pictures)])

    def measure(self, inputs: Sequence[UInt8[Tensor, "n 3 h w"]]) -> list[Measured]:
        return [Measured({"musiq": float(self.see(pictures).double().mean())}) for pictures in inputs]

    def see(self, pictures: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, " n"]:
        """Scores of pictures."""
        parts = pictures.split(self.chunk)
        return torch.cat([self.net(musiq.patches(part.to(self.place))).float().cpu() for part in parts])

    @property
    def path(self) -> Path:
        """The network's file. MissingWeights where it is not here."""
        return files.locate(self.checkpoint, self.file)

    @cached_property
    def net(self) -> musiq.MUSIQ:
        """Read once. ValueError where the file is another's."""
        with torch.inference_mode(False):
            try:
                return musiq.MUSIQ.of(files.read(self.path)).to(self.place)
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from error

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return self.path

    def protocol(self) -> dict[str, Any]:
        return {
            "model": self.checkpoint if self.file is None else self.path.name,
            "pictures": f"{self.pictures}, evenly from the first to the last" if self.pictures else "all",
            "size": f"longer side {self.longest} at most, by bilinear interpolation" if self.longest else "as it is",
            "score": "mean over pictures",
            "weights": files.sha256(self.path),
        }


def fitted(picture: UInt8[Tensor, "1 3 h w"], longest: int) -> UInt8[Tensor, "1 3 y x"]:
    """A picture of which no side is longer; a smaller one, and any where `longest` is 0, is left alone."""
    h, w = picture.shape[-2:]
    if not 0 < longest < max(h, w):
        return picture
    scale = longest / max(h, w)  # VBench's rounding: downwards, of each side
    return resize_bilinear(picture, (max(1, int(scale * h)), max(1, int(scale * w))))
