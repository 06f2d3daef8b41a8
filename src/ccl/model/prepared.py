"""What a sampling run computes once: keys and values of text and of context tokens, for every block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ccl.model.block import BlockCache
from ccl.types import AV


@dataclass(frozen=True)
class Prepared:
    """Made by `DualStreamTransformer.prepare`, passed in place of the text. Holds no gradients.

    Args:
        blocks: of every block; text keys and values (b, m, h, p) of each stream, and the interaction's constants.
    """

    blocks: tuple[BlockCache, ...]

    @property
    def batch(self) -> int:
        return len(self.blocks[0].text.video[0])

    def repeat(self, times: int) -> Prepared:
        """The whole batch, `times` times over: [a, b] -> [a, b, a, b]."""
        return self._map(lambda x: x.repeat(times, *[1] * (x.ndim - 1)))

    def expand(self, batch: int) -> Prepared:
        """One text for a batch of `batch`; itself where it has that many already."""
        return self if self.batch == batch else self._map(lambda x: x.expand(batch, *x.shape[1:]))

    @staticmethod
    def cat(parts: Sequence[Prepared]) -> Prepared:
        """Batches one after another; constants are those of the first."""
        first, *rest = parts
        if not rest:
            return first
        blocks = []
        for caches in zip(*(p.blocks for p in parts), strict=True):
            text = AV.zip(lambda *kvs: tuple(map(torch.cat, zip(*kvs, strict=True))), *(c.text for c in caches))
            blocks.append(caches[0]._replace(text=text))
        return replace(first, blocks=tuple(blocks))

    def _map(self, f: Callable[[Tensor], Any]) -> Prepared:
        def apply(kv: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
            return tuple(map(f, kv))

        return replace(self, blocks=tuple(c._replace(text=c.text.map(apply)) for c in self.blocks))
