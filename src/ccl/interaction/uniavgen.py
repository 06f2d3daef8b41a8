"""UniAVGen's asymmetric interaction, guided by faces (arXiv 2511.03334), before self-attention in every block.

a2v: X_i += M_i o(X_i + A(q X_i, k C_i, v C_i)) of each video token of frame i, C_i being the sound of the frames i - w
to i + w. v2a: Y_j += o(Y_j + A(q Y_j, k C_j, v C_j)) of audio token j, C_j = (1 - alpha) M X_i + alpha M X_(i+1) being
the pictures at its own moment, between frames i and i + 1. M = sigmoid(W LN(X) + b) is one number a video token, which
learns where faces are. b clips, t frames of s tokens, l query tokens, m source tokens, h heads of d.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ccl import arguments
from ccl.grid import Grid
from ccl.interaction.align import Groups
from ccl.interaction.base import Attention, Interaction, Seen, Site, Update, Where
from ccl.interaction.cross import grouped
from ccl.interaction.framewise import sound_around
from ccl.nn.attention import Backend, attention, attention_weights, heads
from ccl.nn.grouped import grouped_attention
from ccl.nn.layers import LayerNorm, Linear, RMSNorm, keep_in_use, untaken, wide
from ccl.nn.split import Split, whole
from ccl.types import AV, FACE_MASK

Pictures = Literal["between", "frame", "all"]
Mask = Literal["none", "unsupervised", "fixed", "decayed"]


class Between(NamedTuple):
    """Which pictures an audio token reads: those of two frames, token by token, as if it were one.

    Args:
        frames: of the clip, t.
        first: the frame at or before each audio token.
        second: the next one.
        alpha: how far it lies between them, from 0 to 1.
    """

    frames: int
    first: Int[Tensor, " l"]
    second: Int[Tensor, " l"]
    alpha: Float[Tensor, " l"]

    def read(self, x: Float[Tensor, "b m w"]) -> Float[Tensor, "b l s w"]:
        """The tokens of each audio token's picture."""
        x = rearrange(x, "b (t s) w -> b t s w", t=self.frames)
        return torch.lerp(x[:, self.first], x[:, self.second], self.alpha[:, None, None].to(x.dtype))


class Aligner(nn.Module):
    """One direction: o(x + attention to what of the other stream belongs to each token), which starts at zero.

    Args:
        width: of the query stream; all heads live here (decision 3).
        source: width of the other stream.
        head_dim: of a head.
        backend: which attention kernel.
    """

    def __init__(self, width: int, source: int, head_dim: int, backend: Backend) -> None:
        super().__init__()
        self.head_dim, self.backend = head_dim, backend
        self.q = Linear(width, width)
        self.k = Linear(source, width)
        self.v = Linear(source, width)
        self.o = Linear(width, width, init="zero")
        self.norm_q = RMSNorm(width)
        self.norm_k = RMSNorm(width)

    def forward(
        self,
        x: Float[Tensor, "b l w"],
        source: Float[Tensor, "b m w2"] | None,
        place: Groups | Between,
        split: Split | None = None,
    ) -> Float[Tensor, "b l w"] | Float[Tensor, ""] | None:
        """What is added to x; on a closed route (no source) nothing.

        Args:
            x: the stream that asks.
            source: the other stream.
            place: for whom which of its tokens are there.
            split: which of the source's tokens are here, where not all.
        """
        if source is None:
            return untaken(self, x)
        q, (k, v) = self.queries(x), whole(split, self.k(source), self.v(source))
        if isinstance(place, Between):
            q, k, v = q[:, :, None].flatten(0, 1), *(place.read(z).flatten(0, 1) for z in (k, v))
            k, v = self.keys(k), heads(v, self.head_dim)
            out = attention(q.to(v.dtype), k.to(v.dtype), v, backend=self.backend)
            out = rearrange(out, "(b l) 1 h d -> b l (h d)", b=len(x))
        else:
            k, v = self.keys(k), heads(v, self.head_dim)
            q, k, v = (z.to(v.dtype).transpose(1, 2) for z in (q, k, v))
            q, k, v = grouped(q, None, place.num), *(grouped(z, place.keys, place.num) for z in (k, v))
            out = grouped_attention(q, k, v, mask=place.mask, whole=place.whole, backend=self.backend)
            out = rearrange(out, "b h g q d -> b (g q) (h d)")
        return self.o(x + out)

    def weights(self, x: Float[Tensor, "b l w"], source: Float[Tensor, "b m w2"], place: Groups | Between) -> Attention:
        """Whom x attends to in `forward`, of which the arguments are."""
        q, k = self.queries(x), self.k(source)
        if isinstance(place, Groups):
            bias = place.seen(x.shape[1], source.shape[1]).log()
            return Attention(attention_weights(q, self.keys(k), bias), {})
        one = attention_weights(q[:, :, None].flatten(0, 1), self.keys(place.read(k).flatten(0, 1)))
        one = rearrange(one, "(b l) h 1 s -> b h l s", b=len(x))
        alpha = place.alpha.to(one.dtype)[:, None]
        share = one.new_zeros(x.shape[1], place.frames)  # of each frame in each audio token's picture
        share = share.scatter_add(1, place.first[:, None], 1 - alpha).scatter_add(1, place.second[:, None], alpha)
        return Attention(torch.einsum("bhls,lt->bhlts", one, share).flatten(3), {})

    def queries(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l h d"]:
        return heads(self.norm_q(self.q(x)), self.head_dim)

    def keys(self, k: Float[Tensor, "b m w"]) -> Float[Tensor, "b m h d"]:
        return heads(self.norm_k(k), self.head_dim)


class FaceHead(nn.Module):
    """What the mask is the sigmoid of: every token is half there at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.linear = Linear(width, 1, init="zero")

    def forward(self, x: Float[Tensor, "b l w"]) -> Float[Tensor, "b l 1"]:
        return wide(self.linear(self.norm(x)))


class Layout(NamedTuple):
    """What a grid fixes for every block: what each direction reads, and how many video tokens lie how.

    Args:
        a2v: the sound that each frame hears.
        v2a: the pictures that each audio token sees.
        tokens: of a frame, (h, w).
    """

    a2v: Groups
    v2a: Groups | Between
    tokens: tuple[int, int]


class UniAVGen(Interaction):
    """Both directions, and the mask between them.

    Args:
        site: where it stands, given by the network.
        window: frames on either side whose sound a frame hears, fewer at the ends of the clip; 0 is its own alone, null
            the whole clip's.
        pictures: what an audio token sees: the two frames "between" which it lies, the "frame" in which it lies, or
            "all".
        mask: "none" is 1; "unsupervised" learns from the streams' losses alone; "fixed" and "decayed" also from where
            faces are, with a weight that stays or that falls to 0 in a line until the training ends.
        mask_weight: that weight, at the start.

    Raises:
        ValueError: an argument is none of these.
    """

    at: ClassVar[tuple[Where, ...]] = ("before",)

    def __init__(
        self,
        site: Site,
        *,
        window: int | None = 12,
        pictures: Pictures = "between",
        mask: Mask = "decayed",
        mask_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if window is not None:
            arguments.number("UniAVGen's window", window, 0, whole=True)
        for name, given, kinds in (("pictures", pictures, Pictures), ("mask", mask, Mask)):
            if given not in get_args(kinds):
                raise ValueError(f"UniAVGen's {name} is {given!r}; it must be {', '.join(get_args(kinds))}")
        arguments.number("UniAVGen's mask_weight", mask_weight, 0)
        self.window, self.pictures, self.kind, self.mask_weight = window, pictures, mask, mask_weight
        self.layers = site.layers
        self.needs = (FACE_MASK,) if mask in ("fixed", "decayed") else ()
        self.a2v = Aligner(site.video, site.audio, site.head_dim.video, site.backend)
        self.v2a = Aligner(site.audio, site.video, site.head_dim.audio, site.backend)
        self.face = None if mask == "none" else FaceHead(site.video)

    def forward(self, where: Where, seen: Seen) -> Update:
        x, source, route, layout = seen.x, seen.source, seen.route, seen.layout
        video = audio = None
        own, read = self.masks(seen)
        losses = self.losses(own, seen)
        if x.video is not None:
            heard = source.audio if route.a2v else None
            video = self.a2v(x.video, heard, layout.a2v)
            if heard is not None:
                video = masked(video, own)
            elif self.face is not None and video is not None and not (route.v2a or losses):  # in training, for nothing
                video = keep_in_use(video, self.face.parameters())
        if x.audio is not None:
            shown = masked(source.video, read) if route.v2a else None
            audio = self.v2a(x.audio, shown, layout.v2a, seen.split)
        return Update(AV(video, audio), losses)

    def masks(self, seen: Seen) -> tuple[Tensor | None, Tensor | None]:
        """What the masks of the video stream, and of the video that the audio stream reads, are the sigmoids of."""
        video, source = seen.x.video, seen.source.video
        if self.face is None:
            return None, None
        own = None if video is None else self.face(video)
        return own, own if source is video or not seen.route.v2a else self.face(source)

    def losses(self, own: Tensor | None, seen: Seen) -> dict[str, Tensor] | None:
        """How far the mask is from where faces are: the mean over tokens and blocks of the binary cross-entropy."""
        if own is None or not self.needs or FACE_MASK not in (seen.extras or {}):
            return None
        h, w = seen.layout.tokens
        (own,) = whole(seen.split, own)
        assert seen.extras is not None
        faces = seen.extras[FACE_MASK].to(own)
        faces = rearrange(faces, "b t (h p) (w q) -> b (t h w) (p q)", h=h, w=w).mean(2, keepdim=True)
        loss = F.binary_cross_entropy_with_logits(own, faces, reduction="none")
        return {FACE_MASK: loss.flatten(1).mean(1) / self.layers}

    def weights(self, progress: float) -> dict[str, float]:
        if not self.needs:
            return {}
        return {FACE_MASK: self.mask_weight * (1 - progress if self.kind == "decayed" else 1)}

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        x, source, route, layout = seen.x, seen.source, seen.route, seen.layout
        video = audio = None
        if x.video is not None and route.a2v:
            video = self.a2v.weights(x.video, source.audio, layout.a2v)
        if x.audio is not None and route.v2a:
            audio = self.v2a.weights(x.audio, masked(source.video, self.masks(seen)[1]), layout.v2a)
        return AV(video, audio)

    def layout(self, grid: Grid, device: torch.device) -> Layout:
        def move(x: Any) -> Any:
            return x.to(device) if isinstance(x, Tensor) else x

        a2v, v2a = Groups(1) if self.window is None else sound_around(grid, self.window), Groups(1)
        if self.pictures != "all":
            v2a = between(grid, nearest=self.pictures == "frame")  # type: ignore[assignment]
        return Layout(Groups(*map(move, a2v)), type(v2a)(*map(move, v2a)), (grid.h, grid.w))

    def split(self, layout: Layout, by: Split) -> Layout:
        return layout  # nothing in it counts a frame's tokens but the loss, for which they are put together

    def example(self, grid: Grid, clips: int) -> dict[str, Any]:
        shape = (clips, grid.t_v, grid.latent_height, grid.latent_width)
        return {name: torch.rand(shape, generator=torch.Generator().manual_seed(0)) for name in self.needs}


def masked(x: Tensor, logits: Tensor | None) -> Tensor:
    return x if logits is None else x * logits.sigmoid().to(x.dtype)


def between(grid: Grid, *, nearest: bool = False) -> Between:
    """Where audio tokens lie among the latent frames: token j at j t_v / t_a, i its whole part and alpha the rest,
    which are floor(j / k) and (j mod k) / k where k = t_a / t_v is whole. Behind the last frame there is no other.

    Args:
        grid: of the clip.
        nearest: alpha is 0, so that only the frame in which a token lies is seen.
    """
    at = torch.arange(grid.t_a) * grid.t_v
    first, alpha = at // grid.t_a, (at % grid.t_a).double() / grid.t_a
    return Between(grid.t_v, first, (first + 1).clamp(max=grid.t_v - 1), alpha * (not nearest))
