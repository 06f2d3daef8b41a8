"""Small stand-ins for tests of training: a network of real parts at toy size, and data that a rank can split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ccl.callbacks import TaskRouter
from ccl.codecs.base import AudioCodec, Codec, VideoCodec
from ccl.data.datamodule import ShardData
from ccl.data.encode import encode_shards
from ccl.data.sources import Source
from ccl.data.write import write_shards
from ccl.grid import Grid
from ccl.interaction.align import TARP
from ccl.interaction.base import Interaction, Site
from ccl.interaction.cca import CCA
from ccl.interaction.gate import Gate
from ccl.interaction.harmony import Harmony
from ccl.interaction.ltx2 import LTX2Attention
from ccl.interaction.mova import MOVABridge
from ccl.interaction.uniavgen import UniAVGen
from ccl.media import Clip
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.stream import WanStream
from ccl.rng import generator
from ccl.text.embedded import EmbeddedText
from ccl.training.module import JointDiffusion
from ccl.training.optimizer import OptimizerConfig
from ccl.types import AV, Batch

GRID = Grid(frames=9, height=16, width=16)  # t_v 3, one token a frame; t_a 11
WIDE = Grid(frames=9, height=16, width=32)  # two tokens a frame, of which each of two processes may hold one
CHANNELS = AV(4, 6)


class TinyVideo(VideoCodec):
    """Every 4th picture, 8x8 means, repeated over 4 channels."""

    channels, stride_time, stride_space = CHANNELS.video, 4, 8

    def encode(self, video: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool3d(video[:, :1, ::4], (1, 8, 8)).expand(-1, self.channels, -1, -1, -1)

    def decode(self, z: Tensor) -> Tensor:
        frames = z.mean(1, keepdim=True).repeat_interleave(4, 2)[:, :, 3:]
        return frames.expand(-1, 3, -1, -1, -1).repeat_interleave(8, 3).repeat_interleave(8, 4).clamp(-1, 1)

    @property
    def identity(self) -> str:
        return "tiny-video"


class TinyAudio(AudioCodec):
    """Means of 512 samples, repeated over 6 channels."""

    channels, sample_rate, latent_rate = CHANNELS.audio, 16_000, 31.25

    def encode(self, audio: Tensor, length: int) -> Tensor:
        means = torch.nn.functional.avg_pool1d(audio[:, None], 512)[..., :length]
        return torch.nn.functional.pad(means, (0, length - means.shape[-1])).expand(-1, self.channels, -1)

    def decode(self, z: Tensor) -> Tensor:
        return z.mean(1).repeat_interleave(512, -1).clamp(-1, 1)

    @property
    def identity(self) -> str:
        return "tiny-audio"


def make_codec() -> Codec:
    return Codec(TinyVideo(), TinyAudio())


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cca": (CCA, {"num_context_audio": 2, "num_context_video": 3}),
    "gate": (Gate, {}),
    "harmony": (Harmony, {}),
    "mova": (MOVABridge, {"layers": 1, "train_scale": True}),
    "ltx2": (LTX2Attention, {}),
    "uniavgen": (UniAVGen, {"window": 1}),
}
ALIGNED = (CCA, Gate, Harmony)


def interaction(site: Site, kind: str = "cca") -> Interaction:
    cls, own = KINDS[kind]
    return cls(site, **({"align": TARP("proportional")} if cls in ALIGNED else {}), **own)


def make_net(kind: str = "cca", layers: int = 2, video: WanStream | None = None) -> DualStreamTransformer:
    return DualStreamTransformer(
        video=video or WanStream(width=16, ffn=32, channels=CHANNELS.video),
        audio=WanStream(width=8, ffn=16, channels=CHANNELS.audio),
        layers=layers,
        head_dim=8,
        text_dim=8,
        interaction=partial(interaction, kind=kind),
        freq_dim=16,
    )


def model_config(kind: str = "cca", layers: int = 2, grid: Grid = GRID) -> dict[str, Any]:
    """What a run's config.yaml says of make_net, make_text, make_codec and the grid."""
    align = {"class_path": "ccl.interaction.TARP", "init_args": {"centre": "proportional"}}
    cls, own = KINDS[kind]
    net = {
        "video": {"width": 16, "ffn": 32, "channels": CHANNELS.video},
        "audio": {"width": 8, "ffn": 16, "channels": CHANNELS.audio},
        "interaction": {
            "class_path": f"ccl.interaction.{cls.__name__}",
            "init_args": ({"align": align} if cls in ALIGNED else {}) | own,
        },
        **{"layers": layers, "head_dim": 8, "text_dim": 8, "freq_dim": 16},
    }
    text = {"dim": 8, "length": 6, "layers": 1, "heads": 2, "buckets": 64}
    return {
        "model": {
            "net": {"class_path": "ccl.model.DualStreamTransformer", "init_args": net},
            "text": {"class_path": "ccl.text.EmbeddedText", "init_args": text},
        },
        "codec": {
            "video": {"class_path": "helpers.fakes.TinyVideo"},
            "audio": {"class_path": "helpers.fakes.TinyAudio"},
        },
        "grid": {"frames": grid.frames, "height": grid.height, "width": grid.width},
        "sampling": {"steps": 2},
    }


def make_text() -> EmbeddedText:
    return EmbeddedText(dim=8, length=6, layers=1, heads=2, buckets=64)


def make_module(kind: str = "cca", layers: int = 2, grid: Grid = GRID, **kwargs: Any) -> JointDiffusion:
    optimizer = OptimizerConfig(lr=1e-2, lr_cross=1e-2, warmup_steps=2)
    kwargs = {"optimizer": optimizer} | kwargs
    return JointDiffusion(partial(make_net, kind, layers), make_text, make_codec(), grid, **kwargs)


def make_batch(index: int, rows: range, *, bad: int | None = None) -> Batch:
    """Rows of global batch `index`, the same whoever asks; row `bad` is not a number."""
    shapes = AV((CHANNELS.video, GRID.t_v, GRID.latent_height, GRID.latent_width), (CHANNELS.audio, GRID.t_a))
    latents = shapes.map(
        lambda shape: torch.stack([torch.randn(shape, generator=generator("data", len(shape), index, r)) for r in rows])
    )
    if bad is not None:
        latents.audio[bad] = float("nan")
    ids, prompts = [f"clip-{index}-{r}" for r in rows], [f'a man says "word {r}"' for r in rows]
    extras = {"face_mask": torch.stack([torch.from_numpy(FakeFaces()({"id": id}, GRID)["face_mask"]) for id in ids])}
    return Batch(ids, prompts, latents=latents, extras=extras)


class FakeFaces:
    """A face mask for every clip."""

    names = ("face_mask",)

    def __call__(self, sample: dict[str, Any], grid: Grid) -> dict[str, np.ndarray]:
        shape = (grid.t_v, grid.latent_height, grid.latent_width)
        return {"face_mask": torch.rand(shape, generator=generator("face", sample["id"])).numpy()}


class Batches(IterableDataset[Batch]):
    """Global batches 0, 1, 2, ... without end, of which each rank takes its rows."""

    def __init__(self, size: int, rank: int = 0, bad_from: int | None = None) -> None:
        self.size, self.rank, self.bad_from = size, rank, bad_from

    def __iter__(self) -> Iterator[Batch]:
        for index in count():
            bad = 1 if self.bad_from is not None and index >= self.bad_from else None
            yield make_batch(index, range(self.rank * self.size, (self.rank + 1) * self.size), bad=bad)


class FakeData(LightningDataModule):
    """Batches of latents, of `size` clips on each rank; row 1 is not a number from batch `bad_from` on."""

    def __init__(self, size: int = 4, bad_from: int | None = None) -> None:
        super().__init__()
        self.size, self.bad_from = size, bad_from

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        return DataLoader(Batches(self.size, self.trainer.global_rank, self.bad_from), batch_size=None)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        return []


def make_shards(folder: Path, clips: int = 24, grid: Grid = GRID) -> Path:
    """Shards of latents of small noisy clips, in a folder of their own."""
    rng = np.random.default_rng(0)

    def load(i: int) -> Clip:
        video = rng.integers(0, 255, (grid.frames, grid.height, grid.width, 3), dtype=np.uint8)
        audio = rng.uniform(-0.5, 0.5, grid.samples).astype(np.float32)
        return Clip(video, audio, grid.fps, grid.sample_rate, f'a man says "word {i}"', f"clip-{i}")

    sources = [Source(f"clip-{i}", partial(load, i)) for i in range(clips)]
    write_shards(sources, folder / "media", grid, shard_size=4)
    encode_shards(folder / "media", folder / "latents", make_codec(), grid)
    return folder / "latents"


def shard_data(
    folder: Path, num_workers: int = 0, size: int = 3, quota: dict[str, int] | None = None, grid: Grid = GRID
) -> ShardData:
    data = ShardData(str(folder), grid, make_codec(), size, num_workers, shuffle=5, quota=quota)
    data.extras = FakeFaces()
    return data


def fit(module: JointDiffusion, data: Any, folder: Path, **kwargs: Any) -> Trainer:
    options: dict[str, Any] = {"callbacks": [TaskRouter()], "max_steps": 3} | kwargs
    ckpt_path = options.pop("ckpt_path", None)
    options = {"logger": False, "enable_checkpointing": False} | options
    trainer = Trainer(
        accelerator="cpu", enable_progress_bar=False, max_epochs=-1,
        enable_model_summary=False, default_root_dir=folder, use_distributed_sampler=False, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer
