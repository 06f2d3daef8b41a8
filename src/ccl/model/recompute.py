"""What a block's backward pass computes again instead of keeping (activation checkpointing)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Checkpointing = bool | Literal["attention"]
"""False keeps everything; True computes each block again; "attention" does so but for attention, whose output is kept:
its time grows with the square of a clip's length, and its output with the length."""

# Kernels behind ccl.nn.attention, by their names as operations.
ATTENTION = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "flash_attn::_flash_attn_forward",
)


def again(block: nn.Module, how: Checkpointing, *args: Any) -> Any:
    """A block's output, of which the backward pass computes again what is not kept."""
    keeping = partial(create_selective_checkpoint_contexts, _policy)
    more: dict[str, Any] = {"context_fn": keeping} if how == "attention" else {}
    return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False, **more)


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    kept = op.name().partition(".")[0] in ATTENTION
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def check(how: Any) -> None:
    """ValueError where `checkpointing` is none of what there is."""
    if how not in (False, True, "attention"):
        raise ValueError(f'checkpointing is {how!r}; it is false, true or "attention"')
