"""VGGish (Hershey et al. 2017, arXiv 1609.09430), as torchvggish publishes it, without its last ReLU as av-benchmark.

K examples of 96 frames and 64 mel bands; 128 features each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

FRAMES, BANDS, WIDTH = 96, 64, 128
LAYERS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)  # channels of a convolution; 0 halves both sides


class VGGish(nn.Module):
    """Log mel spectrograms of 0.96 s to features."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in LAYERS:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            channels = width or channels
        self.features = nn.Sequential(*layers)
        wide = [nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, WIDTH)]
        self.embeddings = nn.Sequential(*wide)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> VGGish:
        """The network of these weights, those of the PCA left out; ValueError where they are not VGGish's."""
        return filled(cls, {key: value for key, value in state.items() if not key.startswith("pproc.")}, "VGGish")

    def forward(self, x: Float[Tensor, "k 96 64"]) -> Float[Tensor, "k 128"]:
        return self.embeddings(rearrange(self.features(x[:, None]), "k c t m -> k (t m c)"))
