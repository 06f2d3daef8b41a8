"""The embedded world as shards, and shards as latents: what the verbs `ccl shards world` and `encode` do."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccl.data.archive import Report
from ccl.data.sources import Source
from ccl.data.write import write_shards
from ccl.grid import Grid
from ccl.progress import bar
from ccl.spelling import counted

if TYPE_CHECKING:
    from ccl.codecs.base import Codec
    from ccl.data.shards import Extras
    from ccl.text.base import TextEncoder


def shards_world(
    out: str | Path,
    *,
    clips: int = 1024,
    start: int = 0,
    seed: int = 0,
    split: Literal["train", "test"] = "train",
    grid: Grid | None = None,
    shard_size: int = 256,
    workers: int = 2,
) -> Report:
    """What `ccl shards world` does: clips of the embedded talking world as real mp4 in real shards.

    Args:
        out: where the shards go.
        clips: how many.
        start: index of the first.
        seed: another seed, another world.
        split: train or test (200 clips), which share neither sentences nor looks.
        grid: rate, size and length.
        shard_size: clips a tar file.
        workers: processes that make clips.
    """
    grid = grid or Grid()
    sources = world_sources(grid, clips, start=start, seed=seed, split=split)
    with bar(f"{counted(clips, 'clip')} of the world", said=True) as advance:
        return write_shards(sources, out, grid, shard_size=shard_size, workers=workers, progress=advance)


def world_sources(
    grid: Grid, clips: int, *, start: int = 0, seed: int = 0, split: Literal["train", "test"] = "train"
) -> list[Source]:
    """Clips of the world as sources whose fingerprint is the world's code: shards of an older one are not reused."""
    from ccl.data.world import World

    version = world_version()
    return [Source(s.id, s.load, version) for s in World(seed, split, grid).sources(clips, start)]


def known_of(grid: Grid, seed: int, needs: Collection[str]) -> Extras | None:
    """What is known of the world's training clips, of what a model needs: masks of faces, reference voices.

    Returns:
        That which tells as much of it as there is; None where nothing is asked for.
    """
    from ccl.data.shards import Together
    from ccl.data.world.faces import Faces
    from ccl.data.world.voices import Voices
    from ccl.data.world.world import World

    world = World(seed, "train", grid)
    parts: list[Extras] = [part for part in (Faces(world), Voices(world)) if set(part.names) & set(needs)]
    return Together(tuple(parts)) if parts else None


def world_version() -> str:
    """A hash of the code that draws the world, and of that which codes its clips."""
    digest = hashlib.sha256()
    there = [file for file in files("ccl.data.world").iterdir() if file.name.endswith(".py")]
    code = [file for file in there if file.name not in ("faces.py", "voices.py")]  # which draw nothing
    for file in (*sorted(code, key=lambda file: file.name), files("ccl.media") / "write.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def shards_encode(
    shards: str | Path,
    out: str | Path,
    *,
    codec: Codec,
    grid: Grid | None = None,
    text: TextEncoder | None = None,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    batch_size: int = 8,
    devices: Sequence[str] = ("cpu",),
    engine: Literal["processes", "ray"] = "processes",
) -> Report:
    """What `ccl shards encode` does: clips encoded once, so that training skips the codecs and the text encoder.

    Args:
        shards: a folder of media shards.
        out: where the latents go.
        codec: what encodes.
        grid: of the clips.
        text: encodes the prompts; None leaves them to training.
        dtype: of what is stored.
        batch_size: clips encoded together.
        devices: one for each worker.
        engine: processes of this machine, or a cluster of Ray.
    """
    from ccl.data.encode import encode_shards

    how: dict[str, Any] = {"text": text, "dtype": dtype, "batch_size": batch_size, "devices": devices, "engine": engine}
    with bar(f"latents of {Path(shards).name}", said=True) as advance:
        return encode_shards(shards, out, codec, grid or Grid(), **how, progress=advance)
