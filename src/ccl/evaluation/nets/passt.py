"""PaSST (Koutini et al. 2021, arXiv 2110.05069), under the published file's own keys: a ViT over a log mel spectrogram.

Its patches overlap; their positions in time and in frequency are learned apart, and a shorter sound has the first of
those in time. Patchout, which names it, is of training alone.

B sounds of S samples at 32 kHz, T frames of 128 mel bands, N patches, D = 768; 527 classes of AudioSet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.dsp.banks import mel_bands
from ccl.evaluation.nets.filled import filled

RATE, WINDOW, HOP, FFT, BANDS = 32_000, 800, 320, 1024, 128
HIGHEST = 15_000.0  # Hz
PREEMPHASIS = 0.97
FAINTEST = 1e-5  # power, before the logarithm
MIDDLE, SPREAD = -4.5, 5.0  # of the logarithm
WIDTH, CLASSES, HEADS = 768, 527, 12
PATCH, STRIDE, ROWS, COLUMNS = 16, 10, 12, 99  # of the spectrogram: frequency, and time in 10 s
LEAST = (PATCH - 1) * HOP + 1  # samples: one patch
WHOLE = 10 * RATE  # samples, which it was trained on
EPS = 1e-6


class PaSST(nn.Module):
    """Sounds of at most 10 s to features and logits.

    Args:
        depth: of the transformer, in blocks.
    """

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.cls_token, self.dist_token = (nn.Parameter(torch.zeros(1, 1, WIDTH)) for _ in range(2))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, WIDTH))  # of these two tokens
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, WIDTH, ROWS, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, WIDTH, 1, COLUMNS))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, WIDTH, PATCH, STRIDE)})
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm = nn.LayerNorm(WIDTH, EPS)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES))  # the norm at PyTorch's 1e-5
        self.head_dist = nn.Linear(WIDTH, CLASSES)  # stored, never used

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> PaSST:
        """The network of these weights, as deep as they are; ValueError where they are not PaSST's."""
        depth = sum(re.fullmatch(r"blocks\.\d+\.norm1\.bias", key) is not None for key in state)
        return filled(lambda: cls(depth), state, "PaSST")

    def forward(self, sounds: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b 768"], Float[Tensor, "b 527"]]:
        """Features, the mean of the two tokens, and logits."""
        patches = self.patch_embed["proj"](spectrogram(sounds)[:, None])
        patches = patches + self.freq_new_pos_embed + self.time_new_pos_embed[..., : patches.shape[3]]
        tokens = torch.cat([self.cls_token, self.dist_token], 1) + self.new_pos_embed
        x = torch.cat([tokens.expand(len(sounds), -1, -1), rearrange(patches, "b d f t -> b (f t) d")], 1)
        features = self.norm(self.blocks(x)[:, :2]).mean(1)
        return features, self.head(features)


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, EPS), nn.LayerNorm(WIDTH, EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(self.attn["qkv"](self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=HEADS)
        x = x + self.attn["proj"](rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def spectrogram(sounds: Float[Tensor, "b s"]) -> Float[Tensor, "b 128 t"]:
    """Scaled logarithms of power in Kaldi's mel bands, of a pre-emphasised sound; frames are centred, the ends
    reflected."""
    raised = sounds[:, 1:] - PREEMPHASIS * sounds[:, :-1]
    hann = torch.hann_window(WINDOW, periodic=False, device=sounds.device)
    waves = torch.stft(raised, FFT, HOP, WINDOW, hann, center=True, pad_mode="reflect", return_complex=True)
    bands = torch.from_numpy(mel_bands("kaldi", RATE, FFT, BANDS, 0.0, HIGHEST)).to(sounds)
    with torch.autocast(sounds.device.type, enabled=False):
        return ((bands @ waves.abs().square() + FAINTEST).log() - MIDDLE) / SPREAD
