"""Leaf parts of the network: attention, layers, rotary positions, chunks. They know nothing of what is above them."""

from ccl.nn.attention import Backend, attention
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, gated_add, initialise, keep_in_use, modulate
from ccl.nn.rope import Rotary, rotate, split_head

__all__ = [
    "Backend",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "Rotary",
    "attention",
    "gated_add",
    "initialise",
    "keep_in_use",
    "modulate",
    "rotate",
    "split_head",
]
