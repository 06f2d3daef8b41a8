"""States of prompts that were encoded before: what a batch of pre-encoded clips brings in the place of a text encoder.

Padding is not stored; L states a prompt, D width, of which the first n are the prompt's own and the rest zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class TextStates:
    """States of the clips of a batch, and of the empty prompt, which dropped prompts become.

    Args:
        prompts: (n, D) of each clip.
        empty: (n, D) of the empty prompt.
        length: L, that the network is fed.
    """

    prompts: list[Tensor]
    empty: Tensor
    length: int

    def read(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """float32 states as a text encoder gives them; where a prompt was dropped, "", those of the empty one."""
        states = self.empty.new_zeros(len(prompts), self.length, self.empty.shape[-1], dtype=torch.float32)
        for row, (prompt, own) in enumerate(zip(prompts, self.prompts, strict=True)):
            valid = own if prompt else self.empty
            states[row, : len(valid)] = valid
        return states

    @classmethod
    def gathered(cls, singles: Sequence[TextStates]) -> TextStates:
        """A batch of those of single clips."""
        first = singles[0]
        return cls([states for single in singles for states in single.prompts], first.empty, first.length)


def valid(states: Float[Tensor, "l d"]) -> Float[Tensor, "n d"]:
    """States without the zeros after the last token; at least one is kept."""
    used = states.any(-1).nonzero()
    return states[: int(used[-1]) + 1 if len(used) else 1]
