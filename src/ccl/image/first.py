"""A first picture made into what a network of Wan2.1-I2V's kind is shown of it.

B pictures, F frames of the clip, H x W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.codecs.base import VideoCodec
from ccl.image.base import ImageEncoder
from ccl.model.image import Shown, with_mask


@torch.no_grad()
def show(pictures: Float[Tensor, "b 3 hp wp"], frames: int, codec: VideoCodec, encoder: ImageEncoder) -> Shown:
    """The mask and the latents of each picture followed by mid-grey ones, and the image encoder's states of it.

    Args:
        pictures: first of each clip, in [-1, 1].
        frames: of a clip.
        codec: of the pictures.
        encoder: of the first picture.
    """
    grey = pictures.new_zeros(1, 1, 1, 1, 1).expand(*pictures.shape[:2], frames - 1, *pictures.shape[2:])
    latents = codec.encode(torch.cat([pictures[:, :, None], grey], 2))
    return Shown(with_mask(latents.float()), encoder(pictures))
