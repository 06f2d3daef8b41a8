"""Ovi's fusion: each stream reads the other by the queries with which it reads the text (arXiv 2510.01284).

X += o(A(q, text) + A(R q, R norm(k(LN Y)))), with v(LN Y) as values: q and o are those of the stream's own text
attention, R turns by each stream's own positions, and Y is the other stream after its self-attention. Nothing is
windowed, gated or modulated by time. b batch, l query tokens, m source tokens, h heads, p head width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.interaction.align import (
    Rescale,
    audio_positions,
    check_rescale,
    own_angles,
    rotary_pairs,
    split_pairs,
    video_positions,
)
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.nn.attention import Backend, attention, attention_weights, heads
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, untaken
from ccl.nn.rope import Rotary, rotate
from ccl.nn.split import Split, whole
from ccl.types import AV

NAMES = "k_fusion|v_fusion|pre_attn_norm_fusion|norm_k_fusion"


class FusionAttention(nn.Module):
    """One direction: what the queries of one stream read of the other, before the output projection. Names are Ovi's.

    Args:
        width: of the query stream.
        source: width of the other stream; Ovi's are equal.
        head_dim: of a head.
        gain: of the linears' first weights.
        backend: which attention kernel.
    """

    def __init__(self, width: int, source: int, head_dim: int, *, gain: float, backend: Backend) -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.pre_attn_norm_fusion = LayerNorm(source)
        self.k_fusion = Linear(source, width, gain=gain)
        self.v_fusion = Linear(source, width, gain=gain)
        self.norm_k_fusion = RMSNorm(width)

    def forward(
        self,
        q: Float[Tensor, "b l h p"],
        source: Float[Tensor, "b m w"] | None,
        rope: tuple[Float[Tensor, "l n 2"], Float[Tensor, "m n 2"]],
        split: Split | None = None,
    ) -> Float[Tensor, "b l h p"] | Float[Tensor, ""] | None:
        """What is added to what the heads read of the text; on a closed route (no source) nothing.

        Args:
            q: of text attention, without positions.
            source: the other stream.
            rope: tables of the query stream and of the source.
            split: which of the source's tokens are here, where not all; `rope` is theirs.
        """
        if source is None:
            return untaken(self, q)
        y = self.pre_attn_norm_fusion(source)
        v = heads(self.v_fusion(y), self.head_dim)
        k = rotate(heads(self.norm_k_fusion(self.k_fusion(y)), self.head_dim), rope[1]).to(v.dtype)
        return attention(rotate(q, rope[0]).to(v.dtype), *whole(split, k, v), backend=self.backend)

    def weights(
        self,
        q: Float[Tensor, "b l h p"],
        source: Float[Tensor, "b m w"],
        rope: tuple[Float[Tensor, "l n 2"], Float[Tensor, "m n 2"]],
    ) -> Attention:
        """Whom the queries attend to in `forward`, of which the arguments are."""
        k = heads(self.norm_k_fusion(self.k_fusion(self.pre_attn_norm_fusion(source))), self.head_dim)
        return Attention(attention_weights(rotate(q, rope[0]), rotate(k, rope[1])), {})


class OviFusion(Interaction):
    """Both directions, inside text attention. The video stream's own linears start ten times smaller, as Ovi's do.

    Args:
        site: where it stands, given by the network.
        rescale: of the audio positions. None is the network's own, as in Ovi's code, where self-attention and fusion
            turn by one table: its factor is 0.19676, of 31 latent frames and 121 / 24 s at 31.25 latents/s.
    """

    at: ClassVar[tuple[Where, ...]] = ("text",)
    starts_at_zero: ClassVar[bool] = False
    upstream: ClassVar[tuple[tuple[str, str], ...]] = (
        (rf"\.video\.cross_attn\.({NAMES})\.", r".interaction.a2v.\1."),
        (rf"\.audio\.cross_attn\.({NAMES})\.", r".interaction.v2a.\1."),
    )

    def __init__(self, site: Site, *, rescale: Rescale | float | None = None) -> None:
        super().__init__()
        self.rescale = site.rescale if rescale is None else rescale
        check_rescale(self.rescale)
        self.head_dim = site.head_dim
        # fusion.py divides the fusion's weights by 10 in video_model alone, after drawing those of both.
        self.a2v = FusionAttention(site.video, site.audio, site.head_dim.video, gain=0.1, backend=site.backend)
        self.v2a = FusionAttention(site.audio, site.video, site.head_dim.audio, gain=1.0, backend=site.backend)

    def forward(self, where: Where, seen: Seen) -> Update:
        fusions, split = AV(self.a2v, self.v2a), AV(None, seen.split)
        return Update(AV.zip(lambda q, fusion, *of: fusion(q, *of), seen.q, fusions, seen.other, seen.layout, split))

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        fusions = AV(self.a2v, self.v2a)
        return AV.zip(lambda y, q, fusion, rope: fusion.weights(q, y, rope), seen.other, seen.q, fusions, seen.layout)

    def layout(self, grid: Grid, device: torch.device) -> AV[tuple[Rotary, Rotary]]:
        """Rotary pairs, by each stream's own positions."""
        at = AV(video_positions(grid), audio_positions(grid, self.rescale))
        dtype = next(self.parameters()).dtype
        return rotary_pairs(self.head_dim, lambda d: own_angles(at, grid, AV(d, d)), dtype, device)

    def split(self, layout: AV[tuple[Rotary, Rotary]], by: Split) -> AV[tuple[Rotary, Rotary]]:
        return split_pairs(layout, by)
