"""Where latents of a clip begin and end: as noise that follows from a seed, and as decoded pictures and sound.

B clips, T latent frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from ccl.codecs.base import Codec
from ccl.grid import Grid
from ccl.rng import generator
from ccl.types import AV, STREAMS, Stream


def noise(seeds: Sequence[int], present: AV[bool], codec: Codec, grid: Grid, device: torch.device) -> AV[Tensor | None]:
    """(B, C, T, ...) of each stream that takes part; a row's noise follows from its seed and the stream alone."""
    shapes = AV(
        (codec.video.channels, grid.t_v, grid.latent_height, grid.latent_width), (codec.audio.channels, grid.t_a)
    )

    def draw(stream: Stream, shape: tuple[int, ...]) -> Tensor:
        rows = [torch.randn(shape, generator=generator("sample", seed, stream)) for seed in seeds]
        return torch.stack(rows).to(device)

    return AV(*(draw(s, shape) if p else None for s, shape, p in zip(STREAMS, shapes, present, strict=True)))


def decode(z: AV[Tensor | None], codec: Codec, *, in_pieces: bool = False) -> AV[Any]:
    """Pictures of each clip, (F, H, W, 3) uint8, and sound, (S,) float; None where there are none.

    Args:
        z: latents (B, C, T, ...) of each stream, or None.
        codec: of the model.
        in_pieces: one clip at a time, and one piece of it at a time: of long clips the device never holds the pictures.
    """
    if not in_pieces:
        video, audio = codec.decode(z)
        return AV(None if video is None else [to_frames(x) for x in video], None if audio is None else [*audio])
    pictures = None if z.video is None else [_pictures(x[None], codec) for x in z.video]
    sounds = None if z.audio is None else [codec.audio.decode(x[None])[0] for x in z.audio]
    return AV(pictures, sounds)


def _pictures(z: Float[Tensor, "1 c t h w"], codec: Codec) -> UInt8[np.ndarray, "f hp wp 3"]:
    return np.concatenate([to_frames(piece[0]) for piece in codec.video.stream(z)])


def to_frames(video: Float[Tensor, "c f h w"]) -> UInt8[np.ndarray, "f h w c"]:
    """Pictures in [-1, 1] as bytes."""
    levels = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "c f h w -> f h w c").cpu().numpy()
