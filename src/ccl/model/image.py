"""Wan2.1-I2V's way of showing a first picture: channels beside the noisy latents, and CLIP's tokens beside the text.

The other way, a clean first latent frame with a time of its own, is the default and needs nothing of this (decision
17).
b batch, t latent frames, h x w latent pixels, n image tokens, m text states, d width.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.model.block import KV, TextAttention, WanBlock
from ccl.model.stream import Extras, PatchEmbedding, StreamEnds, WanStream
from ccl.nn.attention import Backend, attention, heads
from ccl.nn.layers import Linear, RMSNorm

MASK = 4  # channels that say which pictures of a latent frame are given: a causal codec of stride 4 has four


class Shown(NamedTuple):
    """A first picture, as the network is shown it.

    Args:
        latents: (b, 4 + C, t, h, w), as `with_mask` makes them.
        states: (b, n, image_dim) of the image encoder: the penultimate layer of CLIP ViT-H/14, 257 tokens of 1280.
    """

    latents: Tensor
    states: Tensor


def with_mask(latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b k t h w"]:
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

    def read(self, q: Float[Tensor, "b l h p"], kv: KV) -> Float[Tensor, "b l h p"]:
        k, v, k_img, v_img = kv
        return attention(q, k, v, backend=self.backend) + attention(q, k_img, v_img, backend=self.backend)


class ImageEnds(StreamEnds):
    """Ends of a stream that is shown a picture: its latents beside the noisy ones, its tokens before the text's.

    Args:
        width: d.
        channels: of the noisy latents.
        patch: as PatchEmbedding's.
        text_dim: width of the text states.
        freq_dim: numbers of the sinusoid of a time.
        image_dim: width of the image encoder's states.
        image_tokens: how many there are.
    """

    def __init__(
        self, width: int, channels: int, *, patch: int, text_dim: int, freq_dim: int, image_dim: int, image_tokens: int
    ) -> None:
        embedding = PatchEmbedding(2 * channels + MASK, width, patch)
        super().__init__(width, channels, patch=patch, text_dim=text_dim, freq_dim=freq_dim, embedding=embedding)
        self.channels, self.image_dim, self.image_tokens = channels, image_dim, image_tokens
        self.img_emb = ImageEmbedding(image_dim, width)

    def tokens(self, x: Float[Tensor, "b c t h w"], extras: Extras) -> Float[Tensor, "b l d"]:
        latents = shown(extras).latents
        shape = (MASK + self.channels, *x.shape[2:])
        if tuple(latents.shape[1:]) != shape or len(latents) != len(x):
            raise ValueError(f"the picture's latents have shape {tuple(latents.shape)}; {(len(x), *shape)} is needed")
        return super().tokens(torch.cat([x, latents.to(x)], 1), extras)

    def text(self, states: Float[Tensor, "b m n"], extras: Extras) -> Float[Tensor, "b k d"]:
        seen = shown(extras).states
        shape = (len(states), self.image_tokens, self.image_dim)
        if tuple(seen.shape) != shape:
            raise ValueError(f"the picture's states have shape {tuple(seen.shape)}; {shape} is needed")
        return torch.cat([self.img_emb(seen), super().text(states, extras)], 1)


class WanImageStream(WanStream):
    """Wan2.1-I2V's video stream: it is always shown a first picture, `extras={"image": Shown(...)}`.

    Args:
        width: d, channels of its tokens.
        ffn: inner width of its feed-forward networks.
        channels: of the noisy latents, in and out.
        layers: blocks, where it ends before the other stream does.
        head_dim: of a head, where it is not the network's.
        image_dim: width of the image encoder's states.
        image_tokens: how many there are.
    """

    needs: ClassVar[tuple[str, ...]] = ("image",)

    def __init__(
        self,
        width: int,
        ffn: int,
        channels: int,
        layers: int | None = None,
        head_dim: int | None = None,
        *,
        image_dim: int = 1280,
        image_tokens: int = 257,
    ) -> None:
        super().__init__(width, ffn, channels, layers, head_dim)
        self.image_dim, self.image_tokens = image_dim, image_tokens

    def ends(self, *, patch: int | None, text_dim: int, freq_dim: int) -> StreamEnds:
        if patch is None:
            raise ValueError("WanImageStream is a stream of pictures; it cannot be the audio stream")
        picture = {"image_dim": self.image_dim, "image_tokens": self.image_tokens}
        return ImageEnds(self.width, self.channels, patch=patch, text_dim=text_dim, freq_dim=freq_dim, **picture)

    def block(self, head_dim: int, backend: Backend) -> WanBlock:
        text_attention = partial(ImageTextAttention, image_tokens=self.image_tokens)
        return WanBlock(self.width, self.ffn, head_dim, text_attention=text_attention, backend=backend)


def shown(extras: Extras) -> Shown:
    """The picture in a batch's extras.

    Raises:
        ValueError: there is none.
    """
    if extras.get("image") is None:
        raise ValueError(
            "the video stream is always shown a first picture: give extras={'image': ...}, or prepare the text with it"
        )
    return extras["image"]
