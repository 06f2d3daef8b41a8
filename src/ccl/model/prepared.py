"""What a sampling run computes once: keys and values of text and of context tokens, for every block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ccl.model.block import BlockCache


@dataclass(frozen=True)
class Prepared:
    """Made by `DualStreamTransformer.prepare`, passed in place of the text. Holds no gradients.

    Args:
        blocks: of every block; text keys and values (b, m, h, p) of each stream, and the interaction's constants.
        extras: what the batch brings beside latents and text.
    """

    blocks: tuple[BlockCache, ...]
    extras: dict[str, Any] = field(default_factory=dict)
