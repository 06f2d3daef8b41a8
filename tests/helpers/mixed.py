"""Mixed data for tests: every third clip is mute, and as many sounds stand alone as are asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from ccl.data.encode import encode_shards
from ccl.data.sources import Source
from ccl.data.write import write_shards
from ccl.media import Clip
from helpers.fakes import GRID, make_codec
from helpers.tiny_clips import tiny_clip


def mixed_clip(number: int, kind: str) -> Clip:
    clip = replace(tiny_clip(number, GRID), id=f"{kind}{number}")
    return clip if kind == "both" else replace(clip, **{"audio" if kind == "video" else "video": None})


def mixed_sources(sounding: int, mute: int, heard: int = 0) -> list[Source]:
    """The sounding clips are the same, whatever stands between them."""
    kinds = {"both": sounding, "video": mute, "audio": heard}
    named = sorted((number / count, kind, number) for kind, count in kinds.items() for number in range(count))
    return [Source(f"{kind}{number}", partial(mixed_clip, number, kind)) for _, kind, number in named]


def make_mixed(folder: Path, sounding: int = 8, mute: int = 4, heard: int = 0) -> Path:
    """Shards of latents, in buckets by kind."""
    write_shards(mixed_sources(sounding, mute, heard), folder / "media", GRID, shard_size=4, mixed=True)
    encode_shards(folder / "media", folder / "latents", make_codec(), GRID)
    return folder / "latents"
