"""WavLM-base (Chen et al. 2021, arXiv 2110.13900): an encoder of speech, under its published keys.

Seven convolutions make a frame of every 20 ms; a grouped convolution with weight norm tells positions; twelve post-norm
layers attend with a relative position bias that layer 0 owns, all share, and each gates by its own input.

B sounds, S samples, T frames, C convolution width, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

STRIDES = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel and stride of each convolution
FIELD, HOP = 400, 320  # samples that a frame sees, and from one to the next
POSITIONS, GROUPS = 128, 16  # kernel and groups of the convolution that tells positions
BUCKETS, FARTHEST = 320, 800  # of distances; those from FARTHEST frames on share one


class WavLM(nn.Module):
    """The encoder; defaults are those of the base model."""

    def __init__(
        self, dim: int = 768, layers: int = 12, heads: int = 12, mlp_dim: int = 3072, conv_dim: int = 512
    ) -> None:
        super().__init__()
        self.mask_emb = nn.Parameter(torch.zeros(dim))  # only its pre-training uses it; the file holds it
        self.feature_extractor = Convolutions(conv_dim)
        self.layer_norm = nn.LayerNorm(conv_dim)
        self.post_extract_proj = nn.Linear(conv_dim, dim)
        self.encoder = Encoder(dim, layers, heads, mlp_dim)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> WavLM:
        """The encoder of these weights, as large as they are.

        Raises:
            ValueError: they are not WavLM's.
        """

        def sized() -> WavLM:
            dim, conv_dim = state["post_extract_proj.weight"].shape
            heads = state["encoder.layers.0.self_attn.grep_a"].shape[1]
            mlp_dim = state["encoder.layers.0.fc1.weight"].shape[0]
            layers = sum(key.startswith("encoder.layers.") and key.endswith(".fc1.weight") for key in state)
            return cls(dim, layers, heads, mlp_dim, conv_dim)

        return filled(sized, state, "WavLM")

    def forward(
        self, sound: Float[Tensor, "b s"], padding: Bool[Tensor, "b s"] | None = None
    ) -> tuple[list[Float[Tensor, "b t d"]], Bool[Tensor, "b t"]]:
        """What goes into the first layer and what comes out of each; and which frames are padding throughout.

        What all sounds have as padding at their end is not computed, for nothing that is kept sees more of it than
        zeros; T counts the frames before it.

        Args:
            sound: 16 kHz.
            padding: true where a sample is none; such samples count as 0.
        """
        if padding is None:
            padding = torch.zeros_like(sound, dtype=torch.bool)
        samples, frames = sound.shape[1], lengths(sound.shape[1])[-1]
        if frames < 1:
            raise ValueError(f"a sound of {samples} samples is too short for one frame of {FIELD}")
        # Not by what a frame sees: the samples are dealt out evenly, what remains at the end is dropped.
        each = samples // frames
        silent = rearrange(padding[:, : each * frames], "b (t n) -> b t n", n=each).all(-1)
        frames = _end(~silent)
        heard = min(samples, max(FIELD + HOP * (frames - 1), _end(~padding) + STRIDES[0][0]))
        x = self.feature_extractor(sound[:, :heard].masked_fill(padding[:, :heard], 0), lengths(samples)[0])
        x = self.post_extract_proj(self.layer_norm(x[..., :frames].transpose(1, 2)))
        return self.encoder(x, silent[:, :frames]), silent[:, :frames]


def lengths(samples: int) -> list[int]:
    """How much comes out of each convolution; the last are the frames."""
    out: list[int] = []
    for kernel, stride in STRIDES:
        samples = max(0, (samples - kernel) // stride + 1)
        out.append(samples)
    return out


def _end(mask: Bool[Tensor, "b n"]) -> int:
    """One past the last true column, and 1 at least."""
    columns = mask.any(0).nonzero()
    return int(columns[-1]) + 1 if len(columns) else 1


class Convolutions(nn.Module):
    """Samples to frames; the first layer normalises each channel over time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList()
        for i, (kernel, stride) in enumerate(STRIDES):
            conv = nn.Conv1d(dim if i else 1, dim, kernel, stride, bias=False)
            # Identity stands where upstream has a dropout of 0, so that the norm is number 2.
            norm = [nn.Identity(), Norm(dim)] if i == 0 else []
            self.conv_layers.append(nn.Sequential(conv, *norm))

    def forward(self, sound: Float[Tensor, "b s"], total: int) -> Float[Tensor, "b c t"]:
        """Frames of a sound whose first layer would have `total` outputs, had its trailing zeros not been cut off."""
        x = sound[:, None]
        for layer in self.conv_layers:
            assert isinstance(layer, nn.Sequential)
            conv, *norm = layer
            x = conv(x)
            if norm:
                x = norm[-1](x, total)
            x = F.gelu(x)
        return x


class Norm(nn.Module):
    """GroupNorm with a group for each channel, over `total` steps of which those that are not given are 0. In fp32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x: Float[Tensor, "b c t"], total: int) -> Float[Tensor, "b c t"]:
        var, mean = torch.var_mean(x.float(), dim=-1, correction=0, keepdim=True)
        share = x.shape[-1] / total
        # Zeros pull the mean towards 0, and lie from it as far as it is.
        whole = share * mean
        spread = share * (var + (mean - whole).square()) + (1 - share) * whole.square()
        scale = self.weight[:, None] * (spread + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None] - whole * scale, x.float(), scale).to(x.dtype)


class Encoder(nn.Module):
    """Positions, norm, layers."""

    def __init__(self, dim: int, layers: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.pos_conv = nn.Sequential(WeightNormConv(dim))
        self.layers = nn.ModuleList(Layer(dim, heads, mlp_dim, owns_bias=i == 0) for i in range(layers))
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "b t d"], padding: Bool[Tensor, "b t"]) -> list[Float[Tensor, "b t d"]]:
        x = x.masked_fill(padding[..., None], 0)
        x = self.layer_norm(x + F.gelu(self.pos_conv(x.transpose(1, 2))).transpose(1, 2))
        first = self.layers[0].self_attn
        assert isinstance(first, Attention)
        bias = first.position_bias(x.shape[1])
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1], bias, padding))
        return outputs


class WeightNormConv(nn.Module):
    """A convolution whose kernel is, at each of its taps, a direction (weight_v) times a length (weight_g)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_g = nn.Parameter(torch.ones(1, 1, POSITIONS))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // GROUPS, POSITIONS) / dim**0.5)

    def forward(self, x: Float[Tensor, "b d t"]) -> Float[Tensor, "b d t"]:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        y = F.conv1d(x, weight, self.bias, padding=POSITIONS // 2, groups=GROUPS)
        return y[..., :-1]  # an even kernel gives one frame too many


class Layer(nn.Module):
    """Attention, then an MLP, each before its norm."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, owns_bias: bool) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads, owns_bias=owns_bias)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(
        self, x: Float[Tensor, "b t d"], bias: Float[Tensor, "h t t"], padding: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        x = self.self_attn_layer_norm(x + self.self_attn(x, bias, padding))
        return self.final_layer_norm(x + self.fc2(F.gelu(self.fc1(x))))


class Attention(nn.Module):
    """Attention whose position bias each query scales by two gates (WavLM Sec. III-B)."""

    def __init__(self, dim: int, heads: int, *, owns_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.grep_linear = nn.Linear(dim // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))
        if owns_bias:
            self.relative_attention_bias = nn.Embedding(BUCKETS, heads)

    def forward(
        self, x: Float[Tensor, "b t d"], bias: Float[Tensor, "h t t"], padding: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        q, k, v, own = (
            rearrange(y, "b t (h d) -> b h t d", h=self.heads)
            for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x), x)
        )
        # The gates read the layer's input itself, not the projected queries. Four numbers each, summed.
        update, reset = rearrange(self.grep_linear(own), "b h t (g n) -> g b h t n", g=2).sum(-1).sigmoid()[..., None]
        gated = (update * (reset * self.grep_a - 1) + 2) * bias
        gated = gated.masked_fill(padding[:, None, None, :], -torch.inf).to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=gated)
        return self.out_proj(rearrange(y, "b h t d -> b t (h d)"))

    def position_bias(self, count: int) -> Float[Tensor, "h t t"]:
        """The bias of each head for each query and key, from their distance's bucket."""
        at = torch.arange(count)
        weight = self.relative_attention_bias.weight
        return rearrange(weight[buckets(at[None, :] - at[:, None]).to(weight.device)], "q k h -> h q k")


def buckets(distance: Tensor) -> Tensor:
    """The number of a distance in frames: one for each up to 79, wider ones up to 800; later keys count from 160."""
    half = BUCKETS // 2
    exact = half // 2
    far = distance.abs()
    wide = (far.clamp(min=1).float() / exact).log() / math.log(FARTHEST / exact) * (half - exact)
    wide = (exact + wide.long()).clamp(max=half - 1)
    return torch.where(far < exact, far, wide) + half * (distance > 0)
