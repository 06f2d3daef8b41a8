"""Buckets: clips of several lengths and shapes in one training, each batch from one of them.

A bucket is a grid, and a folder of shards named after it, as 81x352x640: frames, height, width. A clip goes into the
bucket nearest in aspect, the longest that it fills. Of mixed data, clips without sound go into 81x352x640_video, and
sound alone, which has no shape, into 81_audio. How they are read stands in bucketed.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ccl.grid import Grid
from ccl.media import Clip, MediaError, first_picture, read_clip
from ccl.types import AV

BOTH = AV(True, True)


class Bucket(NamedTuple):
    """What clips of a folder of shards have in common: a grid, and which streams they have."""

    grid: Grid
    streams: AV[bool] = BOTH


def bucket_name(grid: Grid, streams: AV[bool] = BOTH) -> str:
    """Of its folder."""
    if not streams.video:
        return f"{grid.frames}_audio"
    return f"{grid.frames}x{grid.height}x{grid.width}" + ("" if streams.audio else "_video")


def parse_buckets(texts: Sequence[str], usual: Grid) -> list[Grid]:
    """Grids of texts as "81x352x640", the rest as in `usual`.

    Raises:
        ValueError: in words that name the text.
    """
    grids = []
    for text in texts:
        if not re.fullmatch(r"\d+x\d+x\d+", text):
            raise ValueError(f"bucket {text} is not FRAMESxHEIGHTxWIDTH, such as 81x352x640")
        frames, height, width = map(int, text.split("x"))
        try:
            grids.append(replace(usual, frames=frames, height=height, width=width))
        except ValueError as error:
            raise ValueError(f"bucket {text}: {error}") from error
    if len(set(grids)) < len(grids):
        raise ValueError(f"buckets {' '.join(texts)}: one is named twice")
    return grids


def candidates(grids: Sequence[Grid], height: int, width: int) -> list[Grid]:
    """Buckets for a picture of this size, the best first: those nearest in aspect, the longest first, one a length."""

    def distance(grid: Grid) -> float:
        return round(abs(math.log(grid.width / grid.height * height / width)), 6)

    def size(grid: Grid) -> float:
        return abs(math.log(grid.height * grid.width / (height * width)))

    nearest = min(map(distance, grids))
    ordered = sorted((grid for grid in grids if distance(grid) == nearest), key=lambda g: (-g.seconds, size(g)))
    return [grid for i, grid in enumerate(ordered) if i == 0 or grid.seconds < ordered[i - 1].seconds]


def read_into_bucket(
    path: str | Path, *, grids: Sequence[Grid], prompt: str, id: str, require: AV[bool] = BOTH
) -> Clip:
    """A file as a clip of the best bucket that it fills; sound alone of the longest.

    Raises:
        MediaError: as `read_clip`; it is too short even for the shortest.
    """
    # The length that a header gives is often wrong: the longest bucket that can be read is the one.
    ordered = sorted(grids, key=lambda grid: -grid.seconds)
    if require.video:
        ordered = candidates(grids, *first_picture(path).shape[:2])
    short: MediaError | None = None
    for grid in ordered:
        try:
            return read_clip(path, grid=grid, prompt=prompt, id=id, require=require)
        except MediaError as error:
            if "too short" not in error.reason:
                raise
            short = error
    assert short is not None
    raise short
