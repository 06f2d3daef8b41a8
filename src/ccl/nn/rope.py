"""Rotary positions: interleaved pairs, 3-D for video, the temporal share of the head for audio (CCL Sec. 4.1).

A head of d numbers gives t = d - 4 (d // 6) to time and 2 (d // 6) to each of height and width, every axis with its
own frequencies 10000^(-2i / axis). Angles are float64, the rotation float32, or float64 of what is. l tokens,
h heads, p = d / 2 pairs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from ccl.nn.layers import wide

# Cosine and sine of each token's pairs; a pair that does not turn has angle 0.
Rotary = Float[Tensor, "l p 2"]


def split_head(head_dim: int) -> tuple[int, int, int]:
    """How many numbers of a head turn with time, height and width."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def angles(positions: Inexact[Tensor, " l"], dim: int) -> Float[Tensor, "l p"]:
    """position * 10000^(-2i / dim), in float64."""
    frequencies = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
    return positions.double()[:, None] * frequencies


def video_angles(frames: Inexact[Tensor, " t"], h: int, w: int, head_dim: int) -> Float[Tensor, "l p"]:
    """3-D angles of t x h x w tokens: time in frames (floats allowed), space in tokens."""
    device = frames.device
    t_dim, h_dim, w_dim = split_head(head_dim)
    rows = torch.arange(h, dtype=torch.float64, device=device)
    columns = torch.arange(w, dtype=torch.float64, device=device)
    shape = (len(frames), h, w)
    parts = (
        angles(frames, t_dim)[:, None, None].expand(*shape, -1),
        angles(rows, h_dim)[None, :, None].expand(*shape, -1),
        angles(columns, w_dim)[None, None].expand(*shape, -1),
    )
    return torch.cat(parts, -1).flatten(0, 2)


def temporal_angles(positions: Inexact[Tensor, " l"], head_dim: int) -> Float[Tensor, "l p"]:
    """Angles on the temporal share of the head alone; the rest does not turn (decision 2, as Ovi)."""
    turning = angles(positions, split_head(head_dim)[0])
    return torch.nn.functional.pad(turning, (0, head_dim // 2 - turning.shape[1]))


def rotary(angle: Float[Tensor, "l p"], dtype: torch.dtype = torch.float32) -> Rotary:
    """Cosines and sines for tensors of this type, in float32 at least."""
    return torch.stack([angle.cos(), angle.sin()], -1).to(torch.promote_types(dtype, torch.float32))


def rotate(x: Float[Tensor, "b l h d"], by: Rotary) -> Float[Tensor, "b l h d"]:
    """Turn each pair (x[2i], x[2i + 1]) by its angle, in float32 at least."""
    pairs, by = wide(x).unflatten(-1, (-1, 2)), by[:, None]
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic, and has no complex
        (a, b), (cos, sin) = pairs.unbind(-1), by.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    turned = torch.view_as_complex(pairs) * torch.view_as_complex(by)
    return torch.view_as_real(turned).flatten(-2)
