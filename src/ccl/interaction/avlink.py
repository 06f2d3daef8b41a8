"""AV-Link (arXiv 2412.15191): at some layers of two frozen backbones, a transformer block over the tokens of both.

Both streams are projected to one width and attend to all tokens, whose positions are moments of one time axis; what
comes of it is projected back and added to both. b batch, l tokens, d width of a stream, w the common width, h heads,
p head width, f frames that have a time of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import Rescale, audio_positions, video_positions
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.interaction.times import Times
from ccl.nn.attention import Backend, attention, attention_weights, heads
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, gated_add, keep_in_use, modulate, wide
from ccl.nn.rope import Rotary, angles, rotary, rotate
from ccl.nn.split import Split, whole
from ccl.types import AV, Route


class Ends(nn.Module):
    """A stream's way into the common width and back, and what modulates it there beside the time."""

    def __init__(self, stream: int, width: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 6, width))
        self.reset_parameters()  # before its layers', as where a network is initialised anew
        self.norm = LayerNorm(stream)
        self.into = Linear(stream, width)
        self.back = Linear(width, stream, init="zero")

    def reset_parameters(self) -> None:
        nn.init.normal_(self.modulation, std=self.modulation.shape[-1] ** -0.5)


class Tokens(NamedTuple):
    """A stream in the common width: as it came in (b, l, w), normalised and modulated, and its keys and values, which
    are those of all tokens where the clip is split over processes."""

    z: Float[Tensor, "b l w"]
    h: Float[Tensor, "b l w"]
    k: Float[Tensor, "b m h p"]
    v: Float[Tensor, "b m h p"]


class FusionBlock(nn.Module):
    """A Wan block in the common width, without text: modulated attention over both streams, then feed-forward."""

    def __init__(self, streams: AV[int], width: int, ffn: int, head_dim: int, backend: Backend) -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.video = Ends(streams.video, width)
        self.audio = Ends(streams.audio, width)
        self.q = Linear(width, width)
        self.k = Linear(width, width)
        self.v = Linear(width, width)
        self.o = Linear(width, width)
        self.norm_q = RMSNorm(width)
        self.norm_k = RMSNorm(width)
        self.ffn = nn.Sequential(Linear(width, ffn), nn.GELU("tanh"), Linear(ffn, width))

    def forward(
        self,
        x: AV[Any],
        source: AV[Any],
        e: AV[Any],
        rope: AV[Rotary],
        route: Route,
        updated: AV[bool],
        split: Split | None = None,
    ) -> AV[Any]:
        """What is added to each stream, (b, l, d); None where a stream is not updated.

        Args:
            x: the streams.
            source: the same, as the other stream reads them.
            e: what `Times` made of their times.
            rope: of each stream's moments.
            route: whether a stream attends to the other one's tokens beside its own.
            updated: which streams are.
            split: which of the video's tokens are here, where not all; `rope` is theirs.
        """
        own, other, ends, m = self.both(x, source, e, rope, route, updated, split)
        return AV.zip(self.update, own, other, ends, m, rope)

    def weights(
        self, x: AV[Any], source: AV[Any], e: AV[Any], rope: AV[Rotary], route: Route, updated: AV[bool]
    ) -> AV[Any]:
        """Whom each stream attends to in `forward`, of which the arguments are."""
        own, other, _, _ = self.both(x, source, e, rope, route, updated)

        def one(own: Tokens, other: Tokens | None, rope: Rotary) -> Attention:
            q = rotate(heads(self.norm_q(self.q(own.h)), self.head_dim), rope)
            k = own.k if other is None else torch.cat([own.k, other.k], 1)
            mine, others = attention_weights(q, k).split([own.k.shape[1], k.shape[1] - own.k.shape[1]], -1)
            return Attention(others, {"own": mine})

        return AV.zip(one, own, other, rope)

    def both(
        self,
        x: AV[Any],
        source: AV[Any],
        e: AV[Any],
        rope: AV[Rotary],
        route: Route,
        updated: AV[bool],
        split: Split | None = None,
    ) -> tuple[AV[Any], AV[Any], AV[Any], AV[Any]]:
        """Of each stream that is updated: its tokens, those that it sees of the other, its ends, its modulation."""
        ends = AV(self.video, self.audio)
        m = AV.zip(lambda _, ends, e: (wide(ends.modulation)[:, None] + wide(e)).unbind(2), x, ends, e)
        given = ends, m, rope, AV(split, None)
        own = AV.zip(lambda x, ours, *of: self.tokens(x, *of) if ours else None, x, updated, *given)
        # What each stream shows the other one.
        shown = AV.zip(lambda s, opened: s if opened else None, source, route.pair.swapped)
        # What is read without a gradient has keys and values of its own: the projections keep their gradients.
        other = AV.zip(
            lambda s, x, own, *of: self.tokens(s, *of) if own is None or s is not x else own,
            *(shown, x, own, *given),
        )
        return own, other.swapped, ends, m

    def tokens(
        self, x: Float[Tensor, "b l d"], ends: Ends, m: tuple[Tensor, ...], rope: Rotary, split: Split | None
    ) -> Tokens:
        """A stream in the common width."""
        z = ends.into(ends.norm(x))
        h = modulate(z, m[0], m[1])
        v = heads(self.v(h), self.head_dim)
        k = rotate(heads(self.norm_k(self.k(h)), self.head_dim), rope).to(v.dtype)
        return Tokens(z, h, *whole(split, k, v))

    def update(
        self, own: Tokens, other: Tokens | None, ends: Ends, m: tuple[Tensor, ...], rope: Rotary
    ) -> Float[Tensor, "b l d"]:
        """One stream's rows of the attention over both, the rest of the block, and back into the stream's width.

        A softmax over the concatenated tokens is one over [own; other] for each stream's queries: apart, a closed row
        is exact, and a row is the same to the last bit whatever the other one sees.
        """
        k, v = own.k, own.v
        if other is not None:
            k, v = torch.cat([k, other.k], 1), torch.cat([v, other.v], 1)
        q = rotate(heads(self.norm_q(self.q(own.h)), self.head_dim), rope).to(v.dtype)
        seen = self.o(rearrange(attention(q, k, v, backend=self.backend), "b l h p -> b l (h p)"))
        z = gated_add(own.z, seen, m[2])
        return ends.back(gated_add(z, self.ffn(modulate(z, m[3], m[4])), m[5]))


class AVLink(Interaction):
    """Fusion blocks between blocks of the two backbones, which `model.freeze: backbones` leaves as they are.

    A stream that is given is updated, too, and adapts to what is generated, where the route from the generated one is
    open; a task that closes it switches this off, and the given stream stays as its backbone has it.

    Args:
        site: where it stands, given by the network.
        layers: how many fusion blocks, spread evenly, one before each block where the network has fewer; or a list of
            the blocks, from 0, before which they stand.
        width: of both streams within a fusion block, whose heads are the narrower stream's; null is that stream's.
        expansion: inner width of its feed-forward network, times `width`.
        rescale: of the audio positions, so that tokens of one moment turn alike; see `audio_positions`.
        closed: what a closed route leaves: "nothing", the backbone alone, or "own", attention to the own tokens.

    Raises:
        ValueError: the network has no such layers; the width does not divide into heads.
    """

    at: ClassVar[tuple[Where, ...]] = ("before",)

    def __init__(
        self,
        site: Site,
        *,
        layers: int | list[int] = 8,
        width: int | None = None,
        expansion: int = 4,
        rescale: Rescale = "index",
        closed: Literal["nothing", "own"] = "nothing",
    ) -> None:
        super().__init__()
        self.active = site.layer in places(layers, site.layers)
        narrower, self.head_dim = min(zip((site.video, site.audio), site.head_dim, strict=True))
        self.rescale, self.closed = rescale, closed
        self.width = narrower if width is None else width
        arguments.number("AVLink's width", self.width, 1, whole=True)
        arguments.number("AVLink's expansion", expansion, 1, whole=True)
        if self.width % self.head_dim:
            raise ValueError(f"AVLink's width {self.width} is not a multiple of head_dim {self.head_dim}")
        if self.active:
            streams = AV(site.video, site.audio)
            self.fusion = FusionBlock(streams, self.width, expansion * self.width, self.head_dim, site.backend)

    def trunk(self) -> nn.Module:
        return Times(self.width)

    def forward(self, where: Where, seen: Seen) -> Update:
        route = seen.route
        updated = AV.zip(lambda _, opened: opened or self.closed == "own", seen.x, route.pair)
        add: AV[Any] = AV(None, None)
        if any(updated):
            add = self.fusion(seen.x, seen.source, seen.shared, seen.layout, route, updated, seen.split)
        if self.training and torch.is_grad_enabled():
            # The gradients of 0 times what this step does not compute; on either stream, which is there anyway.
            name = "audio" if add.audio is not None or seen.x.video is None else "video"
            update = getattr(add, name)
            update = getattr(seen.x, name).new_zeros(()) if update is None else update
            add = add._replace(**{name: keep_in_use(update, self._unused(seen, updated))})
        return Update(add)

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        updated = AV.zip(lambda _, opened: opened or self.closed == "own", seen.x, seen.route.pair)
        if not any(updated):
            return AV(None, None)
        return self.fusion.weights(seen.x, seen.source, seen.shared, seen.layout, seen.route, updated)

    def _unused(self, seen: Seen, updated: AV[bool]) -> Iterator[Tensor]:
        if not any(updated):
            yield from self.parameters()
            yield from (e for e in seen.shared if e is not None)
            return
        for ends, x, there in zip((self.fusion.video, self.fusion.audio), seen.x, updated, strict=True):
            if not there:
                yield from (ends if x is None else ends.back).parameters()

    def layout(self, grid: Grid, device: torch.device) -> AV[Rotary]:
        """Rotary tables of each stream's moments, which turn the whole head; a frame's tokens share one."""
        frames = video_positions(grid).repeat_interleave(grid.h * grid.w)
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        moments: AV[Any] = AV(frames, audio_positions(grid, self.rescale))
        return moments.map(lambda at: rotary(angles(at, self.head_dim), dtype).to(device))

    def split(self, layout: AV[Rotary], by: Split) -> AV[Rotary]:
        return layout._replace(video=by.own(layout.video, 0))


def places(layers: int | list[int], total: int) -> list[int]:
    """The layers of a network before which fusion blocks stand: those in the list, or so many in equal distances."""
    if isinstance(layers, int):
        arguments.number("AVLink's layers", layers, 1, whole=True)
        count = min(layers, total)
        return [(2 * i + 1) * total // (2 * count) for i in range(count)]
    if not layers or not all(0 <= layer < total for layer in layers):
        raise ValueError(f"AVLink's layers are {layers}; the network has 0 to {total - 1}")
    return layers
