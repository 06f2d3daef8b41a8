"""SyncNet (Chung and Zisserman, 2016): how far mouth and voice lie apart; joonson/syncnet_python's network "S".

`SyncNetwork` has the upstream's own keys, so that the published syncnet_v2.model loads strictly, and sees what the
upstream's sees: windows of 5 pictures and of 20 MFCC columns. `Towers` computes the same of whole tracks: the first
convolution alone spans time, so a window's 5 pictures are 15 channels of a flat image, and normalisation goes into the
convolutions. N pictures at 25 a second, L = N - 4 windows of them, T columns of MFCC (100 a second), D = 1024.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

Precision = Literal["fp32", "bf16"]

PICTURES, COLUMNS = 5, 20  # of a window
STEP = 4  # columns of MFCC to a picture
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class SyncNetwork(nn.Module):
    """The network as published. Embeddings are not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1),  # does nothing; keeps the upstream's numbering
            *_layer(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, (1, 2)),
            *_layer(nn.Conv2d(192, 384, 3, padding=1)),
            *_layer(nn.Conv2d(384, 256, 3, padding=1)),
            *_layer(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, 2),
            *_layer(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_layer(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_layer(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud = _head()
        self.netfclip = _head()

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> SyncNetwork:
        """The network of these weights; ValueError where they are not SyncNet's."""
        return filled(cls, state, "SyncNet")

    def lip(self, pictures: Float[Tensor, "b 3 5 224 224"]) -> Float[Tensor, "b 1024"]:
        """Embeddings of windows of pictures: BGR, 0..255, not normalised."""
        return self.netfclip(self.netcnnlip(pictures).flatten(1))

    def audio(self, mfcc: Float[Tensor, "b 1 13 20"]) -> Float[Tensor, "b 1024"]:
        """Embeddings of windows of MFCC."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))


class Towers:
    """A trained SyncNetwork, made ready to score whole tracks, one or many; no module: nothing is trained or saved.

    Args:
        network: whose weights are taken.
        device: where to compute.
        precision: of the convolutions; the heads are computed in fp32.
        chunk: windows at once: 8 fit a processor's cache, a GPU wants more; None chooses.
    """

    def __init__(
        self,
        network: SyncNetwork,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        chunk: int | None = None,
    ) -> None:
        self.device, self.type = torch.device(device), _TYPES[precision]
        self.chunk = chunk or (8 if self.device.type == "cpu" else 128)
        lip, aud = flat(network.netcnnlip), flat(network.netcnnaud)
        # channels_last: twice as fast on a CPU (14 ms against 30 a window on one core).
        self.cnnlip, self.cnnaud = (
            cnn.to(self.device, self.type).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for cnn in (lip, aud)
        )
        self.fclip, self.fcaud = (flat(head).to(self.device) for head in (network.netfclip, network.netfcaud))

    @torch.inference_mode()
    def lip(self, faces: UInt8[Tensor, "n 224 224 3"]) -> Float[Tensor, "l 1024"]:
        """Embeddings of windows of a track's pictures (RGB), which begin at every one but the last four."""
        parts = []
        for first in range(0, len(faces) - PICTURES + 1, self.chunk):
            part = faces[first : first + self.chunk + PICTURES - 1].to(self.device)
            part = rearrange(part, "n h w c -> n c h w").to(self.type, memory_format=torch.contiguous_format)
            # A view: windows overlap in memory. Flat channels are picture by picture, as in `_folded`.
            window = rearrange(part.unfold(0, PICTURES, 1), "l c h w t -> l (t c) h w")
            parts.append(self.fclip(self.cnnlip(window).flatten(1).float()))
        return torch.cat(parts) if parts else torch.empty(0, 1024, device=self.device)

    @torch.inference_mode()
    def audio(self, mfcc: Float[Tensor, "13 t"], starts: Int[Tensor, " l"] | None = None) -> Float[Tensor, "l 1024"]:
        """Embeddings of windows of a sound. They cannot share work: each is padded alone.

        Args:
            mfcc: of a sound, or of several end to end.
            starts: first column of each window; None: every fourth that has twenty.
        """
        starts = torch.arange(0, max(0, mfcc.shape[1] - COLUMNS + 1), STEP) if starts is None else starts
        if not len(starts):
            return torch.empty(0, 1024, device=self.device)
        columns = (starts[:, None] + torch.arange(COLUMNS)).to(self.device)
        window = rearrange(mfcc.to(self.device, self.type)[:, columns], "c l t -> l 1 c t")
        parts = [self.cnnaud(part).flatten(1).float() for part in window.split(4 * self.chunk)]
        return self.fcaud(torch.cat(parts))


def flat(layers: nn.Sequential) -> nn.Sequential:
    """The same function with normalisation folded in, on images, and ReLU after pooling, where less is left to do."""
    out: list[nn.Module] = []
    for layer, after in pairwise([*layers, None]):
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            out.append(_folded(layer, after))
        elif isinstance(layer, nn.ReLU):
            out.append(nn.ReLU(inplace=True))
        elif isinstance(layer, nn.MaxPool2d | nn.MaxPool3d) and layer.kernel_size != 1:
            shape = [_plane(value) for value in (layer.kernel_size, layer.stride, layer.padding)]
            out.insert(-1, nn.MaxPool2d(*shape))  # before the ReLU: it is monotone, so their order is free
    return nn.Sequential(*out).eval()


def _folded(layer: nn.Conv2d | nn.Conv3d | nn.Linear, norm: nn.Module | None) -> nn.Conv2d | nn.Linear:
    """A layer on images or vectors that gives what `norm`, at its running statistics, makes of `layer`'s output."""
    assert layer.bias is not None
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = torch.einsum("o,o...->o...", scale, weight)
        bias = scale * (bias - norm.running_mean.double()) + norm.bias.detach().double()
    twin: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Linear):
        twin = nn.Linear(layer.in_features, layer.out_features)
    else:
        if isinstance(layer, nn.Conv3d):
            # Tracks are RGB, the upstream reads BGR. Channels of the flat image: picture by picture.
            weight = weight.flip(1) if layer.in_channels == 3 else weight
            weight = rearrange(weight, "o c t h w -> o (t c) h w")
        shape = [_plane(value) for value in (layer.kernel_size, layer.stride, layer.padding)]
        twin = nn.Conv2d(weight.shape[1], weight.shape[0], *shape)
    twin.weight, twin.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    return twin


def _layer(conv: nn.Conv2d | nn.Conv3d) -> tuple[nn.Module, nn.Module, nn.Module]:
    norm = nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm3d
    return conv, norm(conv.out_channels), nn.ReLU()


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def _plane(value: Any) -> Any:
    """Height and width of a layer's size, stride or padding."""
    return value[-2:] if isinstance(value, tuple) else value
