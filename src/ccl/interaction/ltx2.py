"""LTX-2's cross-attention between the streams (arXiv 2601.03233), after that to the text, in every block.

X += g o(A(R norm(q mod(X)), R norm(k mod(Y)))), with v mod(Y) as values, mod(X) = rms(X) (1 + scale) + shift. Scale and
shift are of each stream's own times, the gate g of the other's; R turns by moments in seconds, each head by frequencies
of its own. b batch, l query tokens, m source tokens, d width of a stream, w inner width, h heads, p head width,
f frames that have a time, or a moment, of their own.
"""

from __future__ import annotations

from math import pi
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.interaction.times import Times
from ccl.nn.attention import Backend, attention, attention_weights
from ccl.nn.layers import EPS, Linear, RMSNorm, untaken, wide
from ccl.nn.rope import Rotary, rotary, rotate
from ccl.nn.split import Split, whole
from ccl.types import AV


class Modulation(NamedTuple):
    """What the times, or a block, have to say of a stream.

    Args:
        rows: scale and shift where it is the video that reads, then where it is the audio, (b, f, 4, d).
        gate: of its update, (b, 1, d); None where the other stream is not there.
    """

    rows: Float[Tensor, "b f 4 d"]
    gate: Float[Tensor, "b 1 d"] | None


class CrossTimes(nn.Module):
    """Times to what modulates all blocks: four embeddings, each with layers of its own."""

    def __init__(self, streams: AV[int]) -> None:
        super().__init__()
        self.video, self.audio = Times(streams.video, 4), Times(streams.audio, 4)
        self.a2v_gate, self.v2a_gate = Times(streams.video, 1), Times(streams.audio, 1)

    def forward(self, time: AV[Any]) -> AV[Any]:
        """A `Modulation` for each stream, of times (b, f)."""
        # A frame that is given has a lower time than the rest: the gate asks how noisy the stream is, so for the rest.
        level = time.map(lambda t: t.amax(1, keepdim=True))
        rows = AV.zip(lambda t, times: times.embedded(t), time, AV(self.video, self.audio))
        gates = AV.zip(lambda t, times: times.embedded(t)[:, :, 0], level.swapped, AV(self.a2v_gate, self.v2a_gate))
        return AV.zip(Modulation, rows, gates)


class Table(nn.Module):
    """What a block adds to a stream's modulation: its four rows, and its gate, which starts at 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(5, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # As Wan's tables; the published code does not say. A gate near 0 would hold back what starts at zero behind it.
        nn.init.normal_(self.rows, std=self.rows.shape[-1] ** -0.5)
        with torch.no_grad():
            self.rows[4] += 1

    def forward(self, shared: Modulation) -> Modulation:
        rows = wide(self.rows)
        return Modulation(rows[:4] + shared.rows, None if shared.gate is None else rows[4] + shared.gate)


class Reader(nn.Module):
    """One direction: what one stream reads of the other, both of them modulated.

    Args:
        rows: of the modulation, its scale and shift in this direction.
        width: of the query stream.
        source: width of the other stream.
        inner: width of queries, keys and values.
        heads: into which it is divided.
        backend: which attention kernel.
    """

    def __init__(self, rows: slice, width: int, source: int, inner: int, heads: int, backend: Backend) -> None:
        super().__init__()
        self.rows, self.heads, self.backend = rows, heads, backend
        self.q = Linear(width, inner)
        self.k = Linear(source, inner)
        self.v = Linear(source, inner)
        self.o = Linear(inner, width, init="zero")
        self.norm_q = RMSNorm(inner)
        self.norm_k = RMSNorm(inner)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        y: Float[Tensor, "b m d2"],
        m: tuple[Modulation, Modulation],
        rope: tuple[Float[Tensor, "f n 2"], Float[Tensor, "f2 n 2"]],
        split: Split | None = None,
    ) -> Float[Tensor, "b l d"]:
        """What is added to x.

        Args:
            x: the stream that asks.
            y: the other one.
            m: modulation of both.
            rope: tables of both.
            split: which of y's tokens are here, where not all.
        """
        x, y = self.modulated(x, y, m)
        v = rearrange(self.v(y), "b m (h p) -> b m h p", h=self.heads)
        q, k = (z.to(v.dtype) for z in self.asked(x, y, rope))
        out = attention(q, *whole(split, k, v), backend=self.backend)
        update = self.o(rearrange(out, "b l h p -> b l (h p)"))
        gate = m[0].gate
        assert gate is not None  # where there is another stream to read, its times have made one
        return (wide(update) * gate).to(update.dtype)

    def weights(self, x: Tensor, y: Tensor, m: tuple[Modulation, Modulation], rope: tuple[Tensor, Tensor]) -> Attention:
        """Whom x attends to in `forward`, of which the arguments are."""
        return Attention(attention_weights(*self.asked(*self.modulated(x, y, m), rope)), {})

    def modulated(self, x: Tensor, y: Tensor, m: tuple[Modulation, Modulation]) -> tuple[Tensor, Tensor]:
        """Both streams, as they are read."""
        return modulated(x, m[0].rows[:, :, self.rows]), modulated(y, m[1].rows[:, :, self.rows])

    def asked(
        self, x: Tensor, y: Tensor, rope: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b m h p"]]:
        """Queries and keys of streams that are modulated."""
        q = turned(self.norm_q(self.q(x)), self.heads, rope[0])
        return q, turned(self.norm_k(self.k(y)), self.heads, rope[1])


def turned(x: Float[Tensor, "b l w"], heads: int, rope: Float[Tensor, "f n 2"]) -> Float[Tensor, "b l h p"]:
    """Number i of a head turned with number i + p / 2, as LTX-2's weights have it, all tokens of a frame alike. The two
    come to lie side by side, and stay so: queries and keys are only multiplied with each other, in whatever order."""
    x = rearrange(x, "b (f s) (h two n) -> b f s (h n two)", f=len(rope), h=heads, two=2)
    return rearrange(rotate(x, rope), "b f s (h p) -> b (f s) h p", h=heads)


def modulated(x: Float[Tensor, "b l d"], rows: Float[Tensor, "b f 2 d"]) -> Float[Tensor, "b l d"]:
    """rms(x) (1 + scale) + shift, each frame's modulation broadcast over its tokens."""
    scale, shift = rows[:, :, None].unbind(3)
    h = rearrange(F.rms_norm(wide(x), x.shape[-1:], eps=EPS), "b (f s) d -> b f s d", f=rows.shape[1])
    return rearrange(torch.addcmul(shift, h, 1 + scale), "b f s d -> b (f s) d").to(x.dtype)


class LTX2Attention(Interaction):
    """Both directions, each as wide within as the audio stream is.

    Args:
        site: where it stands, given by the network.
        head_dim: of a head in here; null is the audio stream's. LTX-2 has 32 heads of 64, of a width of 2048.
        audio_stride: frames of a spectrogram in an audio token, where the sound's codec is causal and its first token
            holds one (LTX-2's: 4); 1 where all tokens are of one length.
        max_seconds: moments are counted in; from 0 to so many they run from -1 to 1.
        theta: by how much the fastest frequency is above the slowest, which turns a quarter in half of `max_seconds`.

    Raises:
        ValueError: `head_dim` is odd or does not divide the audio stream's width; an argument is out of range.
    """

    def __init__(
        self,
        site: Site,
        *,
        head_dim: int | None = None,
        audio_stride: int = 1,
        max_seconds: float = 20.0,
        theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        head_dim = site.head_dim.audio if head_dim is None else head_dim
        arguments.number("LTX2Attention's head_dim", head_dim, 2, arguments.WIDEST, whole=True)
        if head_dim % 2:
            raise ValueError(f"LTX2Attention's head_dim is {head_dim}; its numbers turn in pairs, so it must be even")
        if site.audio % head_dim:
            raise ValueError(
                f"the audio stream's width {site.audio} is not a multiple of LTX2Attention's head_dim {head_dim}"
            )
        arguments.number("LTX2Attention's audio_stride", audio_stride, 1, 1000, whole=True)
        arguments.number("LTX2Attention's max_seconds", max_seconds, 1e-3)
        arguments.number("LTX2Attention's theta", theta, 1)
        self.audio_stride, self.max_seconds, self.theta = audio_stride, max_seconds, theta
        self.streams: AV[int] = AV(site.video, site.audio)
        heads, self.inner = site.audio // head_dim, site.audio
        self.video, self.audio = Table(site.video), Table(site.audio)
        self.a2v = Reader(slice(0, 2), site.video, site.audio, self.inner, heads, site.backend)
        self.v2a = Reader(slice(2, 4), site.audio, site.video, self.inner, heads, site.backend)

    def trunk(self) -> nn.Module:
        return CrossTimes(self.streams)

    def forward(self, where: Where, seen: Seen) -> Update:
        def one(x: Tensor, y: Tensor | None, reader: Reader, *of: Any) -> Tensor | None:
            if y is not None:
                return reader(x, y, *of)
            times = (part for each in seen.shared if each is not None for part in each if part is not None)
            return untaken(reader, x, *self.video.parameters(), *self.audio.parameters(), *times)

        return Update(AV.zip(one, seen.x, seen.other, *self.given(seen), AV(None, seen.split)))

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        return AV.zip(lambda y, x, reader, *of: reader.weights(x, y, *of), seen.other, seen.x, *self.given(seen))

    def given(self, seen: Seen) -> tuple[AV[Any], ...]:
        """Each direction's reader, and the modulation and tables that it is given."""
        m = AV.zip(lambda _, table, shared: table(shared), seen.x, AV(self.video, self.audio), seen.shared)
        return AV(self.a2v, self.v2a), m.pairs, seen.layout.pairs

    def layout(self, grid: Grid, device: torch.device) -> AV[Rotary]:
        """Rotary tables of each latent frame and audio token, for all heads in a row."""
        at: AV[Any] = AV(
            middles(grid.t_v, grid.stride_time, grid.fps),
            middles(grid.t_a, self.audio_stride, grid.latent_rate * self.audio_stride),
        )
        dtype = next(self.parameters()).dtype
        # The published tables are reckoned in float32, and the fastest frequencies with it to about 1e-3.
        spread = torch.linspace(0, 1, self.inner // 2, dtype=torch.float64)
        frequencies = pi / 2 * self.theta**spread
        return at.map(lambda t: rotary((2 * t / self.max_seconds - 1)[:, None] * frequencies, dtype).to(device))

    def split(self, layout: AV[Rotary], by: Split) -> AV[Rotary]:
        return layout  # of frames, which have as many tokens each in every part


def middles(count: int, stride: int, rate: float) -> Float[Tensor, " n"]:
    """Middles of the latents of a causal codec, in seconds: the first holds one frame, each later one `stride`.

    Args:
        count: of latents.
        stride: frames of a later one.
        rate: frames a second.
    """
    end = stride * torch.arange(count, dtype=torch.float64) + 1
    return ((end - stride).clamp(min=0) + end) / (2 * rate)
