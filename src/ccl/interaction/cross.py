"""Cross-modal attention = alignment x context: one class behind CCA and the gate (CCL Eq. 1, 3 and 4).

a2v updates the video stream from audio, v2a the audio stream from video. b batch, l query tokens, m source tokens,
g groups (frames), n context tokens, w query width, h heads of d.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import Alignment, Directions, Groups, own_angles, rotary_pairs, split_pairs
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.interaction.context import ContextTokens
from ccl.nn.attention import Backend, attention, attention_weights, heads
from ccl.nn.grouped import grouped_attention
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, keep_in_use, untaken
from ccl.nn.rope import Rotary, angles, rotate, temporal_angles
from ccl.nn.split import Split, whole
from ccl.types import AV

Rotation = Literal["share", "temporal", "full"]
KV = tuple[Tensor, Tensor]


class Layout(NamedTuple):
    """What a grid fixes for every block: groups of each direction, and `rotary_pairs`."""

    groups: Directions
    rope: AV[tuple[Rotary, Rotary]]


class CrossAttention(nn.Module):
    """One direction: queries of one stream over windows of the other and over context tokens.

    Args:
        width: of the query stream; q, o and all heads live here.
        source: width of the other stream; k and v project it to `width` (decision 3).
        head_dim: of a head.
        num_context: context tokens; 0 for none.
        own_projections: context tokens have linears of their own (decision 8).
        init: of the output projection; "zero" makes step 0 the two streams alone (decision 5).
        backend: which attention kernel.
    """

    def __init__(
        self,
        width: int,
        source: int,
        head_dim: int,
        *,
        num_context: int,
        own_projections: bool,
        init: Literal["zero", "default"],
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.norm_query = LayerNorm(width)
        self.norm_source = LayerNorm(source)
        self.q = Linear(width, width)
        self.k = Linear(source, width)
        self.v = Linear(source, width)
        self.o = Linear(width, width, init=init)
        self.norm_q = RMSNorm(width)
        self.norm_k = RMSNorm(width)
        self.context = (
            ContextTokens(num_context, width if own_projections else source, own=own_projections)
            if num_context
            else None
        )

    def context_kv(self) -> KV | None:
        """Keys and values (n, h, d) of the context tokens, constant in a sampling run. No RoPE (Sec. 4.2)."""
        if self.context is None:
            return None
        k, v = self.context(self.k, self.v)
        k, v = self.norm_k(k).to(v.dtype), v
        return rearrange(k, "n (h d) -> n h d", d=self.head_dim), rearrange(v, "n (h d) -> n h d", d=self.head_dim)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        source: Float[Tensor, "b m w2"] | None,
        groups: Groups,
        rope: tuple[Float[Tensor, "l p 2"] | None, Float[Tensor, "m p 2"] | None],
        context: KV | None = None,
        split: Split | None = None,
    ) -> Float[Tensor, "b l w"] | Float[Tensor, ""] | None:
        """The update of x; a scalar zero or None where this direction adds nothing.

        Args:
            x: the stream that asks.
            source: the other stream, or None where the route is closed: then context tokens alone are the keys, and
                nothing of the other stream is computed.
            groups: who asks with whom, and for which tokens.
            rope: tables of x and of source, None for tokens that stand for no moment.
            context: what `context_kv` returned, or None to compute it here.
            split: which of the source's tokens are here, where not all; `rope` is theirs.
        """
        if context is None:
            context = self.context_kv()
        if source is None and context is None:
            # Eq. 1 with g = 0. In training the parameters get the zero gradients of 0 * CA, without computing CA.
            return untaken(self, x)

        q = self._queries(x, rope[0])
        if source is None:
            assert context is not None
            out = self._over_context(q.to(context[1].dtype), context)
            update = self.o(rearrange(out, "b l h d -> b l (h d)"))
            used = self.training and torch.is_grad_enabled()
            return keep_in_use(update, self._source_parameters()) if used else update

        source = self.norm_source(source)
        v = heads(self.v(source), self.head_dim)
        k, v = whole(split, self._keys(source, rope[1]).to(v.dtype), v)
        out = self._over_groups(q.to(v.dtype), k, v, groups, context)
        return self.o(rearrange(out, "b l h d -> b l (h d)"))

    def weights(
        self,
        x: Float[Tensor, "b l w"],
        source: Float[Tensor, "b m w2"] | None,
        groups: Groups,
        rope: tuple[Float[Tensor, "l p 2"] | None, Float[Tensor, "m p 2"] | None],
        context: KV | None = None,
    ) -> Attention | None:
        """Whom x attends to in `forward`, of which the arguments are; None where it attends to nothing."""
        context = self.context_kv() if context is None else context
        if source is None and context is None:
            return None
        q = self._queries(x, rope[0])
        k, bias = q[:, :0], q.new_zeros(q.shape[1], 0)
        if source is not None:
            k = self._keys(self.norm_source(source), rope[1])
            bias = groups.seen(x.shape[1], k.shape[1]).log()  # a key that repeats at an edge counts as often
        own = 0 if context is None else len(context[0])
        if context is not None:
            k = torch.cat([k, context[0].to(k.dtype).expand(len(k), *context[0].shape)], 1)
        weights = attention_weights(q, k, torch.nn.functional.pad(bias, (0, own)))
        other, shared = weights.split([weights.shape[-1] - own, own], -1)
        return Attention(other, {} if context is None else {"context": shared})

    def _queries(self, x: Tensor, rope: Tensor | None) -> Float[Tensor, "b l h d"]:
        q = heads(self.norm_q(self.q(self.norm_query(x))), self.head_dim)
        return q if rope is None else rotate(q, rope)

    def _keys(self, source: Tensor, rope: Tensor | None) -> Float[Tensor, "b m h d"]:
        k = heads(self.norm_k(self.k(source)), self.head_dim)
        return k if rope is None else rotate(k, rope)

    def _over_context(self, q: Tensor, context: KV) -> Tensor:
        # Every query of the batch shares these keys: one long row of queries, keys never repeated.
        k, v = (x[None] for x in context)
        out = attention(rearrange(q, "b l h d -> 1 (b l) h d"), k, v, backend=self.backend)
        return rearrange(out, "1 (b l) h d -> b l h d", b=len(q))

    def _over_groups(self, q: Tensor, k: Tensor, v: Tensor, groups: Groups, context: KV | None) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # head-major
        q, k, v = grouped(q, groups.queries, groups.num), *(grouped(x, groups.keys, groups.num) for x in (k, v))
        out = grouped_attention(
            q, k, v, shared=context, mask=groups.mask, whole=groups.whole, backend=self.backend
        ).flatten(2, 3)
        return (out if groups.back is None else out.index_select(2, groups.back)).transpose(1, 2)

    def _source_parameters(self) -> list[Tensor]:
        """What a closed step does not use."""
        unused: list[Tensor] = list(self.norm_source.parameters())
        if self.context is None or self.context.own:
            unused += [*self.k.parameters(), *self.v.parameters()]
        return unused


def grouped(x: Float[Tensor, "b h l d"], tokens: Int[Tensor, "g n"] | None, num: int) -> Float[Tensor, "b h g n d"]:
    """Tokens in groups: those that are named, or else in order."""
    if tokens is None:
        return x.unflatten(2, (num, -1))
    return x.index_select(2, tokens.flatten()).unflatten(2, tokens.shape)


class CrossModal(Interaction):
    """Both directions. CCA and Gate are this with and without context tokens.

    Args:
        site: where it stands.
        align: who sees which tokens.
        num_context: context tokens of a2v (they stand for audio) and of v2a (for video).
        own_projections: see CrossAttention.
        rotate: see CCA.
        init: see CrossAttention.
    """

    def __init__(
        self,
        site: Site,
        align: Alignment,
        *,
        num_context: tuple[int, int],
        own_projections: bool,
        rotate: Rotation,
        init: Literal["zero", "default"],
    ) -> None:
        super().__init__()
        self.align, self.rotation, self.head_dim = align, rotate, site.head_dim
        kwargs: dict[str, Any] = {"own_projections": own_projections, "init": init, "backend": site.backend}
        a, v = num_context
        for name, count in (("num_context_audio", a), ("num_context_video", v)):
            arguments.number(name, count, 0, arguments.WIDEST, whole=True)
        self.a2v = CrossAttention(site.video, site.audio, site.head_dim.video, num_context=a, **kwargs)
        self.v2a = CrossAttention(site.audio, site.video, site.head_dim.audio, num_context=v, **kwargs)

    def forward(self, where: Where, seen: Seen) -> Update:
        # Both directions read x as it was at this place; neither sees the other's update (decision 7).
        return Update(AV.zip(lambda x, attend, *of: attend(x, *of), *self._given(seen), AV(None, seen.split)))

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        return AV.zip(lambda x, attend, *of: attend.weights(x, *of), *self._given(seen))

    def _given(self, seen: Seen) -> tuple[AV[Any], ...]:
        """The stream that asks, its attention, and what this is given beside."""
        context = AV(None, None) if seen.constants is None else seen.constants
        return seen.x, AV(self.a2v, self.v2a), seen.other, AV(*seen.layout.groups), seen.layout.rope, context

    def constants(self) -> AV[KV | None]:
        return AV(self.a2v.context_kv(), self.v2a.context_kv())

    def layout(self, grid: Grid, device: torch.device) -> Layout:
        groups = self.align.groups(grid)

        def move(x: Any) -> Any:
            return x.to(device) if isinstance(x, Tensor) else x

        rope = rotary_pairs(self.head_dim, partial(self.angles, grid), next(self.parameters()).dtype, device)
        return Layout(Directions(*(Groups(*map(move, g)) for g in groups)), rope)

    def split(self, layout: Layout, by: Split) -> Layout:
        if layout.groups.a2v.queries is not None:
            raise ValueError(
                f"{type(self.align).__name__} groups video tokens by number; a clip that is split over processes takes "
                "groups that are equal parts of the tokens in their order"
            )
        return layout._replace(rope=split_pairs(layout.rope, by))

    def angles(self, grid: Grid, head_dim: int) -> AV[Tensor]:
        """How the tokens of each stream turn in heads of that width."""
        frames, tokens = self.align.positions(grid)
        if self.rotation == "share":
            return own_angles(AV(frames, tokens), grid, AV(head_dim, head_dim))
        turn = temporal_angles if self.rotation == "temporal" else angles
        return AV(turn(frames, head_dim).repeat_interleave(grid.h * grid.w, 0), turn(tokens, head_dim))

    def check(self, grid: Grid) -> dict[str, float]:
        return self.align.check(grid)
