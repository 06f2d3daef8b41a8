"""MUSIQ (Ke et al. 2021, arXiv 2108.05997): a picture's quality from its patches at three sizes, under pyiqa's keys.

A picture is seen with its longer side at 224 and at 384 pixels and as it is, so that both what it shows and its grain
count. A convolution and a residual block make a token of each patch, to which an embedding of its place, hashed to a
grid, and one of its size are added; a transformer's class token tells the score.

N pictures of one size, T patches, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

PATCH, GRID, HEADS = 32, 10, 6
SIDES = (224, 384)  # pixels of the longer side, beside the picture's own
BLOCK = "transformer_encoder.transformer.encoderblock_"


@dataclass(frozen=True)
class Patches:
    """What pictures of one size are to the network, smallest first.

    Args:
        pixels: in [-1, 1]; beyond a picture's edge they are 0.
        place: of each patch in the grid, row by row.
        scale: of each, 0 and 1 for SIDES, 2 for the picture as it is.
    """

    pixels: Float[Tensor, "n t 3 32 32"]
    place: Int[Tensor, " t"]
    scale: Int[Tensor, " t"]


def patches(pictures: UInt8[Tensor, "n 3 h w"]) -> Patches:
    """Of each picture all patches, in three sizes.

    pyiqa fills each of the first two sizes up to a square's number of patches and hides what it has filled in from the
    others; here nothing is.
    """
    h, w = pictures.shape[-2:]
    whole = (pictures / 255 - 0.5) * 2
    pixels, places = [], []
    for side in (*SIDES, max(h, w)):
        ratio = side / max(h, w)
        size = [max(1, round(n * ratio)) for n in (h, w)]
        # Not antialiased, and so unlike the paper's Gaussian; pyiqa's scores are of this.
        x = whole if size == [h, w] else F.interpolate(whole, size, mode="bicubic", align_corners=False)
        rows, columns = (ceil(n / PATCH) for n in size)
        down, across = rows * PATCH - size[0], columns * PATCH - size[1]
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        pixels.append(rearrange(x, "n c (y p) (x q) -> n (y x) c p q", p=PATCH, q=PATCH))
        places.append((GRID * hashed(rows)[:, None] + hashed(columns)).flatten().to(pictures.device))
    scale = torch.cat([torch.full_like(place, i) for i, place in enumerate(places)])
    return Patches(torch.cat(pixels, 1), torch.cat(places), scale)


def hashed(count: int) -> Int[Tensor, " t"]:
    """Where each of so many patches in a row falls in the grid, as nearest interpolation rounds it."""
    return F.interpolate(torch.arange(GRID).float()[None, None], count, mode="nearest")[0, 0].long()


class MUSIQ(nn.Module):
    """Patches to scores; defaults are those published. A head of several classes gives their mean, counted from 1."""

    def __init__(self, dim: int = 384, layers: int = 14, mlp_dim: int = 1152, classes: int = 1) -> None:
        super().__init__()
        self.conv_root, self.gn_root = Convolution(3, 64, 7, 2), nn.GroupNorm(32, 64, eps=1e-6)
        self.block1 = Bottleneck(64, 256)
        self.embedding = nn.Linear(256 * (PATCH // 4) ** 2, dim)
        self.transformer_encoder = Encoder(dim, layers, mlp_dim)
        head = nn.Linear(dim, classes)
        self.head = head if classes == 1 else nn.Sequential(head, nn.Softmax(-1))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> MUSIQ:
        """The network of these weights, as large as they are; ValueError where they are not MUSIQ's."""

        def sized() -> MUSIQ:
            classes, dim = state["head.0.weight" if "head.0.weight" in state else "head.weight"].shape
            layers = sum(key.startswith(BLOCK) and key.endswith(".norm1.weight") for key in state)
            return cls(dim, layers, len(state[f"{BLOCK}0.mlp.fc1.weight"]), classes)

        return filled(sized, state, "MUSIQ")

    def forward(self, seen: Patches) -> Float[Tensor, " n"]:
        n = len(seen.pixels)
        x = F.relu(self.gn_root(self.conv_root(rearrange(seen.pixels, "n t c p q -> (n t) c p q"))))
        x = self.block1(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2))
        tokens = self.embedding(rearrange(x, "(n t) c p q -> n t (p q c)", n=n))
        out = self.head(self.transformer_encoder(tokens, seen.place, seen.scale))
        return (out * torch.arange(1, out.shape[1] + 1, device=out.device)).sum(1)


class Convolution(nn.Conv2d):
    """A convolution whose kernels are standardised; what its stride leaves over lies at the right and the bottom."""

    def __init__(self, before: int, after: int, size: int = 1, stride: int = 1) -> None:
        super().__init__(before, after, size, stride, bias=False)
        self.before, self.after = (size - stride) // 2, (size - stride + 1) // 2

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d y x"]:
        spread, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        x = F.pad(x, (self.before, self.after, self.before, self.after))
        return F.conv2d(x, (self.weight - mean) / (spread + 1e-5), stride=self.stride)


class Bottleneck(nn.Module):
    """Three convolutions beside one."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1, self.gn1 = Convolution(before, before), nn.GroupNorm(32, before, eps=1e-4)
        self.conv2, self.gn2 = Convolution(before, before, 3), nn.GroupNorm(32, before, eps=1e-4)
        self.conv3, self.gn3 = Convolution(before, after), nn.GroupNorm(32, after, eps=1e-4)
        self.conv_proj, self.gn_proj = Convolution(before, after), nn.GroupNorm(32, after, eps=1e-4)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        y = F.relu(self.gn1(self.conv1(x)))
        y = F.relu(self.gn2(self.conv2(y)))
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class Encoder(nn.Module):
    """Places, sizes, layers; the class token's output."""

    def __init__(self, dim: int, layers: int, mlp_dim: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, GRID**2, dim)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(len(SIDES) + 1, dim)})
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Layer(dim, mlp_dim) for i in range(layers)})
        self.encoder_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self, x: Float[Tensor, "n t d"], place: Int[Tensor, " t"], scale: Int[Tensor, " t"]
    ) -> Float[Tensor, "n d"]:
        x = x + self.posembed_input["position_emb"][0, place] + self.scaleembed_input["scale_emb"][scale]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for layer in self.transformer.values():
            x = layer(x)
        return self.encoder_norm(x[:, 0])


class Layer(nn.Module):
    """Attention, then an MLP, each after its norm."""

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp_dim), "fc2": nn.Linear(mlp_dim, dim)})

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Attention(nn.Module):
    """Attention of six heads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        q, k, v = (rearrange(y(x), "n t (h d) -> n h t d", h=HEADS) for y in (self.query, self.key, self.value))
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "n h t d -> n t (h d)"))
