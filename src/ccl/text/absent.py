"""Stands for a pretrained text encoder that this version does not carry, so that the paper's configs resolve whole."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ccl.text.base import TextEncoder


class AbsentText(TextEncoder):
    """Knows its width and length, so that a model can be built; says what is missing where it would have to encode.

    Args:
        name: of the encoder that belongs here.
        dim: width of its states.
        length: number of its states.
    """

    absent = True

    def __init__(self, name: str, dim: int, length: int) -> None:
        super().__init__()
        self.name, self.dim, self.length = name, dim, length

    def forward(self, prompts: list[str]) -> Float[Tensor, "b l d"]:
        raise ValueError(f"the text encoder {self.name} is not part of this version of ccl")
