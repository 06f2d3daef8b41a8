"""Pictures as CLIP's relatives are shown them: resized as torchvision does to bytes, cropped, normalised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP
STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation, as DINO's


def resize_bicubic(pictures: UInt8[Tensor, "n 3 h w"], side: int) -> UInt8[Tensor, "n 3 y x"]:
    """Shorter side of this many pixels, as torchvision's v2.Resize does to uint8: antialiased, rounded to uint8."""
    h, w = pictures.shape[-2:]
    size = (side, int(side * w / h)) if h <= w else (int(side * h / w), side)
    if size == (h, w):
        return pictures
    return F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)


def centre_crop(pictures: Tensor, side: int) -> Tensor:
    """The middle square, where its edge falls between pixels by torchvision's rounding."""
    h, w = pictures.shape[-2:]
    top, left = round((h - side) / 2), round((w - side) / 2)
    return pictures[..., top : top + side, left : left + side]


def normalised(
    pictures: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
) -> Float[Tensor, "n 3 h w"]:
    """By CLIP's statistics or others, of bytes or of floats in 0..1."""
    scaled = pictures / 255.0 if pictures.dtype == torch.uint8 else pictures
    middle, spread = (torch.tensor(values, device=pictures.device).view(3, 1, 1) for values in (mean, std))
    return (scaled - middle) / spread
