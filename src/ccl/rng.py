"""Randomness has an owner: seeds are stable hashes of what they are for, so that runs resume and samples pair."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed from the parts' text, the same in every process and on every machine (never Python's `hash`)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of`. Noise is drawn on the CPU and moved, so devices agree."""
    import torch  # here, so that a seed alone, as rows and the world take it, needs no torch

    return torch.Generator().manual_seed(seed_of(*parts))
