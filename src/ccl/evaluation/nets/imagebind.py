"""ImageBind's vision, audio and text towers (Girdhar et al. 2023, arXiv 2305.05665), under the published file's keys.

Each tower is a pre-norm ViT: patches + CLS + positions, blocks, then LayerNorm, CLS token, Linear to the joint space.
What differs is a table: vision takes two pictures as one patch in time and has a LayerNorm before its blocks; audio
takes overlapping patches of a spectrogram through a LayerNorm of their own and attends to one learned key and value
more; text takes tokens, of which none sees a later one, and reads the last. Every clip's embedding is made unit, then
audio's scaled by 20 and text's by a learned number, and clips of one film are averaged.

B films, K clips of each, L tokens, D width, E joint width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

Value = TypeVar("Value")

EPS = 1e-6
# The published file also holds these modalities, which nothing here needs.
OTHERS = ("depth", "thermal", "imu")
# And which token may see which, -inf where it may not: of every text the same.
MASK = "modality_preprocessors.text.mask"
VOCABULARY, LENGTH = 49_408, 77  # tokens; CLIP's


@dataclass(frozen=True)
class Tower:
    """Widths of one tower.

    Args:
        dim: D.
        blocks: how many.
        heads: H.
    """

    dim: int
    blocks: int
    heads: int


HUGE_VISION = Tower(1280, 32, 16)
HUGE_AUDIO = Tower(768, 12, 12)
HUGE_TEXT = Tower(1024, 24, 16)


class ImageBind(nn.Module):
    """Vision and audio towers, and that of text where it is given; the defaults are those of imagebind_huge."""

    def __init__(
        self,
        vision: Tower = HUGE_VISION,
        audio: Tower = HUGE_AUDIO,
        out_dim: int = 1024,
        text: Tower | None = None,
    ) -> None:
        super().__init__()
        pictures = nn.Conv3d(3, vision.dim, (2, 14, 14), (2, 14, 14), bias=False)
        spectrogram = nn.Conv2d(1, audio.dim, 16, 10, bias=False)
        self.modality_preprocessors = nn.ModuleDict(
            {
                # Sequential, because upstream's first member repeats single pictures; ours always come in pairs.
                "vision": Patches(nn.Sequential(nn.Identity(), pictures), vision.dim, 16 * 16),
                "audio": Patches(spectrogram, audio.dim, 12 * 19, norm=True),
            }
        )
        self.modality_trunks = nn.ModuleDict(
            {"vision": Trunk(vision, norm_first=True), "audio": Trunk(audio, bias_kv=True)}
        )
        self.modality_heads = nn.ModuleDict(
            {
                kind: nn.Sequential(nn.LayerNorm(tower.dim, EPS), First(), nn.Linear(tower.dim, out_dim, bias=False))
                for kind, tower in (("vision", vision), ("audio", audio))
            }
        )
        scale = nn.Sequential(nn.Identity(), LogitScale(20.0))
        self.modality_postprocessors = nn.ModuleDict({"vision": nn.Identity(), "audio": scale})
        if text is not None:
            self.modality_preprocessors["text"] = Words(text.dim)
            self.modality_trunks["text"] = Trunk(text, causal=True)
            self.modality_heads["text"] = Last(text.dim, out_dim)
            self.modality_postprocessors["text"] = nn.Sequential(nn.Identity(), LogitScale(1 / 0.07))

    @classmethod
    def of(cls, state: Mapping[str, Any], *, text: Tower | None = None) -> ImageBind:
        """The network of these weights; ValueError where they are not ImageBind's."""
        return filled(lambda: cls(text=text), state, "ImageBind")

    def forward(self, kind: str, clips: Float[Tensor, "b k ..."]) -> Float[Tensor, "b e"]:
        """The mean embedding of each film's clips: vision (b k 3 2 224 224), audio (b k 1 128 204)."""
        return rearrange(self.embed(kind, clips.flatten(0, 1)), "(b k) e -> b k e", b=len(clips)).mean(1)

    def embed(self, kind: str, clips: Float[Tensor, "n ..."]) -> Float[Tensor, "n e"]:
        """Each clip's own embedding: of length 1 for vision, 20 for audio."""
        tokens = self.modality_trunks[kind](self.modality_preprocessors[kind](clips))
        unit = F.normalize(self.modality_heads[kind](tokens).float(), dim=-1)
        return self.modality_postprocessors[kind](unit)

    def read(self, tokens: Int64[Tensor, "n 77"]) -> Float[Tensor, "n e"]:
        """Each text's embedding; the text tower must be there."""
        states = self.modality_trunks["text"](self.modality_preprocessors["text"](tokens))
        # Upstream: the largest token of all ends a text.
        unit = F.normalize(self.modality_heads["text"](states, tokens.argmax(-1)).float(), dim=-1)
        return self.modality_postprocessors["text"](unit)


class Patches(nn.Module):
    """Patches as tokens, with CLS before them and learned positions."""

    def __init__(self, proj: nn.Module, dim: int, num_patches: int, *, norm: bool = False) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.rgbt_stem = nn.ModuleDict({"proj": proj})
        if norm:
            self.rgbt_stem["norm_layer"] = nn.LayerNorm(dim)  # at PyTorch's 1e-5, unlike all others
        self.pos_embedding_helper = nn.ParameterDict({"pos_embed": torch.zeros(1, 1 + num_patches, dim)})

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n l d"]:
        x = self.rgbt_stem["proj"](x).flatten(2).transpose(1, 2)
        if "norm_layer" in self.rgbt_stem:
            x = self.rgbt_stem["norm_layer"](x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        return x + self.pos_embedding_helper["pos_embed"]


class Words(nn.Module):
    """Tokens of a text with learned positions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, LENGTH, dim))

    def forward(self, tokens: Int64[Tensor, "n l"]) -> Float[Tensor, "n l d"]:
        return self.token_embedding(tokens) + self.pos_embed


class Trunk(nn.Module):
    """The blocks of one tower."""

    def __init__(self, tower: Tower, *, norm_first: bool = False, bias_kv: bool = False, causal: bool = False) -> None:
        super().__init__()
        norm = nn.LayerNorm(tower.dim, EPS) if norm_first else nn.Identity()
        self.pre_transformer_layer = nn.Sequential(norm)
        blocks = (Block(tower.dim, tower.heads, bias_kv=bias_kv, causal=causal) for _ in range(tower.blocks))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
        return self.blocks(self.pre_transformer_layer(x))


class Block(nn.Module):
    """Attention, then a four times wider MLP, each after its norm."""

    def __init__(self, dim: int, heads: int, *, bias_kv: bool, causal: bool = False) -> None:
        super().__init__()
        self.attn = Attention(dim, heads, bias_kv=bias_kv, causal=causal)
        self.norm_1 = nn.LayerNorm(dim, EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        self.norm_2 = nn.LayerNorm(dim, EPS)

    def forward(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(x))))


class Attention(nn.Module):
    """nn.MultiheadAttention's weights; `bias_kv` appends one learned key and value, `causal` shows no later token."""

    def __init__(self, dim: int, heads: int, *, bias_kv: bool, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias_kv:
            self.bias_k = nn.Parameter(torch.zeros(1, 1, dim))
            self.bias_v = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if hasattr(self, "bias_k"):
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1).to(k.dtype)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1).to(v.dtype)], dim=1)
        q, k, v = (rearrange(y, "n l (h d) -> n h l d", h=self.heads) for y in (q, k, v))
        states = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(rearrange(states, "n h l d -> n l (h d)"))


class First(nn.Module):
    """The CLS token."""

    def forward(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "n d"]:
        return x[:, 0]


class Last(nn.Module):
    """The state of the token that ends a text, in the joint space."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.LayerNorm(dim, EPS), nn.Linear(dim, out_dim, bias=False))

    def forward(self, x: Float[Tensor, "n l d"], last: Int64[Tensor, " n"]) -> Float[Tensor, "n e"]:
        return self.proj(x[torch.arange(len(x), device=x.device), last])


class LogitScale(nn.Module):
    """Times a constant kept as its logarithm, at most 100."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(scale).log())
        self.log_logit_scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.log_logit_scale.exp().clamp(max=100) * x


def ours(state: Mapping[str, Value], *, text: bool = False) -> dict[str, Value]:
    """What of a published state dict belongs to the towers; keys of other modalities are left out, no others."""
    return {key: value for key, value in state.items() if is_ours(key, text=text)}


def is_ours(key: str, *, text: bool = False) -> bool:
    """Whether a key of the published file belongs to the towers, of which that of text may be one, or to nobody."""
    part, _, rest = key.partition(".")
    parts = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
    others = OTHERS if text else ("text", *OTHERS)
    return key != MASK and not (part in parts and rest.split(".")[0] in others)
