"""What a text encoder promises: the same for the small one trained here and for umT5."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from ccl.weights.find import Absent

MOST = 2**16  # states of a prompt


class TextEncoder(nn.Module, ABC):
    """Prompts to states of a fixed length, zeros after the last token, as Wan2.1 feeds them.

    `dim` is the width of a state, `length` the number of states. The dropped and the negative prompt are the ENCODED
    empty prompt, never zeros.
    """

    dim: int
    length: int

    @abstractmethod
    def forward(self, prompts: list[str]) -> Float[Tensor, "b l d"]:
        """Encode; longer prompts are cut at `length` tokens. ValueError in words for what is no list of texts."""

    @property
    def identity(self) -> str:
        """Names the weights of an encoder that is only used: its states may be stored. "" of one that trains."""
        return ""

    @property
    def known(self) -> str | None:
        """The identity; None where the weights are not on this machine."""
        try:
            return self.identity
        except Absent:
            return None

    def unload(self) -> None:
        """Give back the memory of weights that can be loaded again; they are when next needed. Nothing here."""


def check_width(text: TextEncoder, wanted: int) -> None:
    """ValueError where a network reads states of another width, `wanted`."""
    if text.dim != wanted:
        raise ValueError(f"model.text has a dim of {text.dim} and model.net a text_dim of {wanted}; they must be equal")


def check_length(length: int) -> None:
    """ValueError where a prompt cannot have so many states."""
    if not 2 <= length <= MOST:
        raise ValueError(f"text length is {length}; a prompt has from 2 to {MOST:,} states")
