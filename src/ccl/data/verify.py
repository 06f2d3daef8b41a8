"""What `ccl shards verify` does: read a folder of shards whole, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ccl.data.index import INDEX, buckets_in, read_index, stored_grid
from ccl.data.shards import Shards
from ccl.files import FileError
from ccl.progress import bar


def shards_verify(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Every shard of a folder, or of its buckets, and what is wrong with it in a sentence; "" where nothing is.

    Sums and counts are compared with the index, each clip's files with its checksums; nothing is decoded.

    Raises:
        ValueError: an index is none, or a shard is missing or of another size.
    """
    opened = {}
    for name in buckets_in(Path(folder)):
        grid = stored_grid(read_index(Path(folder) / name / INDEX)["settings"])
        opened[name] = Shards(Path(folder) / name, grid, shuffle=0, endless=False)
    done, total = 0, sum(shards.index["samples"] for shards in opened.values())
    with bar(f"reading {Path(folder).name}", said=True) as advance:
        for name, shards in opened.items():
            seen: dict[str, str] = {}
            for shard in shards.counts:
                yield (Path(name) / shard).as_posix(), _fault(shards, shard, seen)
                done += shards.counts[shard]
                advance(done, total)


def _fault(shards: Shards, shard: str, seen: dict[str, str]) -> str:
    try:
        shards.verify(shard)
        for id in shards.ids(shard):
            if id in seen:
                return f"shard {shards.folder / shard}: its clip {id} is in {seen[id]} too"
            seen[id] = shard
    except FileError as error:
        return str(error)
    return ""
