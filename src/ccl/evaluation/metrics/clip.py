"""CLIP: how alike the pictures and the words of their prompt are (Radford et al. 2021, arXiv 2103.00020).

The mean over pictures of the cosine of each one's embedding and the prompt's, as JavisBench's `calc_clip_score`: 48
pictures evenly from the first to the last, shorter side resized, middle cropped. Each is seen by itself, none moves.

N pictures, E = 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.prompted import Prompted
from ccl.evaluation.pictures import centre_crop, normalised, resize_bicubic
from ccl.weights.read import read_json

SIDE = 224  # pixels, where a config does not say otherwise

Checkpoint = Literal["clip", "clip-large"]


@dataclass(frozen=True)
class Inputs:
    """What is kept of a film: its pictures as bytes of the network's size, and the row's prompt."""

    pictures: UInt8[Tensor, "n 3 s s"]
    prompt: str


class CLIP(Prompted):
    """Mean cosine of pictures and prompt in CLIP's space, higher is better; tables elsewhere may show it times 100.

    Args:
        pictures: how many of the film's, evenly from the first to the last; 48 as JavisBench.
        checkpoint: which of the published ones, by its name in `ccl weights list`.
        weights: its folder, or a file in it, whatever `checkpoint` says; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
        chunk: pictures to a forward; None is 16 on a CPU, else 192.
    """

    name, title, model, reader = "clip", "CLIP", "CLIPModel", "CLIPTokenizer"
    columns = (Column("clip", "CLIP", digits=3),)
    batch_size, gpu_batch_size = 4, 16

    def __init__(
        self,
        *,
        pictures: int = 48,
        checkpoint: Checkpoint = "clip",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(checkpoint, weights, device, precision)
        if pictures < 1:
            raise ValueError(f"pictures is {pictures}; it must be at least 1")
        self.pictures = pictures
        self.chunk = chunk or (16 if self.place.type == "cpu" else 192)

    def prepare(self, film: Film) -> Inputs:
        """Resized and cropped pictures."""
        prompt = self.prompt(film)
        return Inputs(squares(film.video, self.pictures, self.side), prompt)

    def measure(self, inputs: Sequence[Inputs]) -> list[Measured]:
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            seen = self.see(torch.cat([one.pictures for one in inputs])).split([len(one.pictures) for one in inputs])
            words = self.read([one.prompt for one in inputs])
        scores = [F.cosine_similarity(each, word, dim=-1).mean() for each, word in zip(seen, words, strict=True)]
        return [Measured({"clip": float(score)}) for score in scores]

    def see(self, pictures: UInt8[Tensor, "n 3 s s"]) -> Float32[Tensor, "n e"]:
        """Embeddings of pictures."""
        parts = (normalised(part.to(self.place)) for part in pictures.split(self.chunk))
        return torch.cat([self.net.get_image_features(part).pooler_output.float().cpu() for part in parts])

    @cached_property
    def side(self) -> int:
        """Pixels of a picture's side, as the network takes it."""
        vision = read_json(self.source.folder / "config.json").get("vision_config")
        return int(vision.get("image_size", SIDE)) if isinstance(vision, dict) else SIDE

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {
            "pictures": f"{self.pictures}, evenly from the first to the last; shorter side by antialiased bicubic, "
            "middle cropped",
            "score": "mean cosine over pictures",
        }


def squares(video: UInt8[np.ndarray, "t h w 3"], count: int, side: int) -> UInt8[Tensor, "n 3 s s"]:
    """So many pictures, evenly from the first to the last, as the network takes them."""
    index = torch.linspace(0, len(video) - 1, count).round().long().numpy()
    # One at a time: bytes of a 1080p picture are 6 MB, and 48 of them would lie there twice.
    chosen = (torch.from_numpy(video[at]).permute(2, 0, 1)[None] for at in index)
    return torch.cat([squared(picture, side) for picture in chosen])


def squared(pictures: UInt8[Tensor, "n 3 h w"], side: int) -> UInt8[Tensor, "n 3 s s"]:
    """The middle of pictures whose shorter side is the network's."""
    return centre_crop(resize_bicubic(pictures, side), side)
