"""Pictures as networks are shown them: chosen, resized as torchvision does to bytes, cropped, normalised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
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


def resize_bilinear(picture: UInt8[Tensor, "1 3 h w"], size: tuple[int, int]) -> UInt8[Tensor, "1 3 y x"]:
    """To this height and width, as torchvision's Resize with antialias=False does to bytes."""
    if size == picture.shape[-2:]:
        return picture
    return F.interpolate(picture.float(), size, mode="bilinear", align_corners=False).round().to(torch.uint8)


def evenly(video: UInt8[np.ndarray, "t h w 3"], count: int) -> Iterator[UInt8[Tensor, "1 3 h w"]]:
    """So many pictures from the first to the last, or all of them where `count` is 0."""
    for at in np.linspace(0, len(video) - 1, count or len(video)).round().astype(int):
        yield torch.from_numpy(video[at]).permute(2, 0, 1)[None]


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
