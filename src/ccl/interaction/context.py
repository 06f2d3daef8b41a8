"""Learnable context tokens, L_a and L_v (CCL Sec. 4.2): what a stream attends to besides, or instead of, the other one.

n context tokens, w width of the queries, h heads, d head width. Without positions: they stand for no moment.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.nn.layers import Linear


class ContextTokens(nn.Module):
    """The tokens, N(0, 0.02), and the linears that make their keys and values.

    Args:
        num: tokens.
        width: of a token.
        own: whether they have linears of their own, width -> width (L_a lies in d_v, so it cannot pass the d_a -> d_v
            projection of audio latents); else tokens lie in the source's width and pass its projections.
    """

    def __init__(self, num: int, width: int, *, own: bool) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(num, width))
        self.reset_parameters()
        if own:
            self.k = Linear(width, width)
            self.v = Linear(width, width)
        self.own = own

    def reset_parameters(self) -> None:
        nn.init.normal_(self.tokens, std=0.02)  # paper silent (decision 9)

    def forward(self, k: nn.Module, v: nn.Module) -> tuple[Float[Tensor, "n w"], Float[Tensor, "n w"]]:
        """Raw keys and values, by the own linears or by those given."""
        if self.own:
            k, v = self.k, self.v
        return k(self.tokens), v(self.tokens)
