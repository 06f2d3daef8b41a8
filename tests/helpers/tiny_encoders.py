"""Codecs and a text encoder for tests that send them to other processes: few imports, for each process pays them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import Tensor

from ccl.codecs.base import AudioCodec, VideoCodec
from ccl.text.base import TextEncoder


class MeanVideo(VideoCodec):
    """Means of blocks of 8 x 8 pixels, of every fourth picture, repeated over 4 channels."""

    channels, stride_time, stride_space = 4, 4, 8

    def encode(self, video: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool3d(video[:, :1, ::4], (1, 8, 8)).expand(-1, self.channels, -1, -1, -1)

    def decode(self, z: Tensor) -> Tensor:
        return z

    @property
    def identity(self) -> str:
        return "mean-video"


class MeanAudio(AudioCodec):
    """Means of 512 samples, repeated over 6 channels."""

    channels, sample_rate, latent_rate = 6, 16_000, 31.25

    def encode(self, audio: Tensor, length: int) -> Tensor:
        means = torch.nn.functional.avg_pool1d(audio[:, None], 512)[..., :length]
        return torch.nn.functional.pad(means, (0, length - means.shape[-1])).expand(-1, self.channels, -1)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, 0]

    @property
    def identity(self) -> str:
        return "mean-audio"


class Dying(MeanVideo):
    """Kills its process at the second batch that any worker has, and never again.

    Args:
        folder: where that is noted.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)

    def encode(self, video: Tensor) -> Tensor:
        if not self._first("begun") and self._first("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(video)

    def _first(self, name: str) -> bool:
        try:
            (self.folder / name).mkdir()
        except FileExistsError:
            return False
        return True


class FrozenText(TextEncoder):
    """A state a word, by its length, and one for the end; zeros after it."""

    dim, length = 8, 6

    def __init__(self, name: str = "frozen-1") -> None:
        super().__init__()
        self.name = name

    def forward(self, prompts: list[str]) -> Tensor:
        states = torch.zeros(len(prompts), self.length, self.dim)
        for row, prompt in enumerate(prompts):
            for place, word in enumerate([*prompt.split(), "<end>"][: self.length]):
                states[row, place] = torch.randn(self.dim, generator=torch.Generator().manual_seed(len(word)))
        return states

    @property
    def identity(self) -> str:
        return self.name
