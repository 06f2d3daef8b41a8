"""Captions and clips of a folder of shards, for a test set: names and bytes as they lie there, nothing is decoded."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccl.data.archive import BUCKETS, INDEX, buckets_in, read_index
from ccl.files import FileError, plain_name, reading, write_whole


class Captioned(NamedTuple):
    """A clip of a shard: whose member `key`.mp4 of `shard` it is, where the shards hold clips and not latents."""

    id: str
    prompt: str
    shard: Path
    key: str
    crc32: int | None


def is_shards(folder: Path) -> bool:
    """Whether a folder is one of shards, or of buckets of them."""
    return (folder / INDEX).is_file() or (folder / BUCKETS).is_file()


def captioned(folder: Path) -> Iterator[Captioned]:
    """The clips of a folder of shards, in the order in which validation reads them.

    Raises:
        FileError: naming the file, where the index or a shard cannot be read.
    """
    for bucket in buckets_in(folder):
        index = folder / bucket / INDEX
        media = read_index(index)["settings"]["kind"] == "media"
        for shard in read_index(index)["shards"]:
            path = folder / bucket / plain_name(shard["name"], index)
            with reading(path, "a shard"), tarfile.open(path, "r:") as tar:
                for member in tar:
                    key, _, ending = member.name.rpartition(".")
                    if ending == "json" and (file := tar.extractfile(member)) is not None:
                        said = json.loads(file.read())
                        crc32 = said["crc32"]["mp4"] if media else None
                        yield Captioned(_text(said, "id"), _text(said, "prompt"), path, key, crc32)


def write_clips(clips: Mapping[Captioned, Path]) -> None:
    """Write the clips' bytes to these files; those that are there already are left.

    Raises:
        FileError: a shard cannot be read, lacks a clip, or holds another than its sum says.
    """
    there = [file.is_file() and zlib.crc32(file.read_bytes()) == clip.crc32 for clip, file in clips.items()]
    wanted = {(c.shard, c.key): (c, file) for (c, file), yes in zip(clips.items(), there, strict=True) if not yes}
    for path in dict.fromkeys(shard for shard, _ in wanted):
        with reading(path, "a shard"), tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.rpartition(".")
                if ending != "mp4" or (path, key) not in wanted or (file := tar.extractfile(member)) is None:
                    continue
                clip, target = wanted.pop((path, key))
                data = file.read()
                if zlib.crc32(data) != clip.crc32:
                    raise FileError(f"{path}: the mp4 of clip {clip.id} is corrupt (its checksum differs)")
                write_whole(target, data)
    for clip, _ in wanted.values():
        raise FileError(f"{clip.shard}: the mp4 of clip {clip.id} is missing")


def _text(said: dict[str, Any], key: str) -> str:
    if not isinstance(said[key], str):
        raise ValueError(f"the {key} of a clip is no text")
    return said[key]
