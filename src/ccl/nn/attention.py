"""Scaled dot-product attention, token-major, behind one function.

b batch (or batch x groups), q query tokens, k key tokens, h heads, d head width. Token-major in and out,
because that is how projections leave their matrices: the transposes below are views.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ccl.nn.layers import wide

Backend = Literal["auto", "sdpa", "flash", "naive"]


def attention(
    q: Float[Tensor, "b q h d"],
    k: Float[Tensor, "b k h d"],
    v: Float[Tensor, "b k h d"],
    *,
    mask: Bool[Tensor, "b 1 1 k"] | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "b q h d"]:
    """softmax(q k^T / sqrt(d)) v, the softmax in float32, or float64.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: True where a key may be seen, the same for every head and query of a batch entry.
        backend: "sdpa" is torch's; "flash" is flash-attn, which must be installed, on CUDA, in half precision, and
            hands masked calls to torch's; "auto" takes flash where it can; "naive" is the definition, for tests.

    Raises:
        ValueError: where "flash" is asked for and cannot be had.
    """
    if backend == "naive":
        return _naive(q, k, v, mask)
    if backend == "flash" and not _flash_fits(q):
        raise ValueError(
            f"attention 'flash' needs flash-attn (pip install 'ccl[gpu]'), a CUDA device and half precision; "
            f"got {q.dtype} on {q.device.type}"
        )
    if backend != "sdpa" and mask is None and _flash_fits(q):
        from flash_attn import flash_attn_func

        return flash_attn_func(q, k, v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.is_cuda or v.dtype in (torch.float32, torch.float64):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
    # torch's CPU kernel is several times slower backwards in half precision than in float32 (measured, torch 2.13).
    with torch.autocast(q.device.type, enabled=False):
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return out.transpose(1, 2).to(v.dtype)


def _naive(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.einsum("bqhd,bkhd->bhqk", wide(q), wide(k)) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), wide(v)).to(v.dtype)


def attention_weights(
    q: Float[Tensor, "b q h d"], k: Float[Tensor, "b k h d"], bias: Float[Tensor, "q k"] | None = None
) -> Float[Tensor, "b h q k"]:
    """softmax(q k^T / sqrt(d) + bias), in float32 at least: what `attention` never holds, for who looks inside."""
    scores = torch.einsum("bqhd,bkhd->bhqk", wide(q), wide(k)) * q.shape[-1] ** -0.5
    return (scores if bias is None else scores + bias).softmax(-1)


def _flash_fits(q: Tensor) -> bool:
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and _flash_installed()


@cache
def _flash_installed() -> bool:
    return find_spec("flash_attn") is not None


def heads(x: Float[Tensor, "b l w"], head_dim: int) -> Float[Tensor, "b l h d"]:
    """Split a width into heads (a view)."""
    return rearrange(x, "b l (h d) -> b l h d", d=head_dim)
