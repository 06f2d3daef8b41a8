"""A causal video codec without weights to train: blocks of pixels on a fitted orthonormal basis.

The first latent frame holds one picture in blocks of 8 x 8, each later one holds four in blocks of 4 x 8 x 8, as in
Wan's VAE; the first is projected as if it stood still, so that all frames share one latent space. Encoding is a
projection of each block alone; decoding adds what the blocks around it tell (refine.py). 16 numbers a block make 64 a
token of 2 x 2 blocks, a third of a stream 192 wide: wider tokens keep more detail than a small model learns to
generate. Each latent is divided by its standard deviation, as Wan's are: what noise a sampler leaves then has the
spectrum of pictures, not that of the faintest details.

B clips, F pictures, T latent frames, H x W latent pixels, C channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import VideoCodec
from ccl.codecs.projection import BasisFile, Still
from ccl.codecs.refine import Refiner

PARTS = ("video_first", "video_later")
FIRST = "b c f (h p) (w q) -> b f h w (c p q)"
LATER = "b c (t n) (h p) (w q) -> b t h w (n c p q)"


def blocks(video: Float[Tensor, "b 3 f hp wp"], stride_time: int = 4, stride_space: int = 8) -> tuple[Tensor, Tensor]:
    """Cut a video into blocks: (B, 1, H, W, 192) of the first picture and (B, T - 1, H, W, 768) of the others."""
    sides = {"p": stride_space, "q": stride_space}
    return rearrange(video[:, :, :1], FIRST, **sides), rearrange(video[:, :, 1:], LATER, n=stride_time, **sides)


class EmbeddedVideo(VideoCodec):
    """Causal 4 x 8 x 8 block codec on a basis fitted to the embedded world.

    Args:
        channels: numbers a block; the basis file has as many.
        basis: a file made by `ccl codec fit`; the shipped one if not given.

    Raises:
        ValueError: where the basis file is missing, broken or of another number of channels.
    """

    stride_time = 4
    stride_space = 8

    def __init__(self, channels: int = 16, basis: str | None = None) -> None:
        super().__init__()
        self.channels = channels
        file = BasisFile(basis)
        self.later = file.basis("video_later", channels)
        self.first = Still(self.later, self.stride_time)
        self.refine_first, self.refine_later = (
            Refiner(channels, *file.take(name, "inward", "outward")) for name in PARTS
        )
        self._space = file.space("video_later")

    @property
    def identity(self) -> str:
        return f"embedded-video-{self.channels}-{self._space}"

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "b 3 f hp wp"]) -> Float[Tensor, "b c t h w"]:
        self.check_pictures(video)
        with torch.autocast(video.device.type, enabled=False):
            first, later = blocks(video.float(), self.stride_time, self.stride_space)
            z = torch.cat([self.first.project(first), self.later.project(later)], dim=1)
            return rearrange(z, "b t h w c -> b c t h w").contiguous()

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 f hp wp"]:
        self.check_latents(z)
        with torch.autocast(z.device.type, enabled=False):
            z = rearrange(z.float(), "b c t h w -> b t h w c")
            sides = {"p": self.stride_space, "q": self.stride_space, "c": 3}
            # Generated latents of the first picture may move a little; a picture does not, and its correction has never
            # seen it.
            still, moving = self.first.project(self.first.expand(z[:, :1])), z[:, 1:]
            first = rearrange(self.first.expand(still) + self.refine_first(still), _reverse(FIRST), **sides)
            later = rearrange(
                self.later.expand(moving) + self.refine_later(moving), _reverse(LATER), n=self.stride_time, **sides
            )
            return torch.cat([first, later], dim=2).clamp(-1, 1)


def _reverse(pattern: str) -> str:
    left, right = pattern.split("->")
    return f"{right.strip()} -> {left.strip()}"
