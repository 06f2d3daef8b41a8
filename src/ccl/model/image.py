"""Wan2.1-I2V's way of showing a first picture: channels beside the noisy latents, and CLIP's tokens beside the text.

The other way, a clean first latent frame with a time of its own, is the default and needs nothing of this (decision
17).
b batch, t latent frames, h x w latent pixels, n image tokens, m text states, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.interaction.align import Rescale
from ccl.interaction.base import Interaction, Site
from ccl.model.block import KV, TextAttention, WanBlock
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.prepared import Prepared
from ccl.model.stream import PatchEmbedding, StreamConfig, StreamEnds
from ccl.nn.attention import Backend, attention, heads
from ccl.nn.layers import Linear, RMSNorm
from ccl.types import AV, Route, Stream

MASK = 4  # channels that say which pictures of a latent frame are given: a causal codec of stride 4 has four


@dataclass(frozen=True)
class Shown:
    """A first picture, as the network is shown it.

    Args:
        latents: (b, 4 + C, t, h, w), as `beside` makes them.
        states: (b, n, image_dim) of the image encoder: the penultimate layer of CLIP ViT-H/14, 257 tokens of 1280.
    """

    latents: Float[Tensor, "b k t h w"]
    states: Float[Tensor, "b n i"]


@dataclass(frozen=True)
class PreparedShown(Prepared):
    """`Prepared`, with the latents that go beside the noisy ones.

    Args:
        latents: as Shown's.
    """

    latents: Float[Tensor, "b k t h w"]


def beside(latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k t h w"]:
    """The mask, 1 in the first latent frame and 0 in the others, before the condition's latents.

    Args:
        latents: normalised, of the first picture followed by mid-grey ones (0 in [-1, 1]) to the clip's length.
    """
    mask = torch.zeros_like(latents[:, :1]).repeat(1, MASK, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)


class ImageEmbedding(nn.Module):
    """The image encoder's states in the stream's width."""

    def __init__(self, image_dim: int, width: int) -> None:
        super().__init__()
        # These norms have torch's epsilon, not Wan's 1e-6.
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            Linear(image_dim, image_dim),
            nn.GELU(),
            Linear(image_dim, width),
            nn.LayerNorm(width),
        )

    def forward(self, states: Float[Tensor, "b n i"]) -> Float[Tensor, "b n d"]:
        return self.proj(states.to(next(self.parameters()).dtype))


class ImageTextAttention(TextAttention):
    """Attention to the text and, by the same queries, to the picture; the two sums pass one output projection.

    Args:
        width: of the stream.
        head_dim: of a head.
        backend: which attention kernel.
        image_tokens: how many tokens before the text are the picture's.
    """

    def __init__(self, width: int, head_dim: int, backend: Backend = "auto", *, image_tokens: int) -> None:
        super().__init__(width, head_dim, backend)
        self.image_tokens = image_tokens
        self.k_img = Linear(width, width)
        self.v_img = Linear(width, width)
        self.norm_k_img = RMSNorm(width)

    def kv(self, text: Float[Tensor, "b m d"]) -> KV:
        """Keys and values (b, m, h, p) of the text, then those of the picture."""
        image, text = text[:, : self.image_tokens], text[:, self.image_tokens :]
        v = heads(self.v_img(image), self.head_dim)
        return *super().kv(text), heads(self.norm_k_img(self.k_img(image)), self.head_dim).to(v.dtype), v

    def forward(self, x: Float[Tensor, "b l d"], kv: KV) -> Float[Tensor, "b l d"]:  # type: ignore[override]
        k, v, k_img, v_img = kv
        q = heads(self.norm_q(self.q(x)), self.head_dim).to(v.dtype)
        out = attention(q, k, v, backend=self.backend) + attention(q, k_img, v_img, backend=self.backend)
        return self.o(rearrange(out, "b l h p -> b l (h p)"))


class ImageDualStream(DualStreamTransformer):
    """A DualStreamTransformer whose video stream is Wan2.1-I2V's: it is always shown a first picture.

    Args:
        video: size of the video stream; its channels are those of the noisy latents.
        audio: size of the audio stream.
        layers: blocks, the same number in both.
        head_dim: of a head, the same in both.
        text_dim: width of the text states.
        interaction: makes the interaction of a block from where it stands; a stream alone needs none.
        freq_dim: numbers of the sinusoid of a time.
        patch: latent pixels a video token, each way.
        attention: which kernel; see `ccl.nn.attention`.
        checkpointing: recompute each block in the backward pass, to save memory.
        rescale: see DualStreamTransformer.
        image_dim: width of the image encoder's states.
        image_tokens: how many there are.
    """

    shown = True

    def __init__(
        self,
        *,
        video: StreamConfig | None = None,  # as the base's, so that a config may swap one class for the other
        audio: StreamConfig | None = None,
        layers: int,
        head_dim: int,
        text_dim: int,
        interaction: Callable[[Site], Interaction] | None = None,
        freq_dim: int = 256,
        patch: int = 2,
        attention: Backend = "auto",
        checkpointing: bool = False,
        rescale: Rescale | float = "index",
        image_dim: int = 1280,
        image_tokens: int = 257,
    ) -> None:
        if video is None:
            raise ValueError("video is null; this network is there to be shown a picture")
        # Before the base's constructor, which makes the parts below.
        self.image_dim, self.image_tokens = image_dim, image_tokens
        super().__init__(
            video=video,
            audio=audio,
            layers=layers,
            head_dim=head_dim,
            text_dim=text_dim,
            interaction=interaction,
            freq_dim=freq_dim,
            patch=patch,
            attention=attention,
            checkpointing=checkpointing,
            rescale=rescale,
        )
        self.channels_in = AV(2 * video.channels + MASK, self.channels.audio)

    def stream_ends(self, config: StreamConfig, stream: Stream, *, text_dim: int, freq_dim: int) -> StreamEnds:
        if stream == "audio":
            return super().stream_ends(config, stream, text_dim=text_dim, freq_dim=freq_dim)
        embedding = PatchEmbedding(2 * config.channels + MASK, config.width, self.patch)
        ends = StreamEnds(config, patch=self.patch, text_dim=text_dim, freq_dim=freq_dim, embedding=embedding)
        ends.img_emb = ImageEmbedding(self.image_dim, config.width)
        return ends

    def stream_block(self, config: StreamConfig, stream: Stream) -> WanBlock:
        if stream == "audio":
            return super().stream_block(config, stream)
        text_attention = partial(ImageTextAttention, image_tokens=self.image_tokens)
        return WanBlock(config.width, config.ffn, self.head_dim, text_attention=text_attention, backend=self.backend)

    def forward(
        self,
        x: AV[Any],
        t: AV[Any],
        text: Float[Tensor, "b l n"] | AV[Any] | Prepared,
        *,
        grid: Grid,
        route: Route | Sequence[Route] | None = None,
        reference: AV[bool] = AV(False, False),
        image: Shown | None = None,
    ) -> AV[Any]:
        """As DualStreamTransformer's; x is the noisy latents alone.

        Args:
            x: noisy latents.
            t: times.
            text: states of the prompts, or what `prepare` made of them and of the picture.
            grid: the clip's lengths.
            route: who sees whom.
            reference: which stream is given.
            image: the first picture, for every clip of the batch; not needed where x has no video,
                nor with `prepare`d text.

        Raises:
            ValueError: in words, where there is no picture, or the rest does not fit.
        """
        self._check_pairs(x=x, t=t)
        if isinstance(text, Tensor):
            self._check_text(text, x, len(x.audio if x.video is None else x.video))
        latents = text.latents if isinstance(text, PreparedShown) else None
        if x.video is not None and not isinstance(text, Prepared | AV):
            image = self._shown(image)
            text, latents = self.embed(text, image, audio=x.audio is not None), image.latents
        if x.video is not None:
            if latents is None:
                raise ValueError(
                    "this network is always shown a first picture: give `image`, or prepare the text with it"
                )
            shape = (MASK + self.channels.video, *x.video.shape[2:])
            if tuple(latents.shape[1:]) != shape or len(x.video) % len(latents):
                raise ValueError(
                    f"the picture's latents have shape {tuple(latents.shape)}; {(len(x.video), *shape)} is needed"
                )
            x = AV(torch.cat([x.video, tiled(latents, len(x.video)).to(x.video)], 1), x.audio)
        return super().forward(x, t, text, grid=grid, route=route, reference=reference)

    def embed(self, text: Float[Tensor, "b l n"], image: Shown, *, audio: bool = True) -> AV[Any]:
        """Text in each stream's width, the video's behind the picture's tokens."""
        if image.states.shape[1:] != (self.image_tokens, self.image_dim) or len(text) % len(image.states):
            raise ValueError(
                f"the picture's states have shape {tuple(image.states.shape)}; "
                f"{(len(text), self.image_tokens, self.image_dim)} is needed"
            )
        seen = self.ends.video.img_emb(tiled(image.states, len(text)))
        video = torch.cat([seen, self.ends.video.text(text)], 1)
        return AV(video, self.ends.audio.text(text) if audio and self.ends.audio is not None else None)

    @torch.no_grad()
    def prepare(self, text: Float[Tensor, "b l n"], *, image: Shown | None = None) -> Prepared:
        """As DualStreamTransformer's, of text and of the picture; its rows repeat to the text's number."""
        image = self._shown(image)
        states = self.embed(text, image)
        return PreparedShown(tuple(block.prepare(states) for block in self._blocks), tiled(image.latents, len(text)))

    def _shown(self, image: Shown | None) -> Shown:
        if image is None:
            raise ValueError("this network is always shown a first picture: give `image`")
        return image


def tiled(x: Tensor, batch: int) -> Tensor:
    """The rows over again, to a number of them."""
    return x if len(x) == batch else x.repeat(batch // len(x), *[1] * (x.ndim - 1))
