"""What a sampling run computes once: keys and values of text and of context tokens, for every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ccl.model.block import BlockCache
from ccl.nn.chunks import chosen
from ccl.types import AV


@dataclass(frozen=True)
class Prepared:
    """Made by `DualStreamTransformer.prepare`, passed in place of the text. Holds no gradients.

    Args:
        blocks: of every block; text keys and values (b, m, h, p) of each stream, and the interaction's constants.
        extras: what the batch brings beside latents and text.
    """

    blocks: Sequence[BlockCache]
    extras: dict[str, Any] = field(default_factory=dict)

    def chosen(self, which: Sequence[int], of: int) -> Prepared:
        """Of some of its equal, consecutive chunks."""
        if len(which) == of:
            return self
        blocks = [BlockCache(chosen(block.text, which, of), block.constants) for block in self.blocks]
        return Prepared(blocks, chosen(self.extras, which, of))


class Chunks(Sequence[BlockCache]):
    """The blocks of several texts as those of one batch. Each is put together when it is read, so that a text which
    several chunks read is kept once.

    Args:
        texts: of each chunk, for each stream.
    """

    def __init__(self, texts: AV[list[Prepared]]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts.video[0].blocks)

    def __getitem__(self, i: Any) -> Any:
        parts = ([each.blocks[i].text[s] for each in chunks] for s, chunks in enumerate(self.texts))
        joined = (None if part[0] is None else _cat(part) for part in parts)
        return BlockCache(AV(*joined), self.texts.video[0].blocks[i].constants)


def together(texts: Sequence[Any]) -> Any:
    """One text of a batch out of one for each of its equal, consecutive chunks.

    Args:
        texts: states, or what `prepare` made of them; for both streams or, as AV, for each.
    """
    if len(texts) == 1 and not isinstance(texts[0], AV):
        return texts[0]
    each: AV[Any] = AV(*([one[s] if isinstance(one, AV) else one for one in texts] for s in range(2)))
    if all(isinstance(one, Prepared) for chunks in each for one in chunks):
        return Prepared(Chunks(each), _cat([one.extras for one in each.video]))
    states = AV(*(None if any(one is None for one in chunks) else torch.cat(chunks) for chunks in each))
    return states if any(isinstance(one, AV) for one in texts) else states.video


def _cat(trees: Sequence[Any]) -> Any:
    """Rows of one tree after those of another."""
    return trees[0] if len(trees) == 1 else tree_map(lambda *parts: torch.cat(parts), *trees)
