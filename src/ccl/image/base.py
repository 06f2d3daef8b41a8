"""What an image encoder promises."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class ImageEncoder(nn.Module, ABC):
    """Pictures to states that a network attends to beside the text; only used, never trained.

    `dim` is the width of a state, `tokens` the number of states of a picture.
    """

    dim: int
    tokens: int

    @abstractmethod
    def forward(self, pictures: Float[Tensor, "b 3 hp wp"]) -> Float[Tensor, "b n i"]:
        """States of pictures in [-1, 1], of any size, on their device."""

    def unload(self) -> None:
        """Give back the memory of weights that can be loaded again; they are when next needed. Nothing here."""
