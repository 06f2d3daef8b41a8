"""A clip's video tokens, split over processes: context parallelism by Ulysses (DeepSpeed-Ulysses, arXiv 2309.14509).

Of every latent frame a process holds an equal run of tokens, so that what belongs to a frame, be it a modulation or a
window of sound, needs to know nothing of it. Self-attention exchanges tokens for heads: it reads all tokens in some of
the heads. What the other stream reads is made of the own tokens first and put together then. All else is a token's own.

Each process computes the whole loss and what is passed back through the exchanges is summed, so that the *mean* of the
processes' gradients, which FSDP2 takes anyway, is one process's gradient: nothing is counted twice, and no parameter is
an exception. b batch, l tokens, n processes, h heads, p head width, f frames, s tokens of a frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup, all_to_all_single


class Split(NamedTuple):
    """The part that this process holds. The processes of a group call all but `own` together, in the same order.

    Args:
        group: the processes that share a clip; all of them see the same one.
        rank: of this process in the group.
        size: of the group.
        frames: latent frames of the clip.
    """

    group: ProcessGroup
    rank: int
    size: int
    frames: int

    def own(self, x: Tensor, dim: int = 1) -> Tensor:
        """The own part of what all tokens have, l of them, in their order along `dim`."""
        framed = x.unflatten(dim, (self.frames, -1))
        return framed.chunk(self.size, dim + 1)[self.rank].flatten(dim, dim + 1)

    def whole(self, x: Float[Tensor, "b m ..."]) -> Float[Tensor, "b l ..."]:
        """What all tokens have, in their order, of what the own ones have: m = l / n."""
        parts = _Exchange.apply(x.expand(self.size, *x.shape).contiguous(), self.group)
        return rearrange(parts, "n b (f s) ... -> b (f n s) ...", f=self.frames)

    def by_heads(self, x: Float[Tensor, "b m h p"]) -> Float[Tensor, "b l g p"]:
        """All tokens in g = h / n of the heads, in an order that is the same whenever it is called."""
        parts = rearrange(x, "b m (n g) p -> n b m g p", n=self.size)
        return rearrange(_Exchange.apply(parts.contiguous(), self.group), "n b m g p -> b (n m) g p")

    def by_tokens(self, x: Float[Tensor, "b l g p"]) -> Float[Tensor, "b m h p"]:
        """The own tokens in all heads: what takes `by_heads` back."""
        parts = rearrange(x, "b (n m) g p -> n b m g p", n=self.size)
        return rearrange(_Exchange.apply(parts.contiguous(), self.group), "n b m g p -> b m (n g) p")


def whole(split: Split | None, *parts: Tensor) -> tuple[Tensor, ...]:
    """What all tokens have, of what the own ones have; nothing changes where all tokens are here."""
    return parts if split is None else tuple(split.whole(x) for x in parts)


class _Exchange(torch.autograd.Function):
    """Row i of x goes to process i, and what comes from it takes its place; so do gradients, the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        out = torch.empty_like(x)
        if not x.is_meta:  # on which a step is followed, that nobody else takes
            all_to_all_single(out, x, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Exchange.apply(grads[0].contiguous(), ctx.group), None
