"""S3FD, the face detector of SyncNet's pipeline (Zhang et al. 2017), under the key names of `sfd_face.pth`.

VGG-16 with six heads at strides 4 to 128; each cell has one square prior of four strides, whose offset and size a head
corrects. B pictures, P priors (all cells of all heads), H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

MEAN = (123.0, 117.0, 104.0)  # of RGB in 0..255, taken off the pictures; nothing is divided
SMALLEST = 28  # pixels a side; fewer, and nothing is left after the five poolings
STEPS = (4, 8, 16, 32, 64, 128)  # pixels between the cells of each head
PRIOR = 4  # a prior's side in steps
VARIANCES = (0.1, 0.2)  # what offsets and log sizes were divided by in training
CANDIDATES = 5000  # the most boxes that enter the first suppression, and
BOXES = 750  # the most that leave it


class L2Norm(nn.Module):
    """Each cell's features scaled to unit length, times learned weights."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        length = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return self.weight[:, None, None] * (x / length)


class S3FD(nn.Module):
    """Pictures to boxes with scores, all of them: what is a face, `select` decides."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(vgg())
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = L2Norm(256), L2Norm(512), L2Norm(512)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, stride=2, padding=1),
            ]
        )
        widths = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        # The first head tells three kinds of background from a face.
        self.conf = nn.ModuleList(nn.Conv2d(width, 4 if i == 0 else 2, 3, padding=1) for i, width in enumerate(widths))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> S3FD:
        """The network of these weights; ValueError where they are not S3FD's."""
        return filled(cls, state, "S3FD")

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p 5"]:
        """Score in 0..1, then left, top, right, bottom in parts of the picture's width and height."""
        size = (x.shape[2], x.shape[3])
        locs, confs, priors = [], [], []
        for step, loc, conf, features in zip(STEPS, self.loc, self.conf, self.features(x), strict=True):
            logits = conf(features)
            if logits.shape[1] == 4:
                logits = torch.cat([logits[:, :3].amax(1, keepdim=True), logits[:, 3:]], 1)
            locs.append(loc(features).flatten(2).mT)
            confs.append(logits.flatten(2).mT)
            priors.append(prior_boxes((features.shape[2], features.shape[3]), size, step).to(x))
        boxes = decode(torch.cat(locs, 1), torch.cat(priors))
        return torch.cat([torch.cat(confs, 1).softmax(-1)[..., 1:], boxes], -1)

    def features(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """What each of the six heads reads."""
        found = []
        norms = {15: self.L2Norm3_3, 22: self.L2Norm4_3, 29: self.L2Norm5_3}  # by the layer they follow
        for i, layer in enumerate(self.vgg):
            x = layer(x)
            if i in norms:
                found.append(norms[i](x))
        found.append(x)
        for i, layer in enumerate(self.extras):
            x = F.relu(layer(x))
            if i % 2:
                found.append(x)
        return found


def vgg() -> list[nn.Module]:
    """VGG-16's convolutions; its first two dense layers as a dilated and a pointwise convolution."""
    layers: list[nn.Module] = []
    width = 3
    for block, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for _ in range(count):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]  # not in place: heads keep their input
            width = channels
        layers.append(nn.MaxPool2d(2, ceil_mode=block == 2))
    return [*layers, nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]


def prior_boxes(cells: tuple[int, int], size: tuple[int, int], step: int) -> Float32[Tensor, "p 4"]:
    """Centre x, centre y, width, height of each cell's prior, row by row, in parts of the picture (height, width)."""
    (rows, columns), (height, width) = cells, size
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    side = torch.full((rows * columns,), float(PRIOR * step))
    centre = [(x.flatten() + 0.5) * step / width, (y.flatten() + 0.5) * step / height]
    return torch.stack([*centre, side / width, side / height], -1)


def decode(loc: Float[Tensor, "b p 4"], priors: Float[Tensor, "p 4"]) -> Float[Tensor, "b p 4"]:
    """Corners of the priors as the heads correct them."""
    centre = priors[:, :2] + loc[..., :2] * VARIANCES[0] * priors[:, 2:]
    half = priors[:, 2:] * torch.exp(loc[..., 2:] * VARIANCES[1]) / 2
    return torch.cat([centre - half, centre + half], -1)


def select(found: Float32[np.ndarray, "p 5"], confidence: float, overlap: float = 0.3) -> Float32[np.ndarray, "n 5"]:
    """The boxes of one picture that score more and do not overlap a better one, best first.

    Boxes below `confidence` cannot suppress any above it, so that a high one gives what filtering afterwards gives.
    """
    found = found[found[:, 0] > confidence]
    found = found[np.argsort(found[:, 0], kind="stable")[::-1]][:CANDIDATES]  # of equal scores the last, as upstream
    return found[suppress(found[:, 1:], overlap)][:BOXES]


def suppress(boxes: Float[np.ndarray, "p 4"], overlap: float) -> Int[np.ndarray, " n"]:
    """Which of the boxes, given best first, overlap no better one that stays by more than `overlap` (IoU)."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(boxes))
    keep = []
    while len(left):
        best, left = left[0], left[1:]
        keep.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[left, :2])
        inner = np.maximum(np.minimum(boxes[best, 2:], boxes[left, 2:]) - corner, 0).prod(1)
        with np.errstate(invalid="ignore"):  # two boxes without area: NaN, and the second goes, as upstream
            left = left[inner / (areas[best] + areas[left] - inner) <= overlap]
    return np.array(keep, dtype=int)
