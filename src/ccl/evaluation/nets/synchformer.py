"""Synchformer: how far a clip's sound is from its pictures, as one of 21 offsets (Iashin et al., ICASSP 2024).

Parameters carry the names of the published files, which load strictly. A segment is 0.64 s: 16 pictures, 66 mel
frames. MotionFormer sees it (ViT-B/16, attention divided into time and space), AST hears it (ViT-B/16 on the mel
spectrogram); both give a few tokens a segment, and a small transformer compares 14 segments of each.

B clips, N segments, F time steps of a segment, P patches of a picture or frequencies of a spectrogram, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

SEGMENTS = 14  # the learned positions allow no other number
CLASSES = 21
_BLOCK = r"vfeat_extractor\.blocks\.\d+\.norm1\.bias"


class Synchformer(nn.Module):
    """The network; the defaults are the published one, 237.46 M parameters.

    Args:
        width: of all transformers, D.
        depth: blocks of the two feature extractors.
        heads: of the two feature extractors.
    """

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.vfeat_extractor = MotionFormer(width, depth, heads)
        self.afeat_extractor = Listener(width, depth, heads)
        self.vproj = nn.Linear(width, width)
        self.aproj = nn.Linear(width, width)
        self.transformer = Comparison(width)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Synchformer:
        """The network of these weights, as large as they are.

        Raises:
            ValueError: they are not Synchformer's.
        """
        blocks = sum(re.fullmatch(_BLOCK, key) is not None for key in state)
        return filled(lambda: cls(len(state["vproj.bias"]), blocks), state, "Synchformer")

    def see(self, pictures: Float[Tensor, "n 16 3 224 224"]) -> Float[Tensor, "n 8 d"]:
        """Features of segments of 16 pictures in [-1, 1]."""
        return self.vfeat_extractor(pictures)

    def hear(self, mel: Float[Tensor, "n 128 66"]) -> Float[Tensor, "n 6 d"]:
        """Features of segments of sound: normalised log-mel spectrograms."""
        return self.afeat_extractor(mel)

    def compare(
        self, seen: Float[Tensor, f"b {SEGMENTS} 8 d"], heard: Float[Tensor, f"b {SEGMENTS} 6 d"]
    ) -> Float[Tensor, f"b {CLASSES}"]:
        """Logits of the offsets, from -2 s to 2 s, of 14 segments."""
        return self.transformer(self.vproj(seen.flatten(1, 2)), self.aproj(heard.flatten(1, 2)))


# pictures -------------------------------------------------------------------------------------------------------------


class MotionFormer(nn.Module):
    """ViT over tubelets of 2 x 16 x 16, each picture's 196 patches then gathered in one token."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 14 * 14, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, 8, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 16, 16)})  # the image ViT's: stored, never used
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))})
        self.blocks = nn.ModuleList(DividedBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.spatial_attn_agg = Gather(width, heads)

    def forward(self, pictures: Float[Tensor, "n 16 3 224 224"]) -> Float[Tensor, "n 8 d"]:
        patches = rearrange(self.patch_embed_3d["proj"](pictures.transpose(1, 2)), "n d f h w -> n f (h w) d")
        patches = patches + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        cls = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([cls.expand(len(patches), -1, -1), patches.flatten(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
        return self.spatial_attn_agg(rearrange(self.norm(x[:, 1:]), "n (f p) d -> n f p d", f=8))


class DividedBlock(nn.Module):
    """Attention over time, attention over space, MLP, each with a residual (MotionFormer's "divided" block)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = DividedAttention(width, heads, "n h (f p) d -> (n f) h p d")
        self.timeattn = DividedAttention(width, heads, "n h (f p) d -> (n p) h f d")
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.norm3 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.timeattn(self.norm3(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class DividedAttention(nn.Module):
    """A patch reads those of its own place (or its own time) and the CLS token; CLS reads everything.

    Args:
        width: D.
        heads: of the attention.
        divide: tokens "n h (f p) d" to groups that read each other.
    """

    def __init__(self, width: int, heads: int, divide: str) -> None:
        super().__init__()
        self.heads, self.divide = heads, divide
        self.unite = " -> ".join(reversed(divide.split(" -> ")))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t d"], steps: int = 8) -> Float[Tensor, "n t d"]:
        sizes = {"n": len(x), "f": steps}
        q, k, v = rearrange(self.qkv(x), "n t (three h d) -> three n h t d", three=3, h=self.heads)
        cls = softmax_average(q[:, :, :1], k, v)

        def with_cls(tokens: Tensor) -> Tensor:
            groups = rearrange(tokens[:, :, 1:], self.divide, f=steps)
            own = repeat(tokens[:, :, :1], "n h one d -> (n r) h one d", r=len(groups) // len(x))
            return torch.cat([own, groups], 2)

        patches = softmax_average(rearrange(q[:, :, 1:], self.divide, f=steps), with_cls(k), with_cls(v))
        out = torch.cat([cls, rearrange(patches, self.unite, **sizes)], 2)
        return self.proj(rearrange(out, "n h t d -> n t (h d)"))


class Gather(nn.Module):
    """One pre-norm transformer layer whose CLS token reads P tokens and stands for them.

    Only that token is computed beyond keys and values: the others' outputs are never used.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Float[Tensor, "n f p d"]) -> Float[Tensor, "n f d"]:
        tokens = rearrange(x, "n f p d -> (n f) p d")
        cls = self.cls_token.expand(len(tokens), -1, -1)
        tokens = self.norm1(torch.cat([cls, tokens], 1))
        cls = cls + self.self_attn(tokens[:, :1], tokens, tokens, need_weights=False)[0]
        cls = cls + self.linear2(F.gelu(self.linear1(self.norm2(cls))))
        return rearrange(cls, "(n f) 1 d -> n f d", n=len(x))


# sound ----------------------------------------------------------------------------------------------------------------


class Listener(nn.Module):
    """AST over patches of 16 x 16 every 10, then each time step's 12 frequencies gathered in one token."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.ast = AST(width, depth, heads)
        self.freq_attn_agg = Gather(width, heads)

    def forward(self, mel: Float[Tensor, "n 128 66"]) -> Float[Tensor, "n 6 d"]:
        return self.freq_attn_agg(rearrange(self.ast(mel), "n (p f) d -> n f p d", f=6))


class AST(nn.Module):
    """Audio Spectrogram Transformer (Gong et al. 2021), under Hugging Face's names; gives the patches' tokens."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embeddings = ASTEmbeddings(width)
        self.encoder = nn.ModuleDict({"layer": nn.Sequential(*(ASTLayer(width, heads) for _ in range(depth)))})
        self.layernorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, mel: Float[Tensor, "n 128 66"]) -> Float[Tensor, "n 72 d"]:
        return self.layernorm(self.encoder["layer"](self.embeddings(mel))[:, 2:])


class ASTEmbeddings(nn.Module):
    """Patches of the spectrogram behind two tokens, with their learned positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + 12 * 6, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, width, 16, 10)})

    def forward(self, mel: Float[Tensor, "n 128 66"]) -> Float[Tensor, "n 74 d"]:
        patches = rearrange(self.patch_embeddings["projection"](mel[:, None]), "n d p f -> n (p f) d")
        tokens = torch.cat([self.cls_token, self.distillation_token], 1).expand(len(mel), -1, -1)
        return torch.cat([tokens, patches], 1) + self.position_embeddings


class ASTLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = ASTAttention(width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width)})
        self.layernorm_before = nn.LayerNorm(width, eps=1e-12)
        self.layernorm_after = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


class ASTAttention(nn.Module):
    """Attention of all tokens to all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        a = self.attention
        return self.output["dense"](attend(a["query"](x), a["key"](x), a["value"](x), self.heads))


def attend(
    q: Float[Tensor, "n t d"], k: Float[Tensor, "n t d"], v: Float[Tensor, "n t d"], heads: int
) -> Float[Tensor, "n t d"]:
    """Softmax attention of all tokens to all."""
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=heads) for x in (q, k, v))
    return rearrange(softmax_average(q, k, v), "n h t d -> n t (h d)")


def softmax_average(
    q: Float[Tensor, "n h t d"], k: Float[Tensor, "n h s d"], v: Float[Tensor, "n h s d"]
) -> Float[Tensor, "n h t d"]:
    """Scaled dot-product attention; for few queries two plain products, as torch's CPU kernel is slow there in bf16."""
    if q.shape[2] > 8:
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3) @ v


# both -----------------------------------------------------------------------------------------------------------------


class Comparison(nn.Module):
    """A transformer of 3 layers over OFF, the 112 tokens seen, MOD, the 84 heard; the class is read at OFF."""

    def __init__(self, width: int, depth: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.vis_in_lnorm = nn.LayerNorm(width)
        self.aud_in_lnorm = nn.LayerNorm(width)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": torch.zeros(1, 2 + SEGMENTS * (8 + 6), width)})
        self.blocks = nn.ModuleList(ComparisonBlock(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.off_head = nn.Linear(width, CLASSES)

    def forward(self, seen: Float[Tensor, "b 112 d"], heard: Float[Tensor, "b 84 d"]) -> Float[Tensor, "b 21"]:
        off, mod = (token.expand(len(seen), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([off, self.vis_in_lnorm(seen), mod, self.aud_in_lnorm(heard)], 1)
        x = x + self.pos_emb_cfg["pos_emb"]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x[:, 0]))


class ComparisonBlock(nn.Module):
    """A pre-norm transformer layer, under minGPT's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({n: nn.Linear(width, width) for n in ("key", "query", "value", "proj")})
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        h, a = self.ln1(x), self.attn
        x = x + a["proj"](attend(a["query"](h), a["key"](h), a["value"](h), self.heads))
        return x + self.mlp(self.ln2(x))
