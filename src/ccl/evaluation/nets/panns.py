"""PANNs' Cnn14 at 16 kHz (Kong et al. 2020, arXiv 1912.10211), under the published file's own keys.

The file holds its spectrogram too: the windowed Fourier transform as two convolutions, and the mel bands.
B sounds of S samples, T frames, 64 mel bands; 2048 features and 527 classes of AudioSet.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ccl.evaluation.nets.filled import filled

RATE, FFT, HOP, BANDS, WIDTH, CLASSES = 16_000, 512, 160, 64, 2048, 527
CHANNELS = (1, 64, 128, 256, 512, 1024, 2048)
LEAST = 31 * HOP  # samples: five halvings need 32 frames
FAINTEST = 1e-10  # power


class Cnn14(nn.Module):
    """Sounds to features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram_extractor = nn.ModuleDict({"stft": Fourier()})
        self.logmel_extractor = nn.ParameterDict({"melW": torch.zeros(FFT // 2 + 1, BANDS)})
        self.bn0 = nn.BatchNorm2d(BANDS)
        for number, (before, after) in enumerate(pairwise(CHANNELS), 1):
            self.add_module(f"conv_block{number}", Block(before, after))
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc_audioset = nn.Linear(WIDTH, CLASSES)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Cnn14:
        """The network of these weights; ValueError where they are not Cnn14's."""
        return filled(cls, state, "Cnn14")

    def spectrogram(self, sounds: Float[Tensor, "b s"]) -> Float[Tensor, "b 1 t m"]:
        """Decibels of power in mel bands; frames are centred and the ends reflected."""
        with torch.autocast(sounds.device.type, enabled=False):  # in bf16 faint bands drown in the loud ones' rounding
            power = self.spectrogram_extractor["stft"](F.pad(sounds[:, None], (FFT // 2, FFT // 2), mode="reflect"))
            bands = power.transpose(1, 2) @ self.logmel_extractor["melW"]
        return 10 * bands.clamp(min=FAINTEST).log10()[:, None]

    def forward(self, sounds: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b 2048"], Float[Tensor, "b 527"]]:
        """Features, the last but one layer, and logits."""
        x = self.bn0(self.spectrogram(sounds).transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(CHANNELS)):
            x = self.get_submodule(f"conv_block{number}")(x)
            x = F.avg_pool2d(x, 2) if number < len(CHANNELS) - 1 else x
        x = x.mean(3)
        features = F.relu(self.fc1(x.max(2).values + x.mean(2)))
        return features, self.fc_audioset(features)


class Fourier(nn.Module):
    """The power of frames' windowed Fourier transforms, whose waves are kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_real, self.conv_imag = (nn.Conv1d(1, FFT // 2 + 1, FFT, HOP, bias=False) for _ in range(2))

    def forward(self, x: Float[Tensor, "b 1 s"]) -> Float[Tensor, "b k t"]:
        return self.conv_real(x).square() + self.conv_imag(x).square()


class Block(nn.Module):
    """Two convolutions, each normalised."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

    def forward(self, x: Float[Tensor, "b c t m"]) -> Float[Tensor, "b d t m"]:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
