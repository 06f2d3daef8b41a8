"""Clips of noise and parts without weights: what a step is measured on where neither data nor backbones are at hand.

B clips of a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ccl.callbacks import TaskRouter
from ccl.codecs.base import AudioCodec, VideoCodec
from ccl.grid import Grid
from ccl.image import ImageEncoder
from ccl.model.image import Shown
from ccl.planning.follow import extras
from ccl.tasks import Task
from ccl.text.base import TextEncoder
from ccl.types import AV, VOICE, VOICE_SECONDS, Batch

PROMPT = 'A woman in front of a blue wall says "we like to eat bread"'


class MadeUp(LightningDataModule):
    """One batch of noise, again and again: nothing is read, so a step's `data` is what it takes to hand a batch over.

    Args:
        grid: of the clips.
        codec: not looked at; a data module of `ccl fit` is handed one.
        batch_size: B.
    """

    def __init__(self, grid: Grid, codec: Any = None, batch_size: int = 1) -> None:
        super().__init__()
        self.grid, self.batch_size = grid, batch_size
        self.needs: tuple[str, ...] = ()

    def serve(self, streams: AV[bool], text: TextEncoder, needs: tuple[str, ...]) -> None:
        self.needs = needs

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        return DataLoader(Repeated(self.batch()), batch_size=None)

    def batch(self) -> Batch:
        """What a batch of the network's clips brings."""
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        net, _ = module.built
        size, random = self.batch_size, torch.Generator().manual_seed(0)
        shapes = AV((self.grid.t_v, self.grid.latent_height, self.grid.latent_width), (self.grid.t_a,))
        latents = AV.zip(
            lambda ends, c, shape: torch.randn(size, c, *shape, generator=random), net.ends, net.channels, shapes
        )
        more = extras(net, self.grid, size)
        if "image" in more:  # unlike the others it is memory as it was found
            more["image"] = Shown(*(torch.randn(part.shape, generator=random) for part in more["image"]))
        if VOICE in self.needs:
            more[VOICE] = torch.randn(size, round(VOICE_SECONDS * self.grid.sample_rate), generator=random)
        return Batch([f"clip{i}" for i in range(size)], [PROMPT] * size, latents=latents, extras=more)


class Repeated(IterableDataset[Batch]):
    """A batch without end."""

    def __init__(self, batch: Batch) -> None:
        self.one = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.one


class InTurn(TaskRouter):
    """Each task that is ever drawn, one after the other: the step that needs most is among them."""

    def route(self, tasks: Mapping[str, Task], *, seed: int, step: int, place: int) -> str:
        drawn = [name for name, task in tasks.items() if task.prob]
        return drawn[step % len(drawn)]


class NoWeightsError(RuntimeError):
    """A part without weights was asked for what it has not."""

    def __init__(self) -> None:
        super().__init__("this part stands for another's shape and computes nothing")


class MadeUpVideo(VideoCodec):
    """A video codec's numbers.

    Args:
        channels: of its latents.
        stride_time: pictures a latent frame.
        stride_space: pixels a latent one, each way.
    """

    identity = "made up"

    def __init__(self, channels: int, stride_time: int, stride_space: int) -> None:
        super().__init__()
        self.channels, self.stride_time, self.stride_space = channels, stride_time, stride_space

    def encode(self, video: Tensor) -> Tensor:
        raise NoWeightsError

    def decode(self, z: Tensor) -> Tensor:
        raise NoWeightsError


class MadeUpAudio(AudioCodec):
    """An audio codec's numbers; any sound becomes noise, as a reference voice must be encoded in a step.

    Args:
        channels: of its latents.
        sample_rate: of the sound.
        latent_rate: latents a second.
    """

    identity = "made up"

    def __init__(self, channels: int, sample_rate: int, latent_rate: float) -> None:
        super().__init__()
        self.channels, self.sample_rate, self.latent_rate = channels, sample_rate, latent_rate

    def encode(self, audio: Tensor, length: int) -> Tensor:
        return torch.randn(len(audio), self.channels, length, device=audio.device)

    def decode(self, z: Tensor) -> Tensor:
        raise NoWeightsError


class MadeUpText(TextEncoder):
    """Noise in the place of states of prompts, as many as there can be.

    Args:
        dim: of a state.
        length: states of a prompt.
    """

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.register_buffer("_states", torch.randn(length, dim), persistent=False)

    def forward(self, prompts: list[str]) -> Tensor:
        states: Tensor = self.get_buffer("_states")
        return states.expand(len(prompts), -1, -1)


class MadeUpImage(ImageEncoder):
    """An image encoder where what it would say is at hand."""

    def forward(self, pictures: Tensor) -> Tensor:
        raise NoWeightsError
