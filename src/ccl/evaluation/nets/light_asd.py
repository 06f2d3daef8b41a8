"""Light-ASD: does this face speak this sound (Liao et al., CVPR 2023), under the key names of its published file.

Two light encoders, each block a path of kernels 3 and one of 5, separable in space (or cepstrum) and time; their sum
through a GRU forwards and one backwards, and a linear layer. B tracks, T pictures at 25 a second, H x W grey pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

WIDTHS = (1, 32, 64, 128)
MEAN, STD = 0.4161, 0.1688  # of the grey pictures, in 0..1


def norm(dimensions: int, channels: int) -> nn.Module:
    return (nn.BatchNorm3d if dimensions == 3 else nn.BatchNorm2d)(channels, eps=1e-3)


class Block(nn.Module):
    """Two paths, of kernel 3 and 5, each first within a picture (or a spectrum), then over time; summed and mixed."""

    dimensions = 3
    within = "s"

    def __init__(self, width: int, channels: int, stride: int = 1):
        super().__init__()
        for size in (3, 5):
            inner, time = self.convolutions(width, channels, size, stride)
            self.add_module(f"{self.within}_{size}", inner)
            self.add_module(f"bn_{self.within}_{size}", norm(self.dimensions, channels))
            self.add_module(f"t_{size}", time)
            self.add_module(f"bn_t_{size}", norm(self.dimensions, channels))
        convolution = nn.Conv3d if self.dimensions == 3 else nn.Conv2d
        self.last = convolution(channels, channels, 1, bias=False)
        self.bn_last = norm(self.dimensions, channels)

    def convolutions(self, width: int, channels: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
        half = size // 2
        return (
            nn.Conv3d(width, channels, (1, size, size), (1, stride, stride), (0, half, half), bias=False),
            nn.Conv3d(channels, channels, (size, 1, 1), padding=(half, 0, 0), bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        paths = []
        for size in (3, 5):
            path = x
            for name in (f"{self.within}_{size}", f"t_{size}"):
                path = F.relu(self.get_submodule(f"bn_{name}")(self.get_submodule(name)(path)))
            paths.append(path)
        return F.relu(self.bn_last(self.last(paths[0] + paths[1])))


class SoundBlock(Block):
    """The same over (cepstrum, time)."""

    dimensions = 2
    within = "m"

    def convolutions(self, width: int, channels: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
        half = size // 2
        return (
            nn.Conv2d(width, channels, (size, 1), padding=(half, 0), bias=False),
            nn.Conv2d(channels, channels, (1, size), padding=(0, half), bias=False),
        )


class Encoder(nn.Module):
    """Three blocks, the first two followed by pooling."""

    def __init__(self, block: type[Block], stride: int):
        super().__init__()
        self.block1 = block(WIDTHS[0], WIDTHS[1], stride)
        self.block2 = block(WIDTHS[1], WIDTHS[2])
        self.block3 = block(WIDTHS[2], WIDTHS[3])


class FaceEncoder(Encoder):
    def __init__(self) -> None:
        super().__init__(Block, stride=2)

    def forward(self, faces: Float[Tensor, "b t h w"]) -> Float[Tensor, "b t d"]:
        x = ((faces / 255 - MEAN) / STD)[:, None]
        for block in (self.block1, self.block2):
            x = F.max_pool3d(block(x), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.block3(x).amax((3, 4)).mT


class SoundEncoder(Encoder):
    def __init__(self) -> None:
        super().__init__(SoundBlock, stride=1)

    def forward(self, cepstra: Float[Tensor, "b f c"]) -> Float[Tensor, "b t d"]:
        x = cepstra.mT[:, None]
        for block in (self.block1, self.block2):  # four cepstra a picture, halved twice
            x = F.max_pool2d(block(x), (1, 3), (1, 2), (0, 1))
        return self.block3(x).mean(2).mT


class Recurrence(nn.Module):
    """A GRU over time, then another backwards over what the first said."""

    def __init__(self, width: int):
        super().__init__()
        self.gru_forward = nn.GRU(width, width, batch_first=True)
        self.gru_backward = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = F.gelu(self.gru_forward(x)[0])
        return F.gelu(self.gru_backward(x.flip(1))[0].flip(1))


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder = FaceEncoder()
        self.audioEncoder = SoundEncoder()
        self.GRU = Recurrence(WIDTHS[-1])


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(WIDTHS[-1], 2)


class LightASD(nn.Module):
    """A score for each picture: above 0 the face speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()
        self.lossAV = Head()
        self.lossV = Head()  # of training only: faces without sound

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> LightASD:
        """The network of these weights; ValueError where they are not Light-ASD's."""
        return filled(cls, state, "Light-ASD")

    def forward(self, faces: Float[Tensor, "b t h w"], cepstra: Float[Tensor, "b 4*t c"]) -> Float[Tensor, "b t"]:
        """Grey faces in 0..255, 112 x 112, and four cepstra of 13 for each."""
        both = self.model.visualEncoder(faces) + self.model.audioEncoder(cepstra)
        return self.lossAV.FC(self.model.GRU(both))[..., 1]
