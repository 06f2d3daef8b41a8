"""MOVA's bridge (arXiv 2602.08794): before its self-attention each stream reads the whole other one, turned by time.

X += g o(A(R norm(q X), R norm(k LN(Y)))), with v LN(Y) as values: q reads the stream as it is, R turns the whole head
by time alone, counted in audio tokens, and g is 1 or one number that is trained. Nothing is windowed or modulated.
b batch, l query tokens, m source tokens, h heads of d, p = d / 2.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import audio_positions, rotary_pairs, split_pairs
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.nn.attention import Backend, attention, attention_weights, heads
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, untaken, wide
from ccl.nn.rope import Rotary, angles, rotate
from ccl.nn.split import Split, whole
from ccl.types import AV


class Bridge(nn.Module):
    """One direction: what one stream reads of the other. The linears start as torch's do, none of them at zero.

    Args:
        width: of the query stream; all heads live here, as MOVA's do.
        source: width of the other stream.
        head_dim: of a head.
        backend: which attention kernel.
    """

    def __init__(self, width: int, source: int, head_dim: int, backend: Backend) -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.y_norm = LayerNorm(source)
        self.q = Linear(width, width, init="default")
        self.k = Linear(source, width, init="default")
        self.v = Linear(source, width, init="default")
        self.o = Linear(width, width, init="default")
        self.norm_q = RMSNorm(width)
        self.norm_k = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        source: Float[Tensor, "b m w2"] | None,
        rope: tuple[Float[Tensor, "l p 2"], Float[Tensor, "m p 2"]],
        scale: Float[Tensor, "b 1 1"] | None = None,
        split: Split | None = None,
    ) -> Float[Tensor, "b l w"] | Float[Tensor, ""] | None:
        """What is added to x; on a closed route (no source) nothing.

        Args:
            x: the stream that asks.
            source: the other stream.
            rope: tables of the query stream and of the source.
            scale: what the update is multiplied by; None is 1.
            split: which of the source's tokens are here, where not all; `rope` is theirs.
        """
        if source is None:
            return untaken(self, x, *(() if scale is None else (scale,)))
        y = self.y_norm(source)
        v = heads(self.v(y), self.head_dim)
        q, k = self.queries(x, rope[0]).to(v.dtype), self.keys(y, rope[1]).to(v.dtype)
        out = attention(q, *whole(split, k, v), backend=self.backend)
        out = self.o(rearrange(out, "b l h d -> b l (h d)"))
        return out if scale is None else out * scale.to(out.dtype)

    def weights(
        self,
        x: Float[Tensor, "b l w"],
        source: Float[Tensor, "b m w2"],
        rope: tuple[Float[Tensor, "l p 2"], Float[Tensor, "m p 2"]],
    ) -> Attention:
        """Whom x attends to in `forward`, of which the arguments are."""
        return Attention(attention_weights(self.queries(x, rope[0]), self.keys(self.y_norm(source), rope[1])), {})

    def queries(self, x: Float[Tensor, "b l w"], rope: Rotary) -> Float[Tensor, "b l h d"]:
        return turned(heads(self.norm_q(self.q(x)), self.head_dim), rope)

    def keys(self, y: Float[Tensor, "b m w2"], rope: Float[Tensor, "m p 2"]) -> Float[Tensor, "b m h d"]:
        return turned(heads(self.norm_k(self.k(y)), self.head_dim), rope)


def turned(x: Float[Tensor, "b l h d"], rope: Rotary) -> Float[Tensor, "b l h d"]:
    """Number i of a head turned with number i + d / 2, as MOVA's weights have it. The two come to lie side by side, and
    stay so: queries and keys are only multiplied with each other, in whatever order."""
    return rotate(rearrange(x, "b l h (two p) -> b l h (p two)", two=2), rope)


class Scale(nn.Module):
    """The number by which all updates of all blocks are multiplied, 1 at the start, for each clip."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)

    def forward(self, time: AV[Any]) -> AV[Any]:
        """(b, 1, 1) for each stream."""
        return time.map(lambda t: wide(self.scale).expand(len(t), 1, 1))


class MOVABridge(Interaction):
    """Both directions, in the first blocks of the network.

    Args:
        site: where it stands, given by the network.
        layers: in how many blocks, counted from the first; where the network has fewer, in all.
        first_frame_bias: whether positions know that the codec's first latent frame is one picture long; else all
            frames are as long as the later ones.
        train_scale: whether updates are multiplied by a number that is trained, one for all blocks; else by 1.

    Raises:
        ValueError: `layers` is no number of blocks.
    """

    at: ClassVar[tuple[Where, ...]] = ("before",)
    starts_at_zero: ClassVar[bool] = False

    def __init__(
        self, site: Site, *, layers: int = 30, first_frame_bias: bool = False, train_scale: bool = False
    ) -> None:
        super().__init__()
        arguments.number("MOVABridge's layers", layers, 1, whole=True)
        self.active = site.layer < layers
        self.first_frame_bias, self.train_scale, self.head_dim = first_frame_bias, train_scale, site.head_dim
        if self.active:
            self.a2v = Bridge(site.video, site.audio, site.head_dim.video, site.backend)
            self.v2a = Bridge(site.audio, site.video, site.head_dim.audio, site.backend)

    def trunk(self) -> nn.Module | None:
        return Scale() if self.train_scale else None

    def forward(self, where: Where, seen: Seen) -> Update:
        bridges, scale = AV(self.a2v, self.v2a), AV(None, None) if seen.shared is None else seen.shared
        given = seen.x, bridges, seen.other, seen.layout, scale, AV(None, seen.split)
        return Update(AV.zip(lambda x, bridge, *of: bridge(x, *of), *given))

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        bridges = AV(self.a2v, self.v2a)
        return AV.zip(lambda y, x, bridge, rope: bridge.weights(x, y, rope), seen.other, seen.x, bridges, seen.layout)

    def layout(self, grid: Grid, device: torch.device) -> AV[tuple[Rotary, Rotary]]:
        """Rotary pairs of the streams' moments, which turn the whole head; a frame's tokens share one."""
        frames = moments(grid, first_frame_bias=self.first_frame_bias).repeat_interleave(grid.h * grid.w)
        at: AV[Any] = AV(frames, audio_positions(grid, "none"))
        return rotary_pairs(
            self.head_dim, lambda d: at.map(partial(angles, dim=d)), next(self.parameters()).dtype, device
        )

    def split(self, layout: AV[tuple[Rotary, Rotary]], by: Split) -> AV[tuple[Rotary, Rotary]]:
        return split_pairs(layout, by)


def moments(grid: Grid, *, first_frame_bias: bool) -> Float[Tensor, " t"]:
    """Where the latent frames begin, in audio tokens; audio tokens lie at 0, 1, 2, ..."""
    i = torch.arange(grid.t_v, dtype=torch.float64)
    pictures = grid.stride_time * i
    if first_frame_bias:  # of which the first latent frame holds one
        pictures = (pictures - grid.stride_time + 1).clamp(min=0)
    return pictures / grid.fps * grid.latent_rate
