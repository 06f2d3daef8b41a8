"""One layer: a Wan2.1 block for each stream and the interaction between them (CCL Sec. 4, Eq. 1).

b batch, l tokens, d width, m text states, h heads, p head width, f frames that have a time of their own.
Parameter names are Wan2.1's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.interaction.base import Interaction
from ccl.nn.attention import Backend, attention, heads
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, gated_add, modulate, wide
from ccl.nn.rope import Rotary, rotate
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

    def forward(self, x: Float[Tensor, "b l d"], rope: Rotary) -> Float[Tensor, "b l d"]:
        v = heads(self.v(x), self.head_dim)
        q = rotate(heads(self.norm_q(self.q(x)), self.head_dim), rope).to(v.dtype)
        k = rotate(heads(self.norm_k(self.k(x)), self.head_dim), rope).to(v.dtype)
        return self.o(rearrange(attention(q, k, v, backend=self.backend), "b l h p -> b l (h p)"))


class TextAttention(SelfAttention):
    """Cross-attention to the text, whose zero padding, once embedded, is attended to like the rest (as in Wan2.1)."""

    def kv(self, text: Float[Tensor, "b m d"]) -> KV:
        """Keys and values (b, m, h, p) of embedded text."""
        v = heads(self.v(text), self.head_dim)
        return heads(self.norm_k(self.k(text)), self.head_dim).to(v.dtype), v

    def forward(self, x: Float[Tensor, "b l d"], kv: KV) -> Float[Tensor, "b l d"]:  # type: ignore[override]
        q = heads(self.norm_q(self.q(x)), self.head_dim).to(kv[1].dtype)
        return self.o(rearrange(attention(q, *kv, backend=self.backend), "b l h p -> b l (h p)"))


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
        modulation: tuple[Tensor, Tensor, Tensor],
        rope: Rotary,
        text: Tensor | KV,
    ) -> Float[Tensor, "b l d"]:
        """X += SA(X); X += CA(X, T). `text` is the embedded text (b, m, d), or its keys and values."""
        shift, scale, gate = modulation
        x = gated_add(x, self.self_attn(modulate(x, shift, scale), rope), gate)
        kv = self.cross_attn.kv(text) if isinstance(text, Tensor) else text
        return x + self.cross_attn(self.norm3(x), kv)

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
        video: block of the video stream, or None where the network has no such stream.
        audio: block of the audio stream, or None.
        interaction: between the two.
    """

    def __init__(self, video: WanBlock | None, audio: WanBlock | None, interaction: Interaction) -> None:
        super().__init__()
        self.video, self.audio, self.interaction = video, audio, interaction

    @property
    def streams(self) -> AV[Any]:
        return AV(self.video, self.audio)

    def forward(
        self,
        x: AV[Any],
        e0: AV[Any],
        text: AV[Any],
        *,
        rope: AV[Rotary],
        plan: Any,
        routes: Sequence[Route],
        reference: AV[bool],
        constants: Any = None,
    ) -> AV[Any]:
        """Eq. 1, its third line replaced by the interaction; streams that are None stay so.

        Args:
            x: tokens of each stream, (b, l, d).
            e0: projected times, (b, f, 6, d).
            text: embedded text (b, m, d), or its keys and values.
            rope: of self-attention.
            plan: of the interaction.
            routes: one for each equal, consecutive chunk of the batch.
            reference: which stream is detached where the other reads it.
            constants: of the interaction, or None to compute them here.
        """
        m = AV.zip(lambda e, block: block.modulations(e), e0, self.streams)
        x = AV.zip(lambda x, block, m, rope, text: block.attend(x, m[:3], rope, text), x, self.streams, m, rope, text)
        x = self.interact(x, plan, routes, reference, constants)
        return AV.zip(lambda x, block, m: block.feed_forward(x, m[3:]), x, self.streams, m)

    def interact(
        self, x: AV[Any], plan: Any, routes: Sequence[Route], reference: AV[bool], constants: Any = None
    ) -> AV[Any]:
        """Add the interaction's updates, each run of equal routes in one call."""
        source = AV.zip(lambda x, given: x.detach() if given else x, x, reference)
        runs = _runs(routes)
        if constants is None and len(runs) > 1:
            constants = self.interaction.constants()
        updated: list[AV[Any]] = []
        for route, start, size in runs:
            part, seen = (_part(z, start, size, len(routes)) for z in (x, source))
            update = self.interaction(part, seen, route, plan, constants)
            updated.append(AV.zip(lambda x, u: x if u is None else x + u, part, update))
        if len(updated) == 1:
            return updated[0]
        return AV(*(None if parts[0] is None else torch.cat(parts) for parts in zip(*updated, strict=True)))

    def prepare(self, text: AV[Any]) -> BlockCache:
        """Keys and values of embedded text (b, m, d), and the interaction's constants."""
        kv = AV.zip(lambda text, block: block.cross_attn.kv(text), text, self.streams)
        return BlockCache(kv, self.interaction.constants())


def _runs(routes: Sequence[Route]) -> list[tuple[Route, int, int]]:
    """(route, first chunk, chunks) of each run of equal routes. A plain loop, which torch.compile can read."""
    runs: list[tuple[Route, int, int]] = []
    for i, route in enumerate(routes):
        if runs and runs[-1][0] == route:
            runs[-1] = (route, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((route, i, 1))
    return runs


def _part(x: AV[Any], start: int, size: int, chunks: int) -> AV[Any]:
    if size == chunks:
        return x
    return x.map(lambda z: z.narrow(0, start * (len(z) // chunks), size * (len(z) // chunks)))
