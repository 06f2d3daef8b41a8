"""DINO identity: whether what is seen at the beginning is still seen later (VBench's subject consistency).

Each picture is a point on a sphere (the class token of DINO, Caron et al. 2021, or DINOv2, Oquab et al. 2023); the
value is its cosine with the first one. `dino_subject` is VBench's: half of that, half the cosine with the picture
before. A still picture has 1, so read it beside dynamic degree. N pictures, E = 768.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets.pretrained import Pretrained
from ccl.evaluation.pictures import IMAGENET, evenly, normalised, resize_bilinear
from ccl.weights import catalogue as weights
from ccl.weights.read import read_json

SIDE = 224  # pixels of the shorter side

# Names of published weights that newer transformers have changed.
ATTENTION = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
BLOCKS = {"intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2", "encoder.layer.": "layers."}

Checkpoint = Literal["dino", "dinov2"]


class DINO(Metric):
    """Mean cosine of the pictures with the first one, and VBench's subject consistency; higher is more alike.

    Args:
        pictures: how many of the film's, evenly from the first to the last; 0 is all of them, as VBench. With fewer,
            neighbours lie further apart, which lowers `dino_subject` and hardly moves `dino_identity`.
        checkpoint: which of the published ones, by its name in `ccl weights list`; VBench's is "dino".
        weights: its folder, or a file in it, whatever `checkpoint` says; None looks it up.
        device: where the network runs.
        chunk: pictures to a forward; None is 4 on a CPU, else 64.
    """

    name = "dino"
    usual = False
    columns = (
        Column("dino_identity", "DINO identity", digits=3),
        Column("dino_subject", "Subject consistency", digits=3),
    )

    def __init__(
        self,
        *,
        pictures: int = 16,
        checkpoint: Checkpoint = "dino",
        weights: str | Path | None = None,
        device: str = "cpu",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if pictures < 0 or pictures == 1:
            raise ValueError(f"pictures is {pictures}; it must be at least 2, or 0 for all")
        self.pictures, self.checkpoint, self.given = pictures, checkpoint, weights
        self.place = torch.device(device)
        self.chunk = chunk or (4 if self.place.type == "cpu" else 64)

    def prepare(self, film: Film) -> UInt8[Tensor, "n 3 h w"]:
        """Its pictures, as bytes of the network's size."""
        if len(film.video) < 2:
            raise Unscorable("one picture alone has none to be compared with")
        return torch.cat([resized(picture) for picture in evenly(film.video, self.pictures)])

    def measure(self, inputs: Sequence[UInt8[Tensor, "n 3 h w"]]) -> list[Measured]:
        return [Measured(consistency(self.see(pictures))) for pictures in inputs]

    def see(self, pictures: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n e"]:
        """Embeddings of pictures."""
        wide = {"interpolate_pos_encoding": True} if self.net.config.model_type == "vit" else {}
        parts = (normalised(part.to(self.place), *IMAGENET) for part in pictures.split(self.chunk))
        return torch.cat([self.net(part, **wide).last_hidden_state[:, 0].float().cpu() for part in parts])

    @property
    def source(self) -> Pretrained:
        """Folder and file. MissingWeights, or ValueError where they hold no weights."""
        return Pretrained.find(self.checkpoint, self.given)

    @cached_property
    def net(self) -> Any:
        from transformers import Dinov2Model, ViTModel

        class Tower(ViTModel):
            """Without the layer behind the class token, which DINO has not."""

            def __init__(self, config: Any) -> None:
                super().__init__(config, add_pooling_layer=False)

        second = read_json(self.source.folder / "config.json").get("model_type") == "dinov2"
        with torch.inference_mode(False):
            cls, renamed = (Dinov2Model, ATTENTION) if second else (Tower, ATTENTION | BLOCKS)
            return self.source.network(cls, "DINO", renamed).to(self.place)

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return self.source

    def protocol(self) -> dict[str, Any]:
        return {
            "model": self.checkpoint if self.given is None else self.source.folder.name,
            "pictures": f"{self.pictures}, evenly from the first to the last" if self.pictures else "all",
            "size": f"shorter side {SIDE} by bilinear interpolation, uncropped",
            "weights": weights.sha256(self.source.file),
        }


def resized(picture: UInt8[Tensor, "1 3 h w"]) -> UInt8[Tensor, "1 3 y x"]:
    """Shorter side of SIDE pixels."""
    h, w = picture.shape[-2:]
    return resize_bilinear(picture, (SIDE, int(SIDE * w / h)) if h <= w else (int(SIDE * h / w), SIDE))


def consistency(seen: Float32[Tensor, "n e"]) -> dict[str, float]:
    """Mean cosine with the first; and of that, and of the cosine with the one before, where above 0, the mean."""
    seen = F.normalize(seen.double(), dim=1)
    first, before = (seen[1:] * seen[:1]).sum(1), (seen[1:] * seen[:-1]).sum(1)
    subject = (first.clamp(min=0) + before.clamp(min=0)) / 2
    return {"dino_identity": float(first.mean()), "dino_subject": float(subject.mean())}
