"""Clips that a model is looked at with, which its training has not seen: of the talking world, or of shards.

B clips, F pictures, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccl.codecs.base import Codec
from ccl.data.datamodule import ShardData, WorldData
from ccl.data.shards import collate
from ccl.data.world import World
from ccl.data.world.script import Split
from ccl.data.world.world import TEST_PAIRS
from ccl.generation.given import film, sound
from ccl.grid import Grid
from ccl.media import Clip
from ccl.text.states import TextStates
from ccl.types import AV, Batch

AT_ONCE = 16

UNSEEN = 10**6
"""The first clip of the world's training split that no training is thought to have come to."""


def world_clips(
    grid: Grid, count: int, *, split: Split = "test", seed: int = 0, figures: bool = False, first: int = 0
) -> Iterator[Clip]:
    """Clips of the world in which somebody speaks and that nobody has trained on, one by one.

    Args:
        grid: of the clips.
        count: how many.
        split: "test": other sentences, other looks; "train": those of training in new clips.
        seed: of the world.
        figures: of the test split, a portrait and a figure in turn; else a sentence comes once, while there are any.
        first: clip of the test split that comes before the others.

    Raises:
        ValueError: there are fewer.
    """
    world = World(seed, split, grid)
    indices: Iterable[int]
    if split == "test":
        if count > len(world):
            raise ValueError(f"the world's test split has {len(world)} clips; {count} were asked for")
        order = [i // 2 + TEST_PAIRS * (i % 2) if figures else i for i in range(len(world))]
        indices = [first, *(i for i in order if i != first)]
    else:
        indices = (i for i in range(UNSEEN, 2 * UNSEEN) if world.subset(i) != "event")
    return (world.clip(index) for index in islice(indices, count))


def own_clip(path: Path, prompt: str, grid: Grid) -> Clip:
    """A file's pictures and sound as a model of that grid takes them, and its prompt.

    Raises:
        ValueError: it cannot be read, or lacks pictures or sound.
    """
    return Clip(film(path, grid, []), sound(path, grid, []), grid.fps, grid.sample_rate, prompt, path.stem)


def batch_of(clips: Iterable[Clip]) -> Batch:
    """Clips as a loader yields them."""
    return collate([{"id": c.id, "prompt": c.prompt, "video": c.video, "audio": c.audio} for c in clips])


def shard_batches(folder: Path, grid: Grid, codec: Codec, streams: AV[bool], size: int = 16) -> Iterator[Batch]:
    """The clips of a folder of shards, in their order.

    Raises:
        ValueError: it is none, or holds clips of another grid, or latents of another codec.
    """
    data = ShardData(str(folder), grid, codec, batch_size=size, val_shards=str(folder))
    data.streams = streams
    return iter(data.val_dataloader())


def unseen_of(data: Any, count: int) -> Iterator[Batch]:
    """Clips that a training does not learn from: those it validates on, or else, of the world, its test split's."""
    if getattr(data, "val_shards", None) is not None:
        yield from data.val_dataloader()
    elif isinstance(data, WorldData):
        clips = world_clips(data.grid, count)
        while some := list(islice(clips, AT_ONCE)):
            yield batch_of(some)


@torch.no_grad()
def latents_of(batch: Batch, codec: Codec, grid: Grid, streams: AV[bool], device: torch.device | str) -> AV[Any]:
    """Latents of a batch, float32; None for a stream that is not asked for."""
    given = batch.media if batch.latents is None else batch.latents
    assert given is not None
    given = AV(*(x.to(device).float() if asked else None for x, asked in zip(given, streams, strict=True)))
    if batch.latents is not None:
        return given
    with torch.autocast(torch.device(device).type, enabled=False):
        pictures: Tensor | None = None if given.video is None else given.video / 127.5 - 1
        z: AV[Any] = codec.encode(AV(pictures, given.audio), replace(grid, **batch.grid))
    return z.map(lambda x: x.float())


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some clips of a batch."""
    text = batch.text and TextStates([batch.text.prompts[i] for i in rows], batch.text.empty, batch.text.length)
    media, latents = (pair and pair.map(lambda x: x[list(rows)]) for pair in (batch.media, batch.latents))
    extras = {name: x[list(rows)] for name, x in batch.extras.items()}
    ids, prompts = [batch.id[i] for i in rows], [batch.prompt[i] for i in rows]
    return Batch(ids, prompts, media, latents, text, batch.grid, extras)
