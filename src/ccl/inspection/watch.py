"""Attention between the streams, read from a forward as it happens: hooks on the interactions, which recompute it.

b clips, h heads, l query tokens, m tokens of the other stream, n context tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.interaction.base import Interaction
from ccl.types import AV, STREAMS

DIRECTIONS = AV("a2v", "v2a")
"""What updates each stream."""


@dataclass(frozen=True)
class Seen:
    """What the tokens of one stream attend to in one layer, the mean over heads.

    Args:
        layer: from 0.
        direction: "a2v", the video's tokens on the audio's, or "v2a".
        other: (b, l, m), on each token of the other stream.
        rest: (b, l) by name: on all that is there besides, "context" or "own" tokens, together.
    """

    layer: int
    direction: str
    other: Float[Tensor, "b l m"]
    rest: dict[str, Tensor]


@contextmanager
def watched(net: Any) -> Iterator[list[Seen]]:
    """Within it, a list that each forward of the network fills, layer by layer."""
    found: list[Seen] = []

    def read(layer: int) -> Any:
        def hook(interaction: nn.Module, given: tuple[Any, ...]) -> None:
            assert isinstance(interaction, Interaction)
            with torch.no_grad():
                pair = interaction.attention(*given)
            for direction, one in zip(DIRECTIONS, pair, strict=True):
                if one is not None:
                    rest = {name: x.mean(1).sum(-1).cpu() for name, x in one.rest.items()}
                    found.append(Seen(layer, direction, one.other.mean(1).cpu(), rest))

        return hook

    handles = [block.interaction.register_forward_pre_hook(read(i)) for i, block in enumerate(net.blocks)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def untold(net: Any) -> str:
    """Why there is nothing to see, in a sentence; "" where there is something."""
    if None in net.ends:
        lacking = next(stream for stream, end in zip(STREAMS, net.ends, strict=True) if end is None)
        return f"this model has no {lacking} stream, so nothing attends to it"
    kind = type(net.interaction)
    if kind.attention is Interaction.attention:
        return f"{kind.__name__} does not say what it attends to (ccl.interaction.Interaction.attention)"
    return ""
