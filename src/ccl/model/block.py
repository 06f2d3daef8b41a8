"""One layer: a Wan2.1 block for each stream and the interaction between them (CCL Sec. 4, Eq. 1).

b batch, l tokens, d width, m text states, h heads, p head width, f frames that have a time of their own.
Parameter names are Wan2.1's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ccl.interaction.base import Interaction, Seen, Where
from ccl.model.voice import behind, parted
from ccl.nn.attention import Backend, attention, heads
from ccl.nn.chunks import chosen, runs
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, gated_add, modulate, wide
from ccl.nn.rope import Rotary, rotate
from ccl.nn.split import Split
from ccl.types import AV, Route

KV = tuple[Tensor, ...]  # keys and values; of text and of a picture in a backbone that is shown one


class BlockCache(NamedTuple):
    """What one block needs not compute again in a sampling run.

    Args:
        text: keys and values (b, m, h, p) of the text, for each stream; or, computed by the block, embedded text.
        constants: of the interaction, or None.
    """

    text: AV[Any]
    constants: Any


class Common(NamedTuple):
    """What all blocks of a forward are given alike.

    Args:
        rope: of self-attention, for each stream.
        layout: of the interaction.
        before: tokens of each stream that stand before the clip's.
        split: which of the video's tokens are here, where not all.
    """

    rope: AV[Rotary]
    layout: Any
    before: AV[int] = AV(0, 0)
    split: Split | None = None


class Here(NamedTuple):
    """What a chunk of the batch sees in one block: a View, where the block itself is not skipped.

    Args:
        route: who sees whom.
        detach: the streams that the other one reads without a gradient.
        alone: whether each token attends to itself alone.
    """

    route: Route
    detach: AV[bool] = AV(False, False)
    alone: bool = False


class Rows(NamedTuple):
    """What a block reads of each clip of the batch, beside its tokens.

    Args:
        time: of each stream, (b, f), for the interaction.
        shared: what the network's trunk made of them, or None.
        extras: what the batch brings beside latents and text, by name.
        heard: for each stream, which tokens self-attention may read, (b, l), where not all.
    """

    time: AV[Any]
    shared: Any = None
    extras: dict[str, Any] | None = None
    heard: AV[Any] = AV(None, None)


class SelfAttention(nn.Module):
    """q, k RMS-normalised over the full width, then turned by RoPE."""

    def __init__(self, width: int, head_dim: int, backend: Backend = "auto") -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.q = Linear(width, width)
        self.k = Linear(width, width)
        self.v = Linear(width, width)
        self.o = Linear(width, width)
        self.norm_q = RMSNorm(width)
        self.norm_k = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        rope: Rotary,
        alone: Sequence[bool] = (False,),
        heard: Bool[Tensor, "b l"] | None = None,
        split: Split | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Attention of each token to those of its stream.

        Args:
            x: tokens.
            rope: their table.
            alone: of each equal, consecutive chunk whether its tokens attend to themselves alone.
            heard: which tokens may be read, where not all.
            split: which of the stream's tokens are here, where not all.
        """
        if all(alone):
            return self.o(self.v(x))
        if any(alone):
            parts = [chosen((x, heard), (i,), len(alone)) for i in range(len(alone))]
            each = zip(parts, alone, strict=True)
            return torch.cat([self(part, rope, (one,), read, split) for (part, read), one in each])
        v = heads(self.v(x), self.head_dim)
        q = rotate(heads(self.norm_q(self.q(x)), self.head_dim), rope).to(v.dtype)
        k = rotate(heads(self.norm_k(self.k(x)), self.head_dim), rope).to(v.dtype)
        if split is not None:
            q, k, v = map(split.by_heads, (q, k, v))
        mask = None if heard is None else heard[:, None, None]
        out = attention(q, k, v, mask=mask, backend=self.backend)
        return self.o(rearrange(out if split is None else split.by_tokens(out), "b l h p -> b l (h p)"))


class TextAttention(SelfAttention):
    """Cross-attention to the text, whose zero padding, once embedded, is attended to like the rest (as in Wan2.1)."""

    def kv(self, text: Float[Tensor, "b m d"]) -> KV:
        """Keys and values (b, m, h, p) of embedded text."""
        v = heads(self.v(text), self.head_dim)
        return heads(self.norm_k(self.k(text)), self.head_dim).to(v.dtype), v

    def queries(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l h p"]:
        """Normalised, without positions."""
        return heads(self.norm_q(self.q(x)), self.head_dim)

    def read(self, q: Float[Tensor, "b l h p"], kv: KV) -> Float[Tensor, "b l h p"]:
        """What the queries read of the text."""
        return attention(q, *kv, backend=self.backend)

    def forward(  # type: ignore[override]
        self, q: Float[Tensor, "b l h p"], kv: KV, also: Float[Tensor, "*b"] | None = None
    ) -> Float[Tensor, "b l d"]:
        """Attention to the text.

        Args:
            q: what `queries` made of the stream.
            kv: keys and values.
            also: what an interaction adds before the output projection, (b, l, h, p) or a number.
        """
        out = self.read(q.to(kv[1].dtype), kv)
        # In the type of the values: queries, which an interaction reads, are wider in half precision.
        out = out if also is None else out + also.to(out.dtype)
        return self.o(rearrange(out, "b l h p -> b l (h p)"))


class WanBlock(nn.Module):
    """A Wan2.1 block, in the two parts between which the streams meet.

    Args:
        width: of the stream, d.
        ffn: inner width of the feed-forward network.
        head_dim: of a head.
        text_attention: makes the attention to text from width, head_dim and backend.
        backend: which attention kernel.
    """

    def __init__(
        self,
        width: int,
        ffn: int,
        head_dim: int,
        *,
        text_attention: Callable[[int, int, Backend], TextAttention] = TextAttention,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 6, width))
        self.reset_parameters()
        self.self_attn = SelfAttention(width, head_dim, backend)
        self.norm3 = LayerNorm(width)
        self.cross_attn = text_attention(width, head_dim, backend)
        self.ffn = nn.Sequential(Linear(width, ffn), nn.GELU("tanh"), Linear(ffn, width))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.modulation, std=self.modulation.shape[-1] ** -0.5)

    def attend(
        self,
        x: Float[Tensor, "b l d"],
        modulation: tuple[Tensor, ...],
        rope: Rotary,
        alone: Sequence[bool] = (False,),
        heard: Bool[Tensor, "b l"] | None = None,
        split: Split | None = None,
    ) -> Float[Tensor, "b l d"]:
        """X += SA(X)."""
        shift, scale, gate = modulation
        return gated_add(x, self.self_attn(modulate(x, shift, scale), rope, alone, heard, split), gate)

    def queries(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l h p"]:
        """Of the attention to text."""
        return self.cross_attn.queries(self.norm3(x))

    def read(
        self, x: Float[Tensor, "b l d"], text: Tensor | KV, q: Tensor | None = None, also: Tensor | None = None
    ) -> Float[Tensor, "b l d"]:
        """X += CA(X, T).

        Args:
            x: the stream.
            text: embedded, (b, m, d), or its keys and values.
            q: its `queries`, where they are made already.
            also: as TextAttention's.
        """
        kv = self.cross_attn.kv(text) if isinstance(text, Tensor) else text
        return x + self.cross_attn(self.queries(x) if q is None else q, kv, also)

    def feed_forward(
        self, x: Float[Tensor, "b l d"], modulation: tuple[Tensor, Tensor, Tensor]
    ) -> Float[Tensor, "b l d"]:
        """X += FFN(X)."""
        shift, scale, gate = modulation
        return gated_add(x, self.ffn(modulate(x, shift, scale)), gate)

    def modulations(self, e0: Float[Tensor, "b f 6 d"]) -> tuple[Tensor, ...]:
        """Shift, scale and gate of self-attention, then of the feed-forward network, (b, f, d), float32 at least."""
        return (wide(self.modulation)[:, None] + wide(e0)).unbind(2)


class DualBlock(nn.Module):
    """Both streams' blocks and their interaction: one forward each, the unit of sharding and checkpointing.

    Args:
        video: block of the video stream, or None where the network has no such stream, or none so deep.
        audio: block of the audio stream, or None.
        interaction: between the two.
    """

    def __init__(self, video: WanBlock | None, audio: WanBlock | None, interaction: Interaction) -> None:
        super().__init__()
        self.video, self.audio, self.interaction = video, audio, interaction
        self.at = interaction.at if interaction.active else ()

    @property
    def streams(self) -> AV[Any]:
        return AV(self.video, self.audio)

    def forward(
        self, x: AV[Any], e0: AV[Any], text: AV[Any], common: Common, views: Sequence[Here], rows: Rows, constants: Any
    ) -> tuple[AV[Any], dict[str, Tensor]]:
        """Eq. 1, its third line replaced by the interaction; streams that are None, or end before, stay as they are.

        Args:
            x: tokens of each stream, (b, l, d).
            e0: projected times, (b, f, 6, d).
            text: embedded text (b, m, d), or its keys and values.
            common: to all blocks.
            views: one for each equal, consecutive chunk of the batch.
            rows: what the interaction reads of each clip.
            constants: of the interaction, or None to compute them here.

        Returns:
            The tokens, and the interaction's losses (b,) by name.
        """
        given, blocks = x, self.streams
        x = AV(*(None if block is None else z for z, block in zip(x, blocks, strict=True)))
        m = AV.zip(lambda _, e, block: block.modulations(e), x, e0, blocks)
        seen = Seen(
            x, x, time=rows.time, layout=common.layout, constants=constants, shared=rows.shared, extras=rows.extras,
            split=common.split,
        )  # fmt: skip
        losses: dict[str, Tensor] = {}
        if "before" in self.at:
            x, losses = self.exchange("before", seen, views, common.before)
        alone = [view.alone for view in views]
        x = AV.zip(
            lambda x, block, m, rope, *of: block.attend(x, m[:3], rope, alone, *of),
            x, blocks, m, common.rope, rows.heard, AV(common.split, None),
        )  # fmt: skip
        q = also = AV(None, None)
        if "text" in self.at:
            q = AV.zip(lambda x, block: block.queries(x), x, blocks)
            also, more = self.exchange("text", seen._replace(x=x, q=q), views, common.before)
            losses = summed(losses, more)
        x = AV.zip(lambda x, block, *of: block.read(x, *of), x, blocks, text, q, also)
        if "after" in self.at:
            x, more = self.exchange("after", seen._replace(x=x), views, common.before)
            losses = summed(losses, more)
        x = AV.zip(lambda x, block, m: block.feed_forward(x, m[3:]), x, blocks, m)
        return AV(*(old if new is None else new for old, new in zip(given, x, strict=True))), losses

    def exchange(
        self, where: Where, seen: Seen, views: Sequence[Here], before: AV[int]
    ) -> tuple[AV[Any], dict[str, Tensor]]:
        """The streams after an exchange, or at "text" what is added to what the heads read; and the losses.

        Each run of chunks that see alike is one call of the interaction, which is given apart what stands before a
        stream.
        """
        prefix, clip = parted(seen.x, before)
        seen = seen._replace(x=clip, q=parted(seen.q, before)[1], prefix=prefix)
        together = runs([(view.route, view.detach) for view in views])
        if seen.constants is None and len(together) > 1:
            seen = seen._replace(constants=self.interaction.constants())
        after: list[AV[Any]] = []
        losses: list[dict[str, Tensor]] = []
        for (route, detach), which in together:
            x, q, time, shared, extras, prefix = chosen(
                (seen.x, seen.q, seen.time, seen.shared, seen.extras, seen.prefix), which, len(views)
            )
            source = AV.zip(lambda x, given: x.detach() if given else x, x, detach)
            update = self.interaction(
                where, Seen(x, source, route, time, seen.layout, seen.constants, shared, q, extras, prefix, seen.split)
            )
            if where != "text":
                after.append(behind(added(prefix, update.prefix), added(x, update.add)))
            elif len(together) == 1 and not any(before):
                after.append(update.add)
            else:  # a closed route may add nothing where an open one adds
                add = AV.zip(lambda q, u: torch.zeros_like(q) if u is None else u.expand_as(q), q, update.add)
                after.append(AV.zip(lambda u, n: nn.functional.pad(u, (0, 0, 0, 0, n, 0)), add, before))
            losses.append(update.losses or {})
        if len(together) == 1:
            return after[0], losses[0]
        streams = AV(*(None if parts[0] is None else torch.cat(parts) for parts in zip(*after, strict=True)))
        return streams, {name: torch.cat([each[name] for each in losses]) for name in losses[0]}

    def prepare(self, text: AV[Any]) -> BlockCache:
        """Keys and values of embedded text (b, m, d), and the interaction's constants."""
        kv = AV(
            *(None if b is None or t is None else b.cross_attn.kv(t) for b, t in zip(self.streams, text, strict=True))
        )
        return BlockCache(kv, self.interaction.constants())


def added(x: AV[Any], update: AV[Any]) -> AV[Any]:
    """The streams with their updates, None where there is none."""
    return AV.zip(lambda x, u: x if u is None else x + u, x, update)


def summed(losses: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses of several exchanges, added up by name."""
    return losses | {name: losses[name] + loss if name in losses else loss for name, loss in more.items()}
