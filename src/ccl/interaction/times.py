"""Times of the streams to what modulates an interaction's blocks."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.nn.layers import Linear, sinusoid, widely
from ccl.types import AV

FREQUENCIES = 256  # numbers of the sinusoid of a time, as Wan's


class Times(nn.Module):
    """Times to what modulates blocks of a width: one for all blocks and both streams."""

    def __init__(self, width: int, rows: int = 6) -> None:
        super().__init__()
        self.rows = rows
        self.layers = nn.Sequential(
            Linear(FREQUENCIES, width, init="normal"),
            nn.SiLU(),
            Linear(width, width, init="normal"),
            nn.SiLU(),
            Linear(width, rows * width),
        )

    def forward(self, time: AV[Any]) -> AV[Any]:
        """(b, f, rows, w) of each stream's times (b, f)."""
        return time.map(self.embedded)

    def embedded(self, t: Float[Tensor, "b f"]) -> Float[Tensor, "b f n w"]:
        """Of one stream's."""
        e = widely(self.layers, sinusoid(1000 * t.double(), FREQUENCIES))
        return rearrange(e, "b f (n w) -> b f n w", n=self.rows)
