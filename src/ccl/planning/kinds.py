"""A network in short: one block of each kind, and the kind of every block.

Blocks cost the same where they are made alike. They need not be: an interaction may be active in some layers only, a
stream may end before the other, a first block may differ.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ccl.model.dual_stream import DualStreamTransformer
from ccl.types import Skip, View


@dataclass(frozen=True)
class Short:
    """A network in short.

    Args:
        net: the network on the meta device; its blocks are one of each kind.
        kinds: of each layer of the whole network, which of those blocks it is like.
    """

    net: DualStreamTransformer
    kinds: tuple[int, ...]

    @property
    def block_sizes(self) -> list[int]:
        """Parameters of each layer's block."""
        sizes = [sum(p.numel() for p in block.parameters()) for block in self.net.blocks]
        return [sizes[kind] for kind in self.kinds]

    def alike(self, views: Sequence[View] = ()) -> list[int]:
        """For each layer the first one that costs the same: a block of the same kind, of which views skip as much."""
        skipped = [
            tuple(view.skips(what, layer) for view in views for what in ("block", "self_attention"))
            for layer in range(len(self.kinds))
        ]
        return firsts(list(zip(self.kinds, skipped, strict=True)))

    def blocks(self, layers: Sequence[int], of: DualStreamTransformer) -> nn.ModuleList:
        """Blocks as at these layers, copied from a network that is a copy of this one's."""
        return nn.ModuleList(copy.deepcopy(of.blocks[self.kinds[layer]]) for layer in layers)


def shorten(net: DualStreamTransformer) -> Short:
    """A network that was built on the meta device, in short. It is taken over: other blocks leave it."""
    first = firsts([made(block, layer) for layer, block in enumerate(net.blocks)])
    kept = sorted(set(first))
    net.blocks = nn.ModuleList(net.blocks[layer] for layer in kept)
    return Short(net, tuple(kept.index(layer) for layer in first))


def firsts(keys: Sequence[Hashable]) -> list[int]:
    """For each key where it stands first."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, i) for i, key in enumerate(keys)]


def made(block: nn.Module, layer: int) -> Hashable:
    """How a block is made: its modules, their parameters, and what they remember that is plain; a number that is the
    layer's own does not tell it from others."""

    def plain(value: Any) -> bool:
        return all(map(plain, value)) if isinstance(value, tuple) else isinstance(value, bool | int | str | None)

    return tuple(
        (
            name,
            type(module),
            tuple((key, tuple(p.shape), p.requires_grad) for key, p in module.named_parameters(recurse=False)),
            tuple(
                (key, "layer" if type(value) is int and value == layer else value)
                for key, value in vars(module).items()
                if plain(value)
            ),
        )
        for name, module in block.named_modules()
    )


def moved(views: Sequence[View], layers: Sequence[int]) -> list[View]:
    """Views of a network that has the blocks of these layers alone: what they skip is named by where it stands now."""

    def skip(one: Skip) -> Skip:
        return one._replace(layers=frozenset(i for i, layer in enumerate(layers) if layer in one.layers))

    return [view._replace(skip=frozenset(map(skip, view.skip))) for view in views]
