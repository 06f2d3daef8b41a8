"""Attention in groups: each group's queries over keys of its own, and over keys that all groups share.

A frame's tokens over its window and over context tokens, for one. b batch, h heads, g groups, q queries and k keys of a
group, n shared keys, d head width. Head-major, so that a group's matrices are blocks of memory.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from ccl.nn.attention import Backend, attention
from ccl.nn.layers import wide

Shared = tuple[Float[Tensor, "n h d"], Float[Tensor, "n h d"]]


def grouped_attention(
    q: Float[Tensor, "b h g q d"],
    k: Float[Tensor, "b h g k d"],
    v: Float[Tensor, "b h g k d"],
    *,
    shared: Shared | None = None,
    mask: Bool[Tensor, "g k"] | None = None,
    whole: tuple[int, int] = (0, 0),
    backend: Backend = "auto",
) -> Float[Tensor, "b h g q d"]:
    """softmax(q [k; shared k]^T / sqrt(d)) [v; shared v] in each group, the softmax in float32, or float64.

    Args:
        q: queries.
        k: keys of each group.
        v: values of each group.
        shared: keys and values behind those of every group.
        mask: True where a key of a group may be seen; None where all may. Shared ones always may.
        whole: (first, end) of a run of groups whose keys may all be seen, which need no mask.
        backend: see `ccl.nn.attention.attention`.
    """
    if not q.is_cuda and backend in ("auto", "naive"):
        return _by_scores(q, k, v, shared, mask)
    if mask is None:
        return _by_kernel(q, k, v, shared, None, backend)
    first, end = whole
    if first == end:
        return _by_kernel(q, k, v, shared, mask, backend)
    # The edges of the clip apart: they are few groups, and a mask keeps the fastest kernels away.
    middle = [x[:, :, first:end] for x in (q, k, v)]
    edges = [torch.cat([x[:, :, :first], x[:, :, end:]], 2) for x in (q, k, v)]
    inside = _by_kernel(middle[0], middle[1], middle[2], shared, None, backend)
    out = _by_kernel(edges[0], edges[1], edges[2], shared, torch.cat([mask[:first], mask[end:]]), backend)
    return torch.cat([out[:, :, :first], inside, out[:, :, first:]], 2)


def _by_kernel(q: Tensor, k: Tensor, v: Tensor, shared: Shared | None, mask: Tensor | None, backend: Backend) -> Tensor:
    """By a fused kernel, which wants one list of keys for each group: shared ones are repeated."""
    batch = len(q)
    q, k, v = (rearrange(x, "b h g l d -> (b g) l h d") for x in (q, k, v))
    if shared is not None:
        k, v = (torch.cat([x, s.expand(len(x), *s.shape)], 1) for x, s in zip((k, v), shared, strict=True))
    if mask is not None:
        mask = torch.nn.functional.pad(mask, (0, k.shape[1] - mask.shape[1]), value=True)
        mask = mask.expand(batch, *mask.shape).flatten(0, 1)[:, None, None]
    out = attention(q, k, v, mask=mask, backend=backend)
    return rearrange(out, "(b g) q h d -> b h g q d", b=batch)


def _by_scores(q: Tensor, k: Tensor, v: Tensor, shared: Shared | None, mask: Tensor | None) -> Tensor:
    """By the definition. On a CPU, where groups are small, a group's scores are less than its keys; so the scores of
    own and of shared keys are put together, and no key is repeated."""
    with torch.autocast(q.device.type, enabled=False):
        dtype, size = v.dtype, k.shape[-2]
        q, k, v = (wide(x) for x in (q * q.shape[-1] ** -0.5, k, v))
        scores = q @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        if shared is None:
            return (scores.softmax(-1) @ v).to(dtype)
        keys, values = (wide(x).transpose(0, 1) for x in shared)
        common = (q.flatten(2, 3) @ keys.transpose(-1, -2)).unflatten(2, scores.shape[2:4])
        own, common = torch.cat([scores, common], -1).softmax(-1).split([size, keys.shape[1]], -1)
        out = own @ v + (common.flatten(2, 3) @ values).unflatten(2, scores.shape[2:4])
        return out.to(dtype)
