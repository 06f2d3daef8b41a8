"""Folders of tar shards: the writer that keeps their index true, and the report of what was written.

index.partial.json stands in a folder before its first shard and says how far a run came; index.json is written last, so
a folder that has one is complete. Every file appears whole or not at all, so that after a kill at any moment the same
command goes on. The same samples give the same bytes, and so the same sha256, on every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from ccl.data.filters import cause
from ccl.data.index import (
    BUCKETS,
    INDEX,
    PARTIAL,
    Line,
    buckets_in,
    dump,
    read_index,
    settings_differ,
    uncaptioned,
    write_index,
)
from ccl.data.sources import SOUND, VIDEO
from ccl.files import FileError, replacing, sweep
from ccl.files.plaintext import printable
from ccl.spelling import counted


@dataclass(frozen=True)
class Report:
    """What a writer did. `print(report)` says it in a few lines, rich prints it as a table.

    Args:
        out: the folder.
        written: clips in the shards.
        skipped: (id, reason) of the others.
        shards: name, samples, bytes and sha256 of each.
        reused: the shards were there already, made of the same sources with the same settings.
        alone: how many clips of mixed data have one stream alone, by stream.
    """

    out: Path
    written: int
    skipped: list[tuple[str, str]]
    shards: list[Line]
    reused: bool = False
    alone: dict[str, int] = field(default_factory=dict)

    @property
    def removed(self) -> dict[str, int]:
        """How many clips each cause has removed, the greatest first."""
        return dict(Counter(cause(reason) for _, reason in self.skipped).most_common())

    @property
    def _written(self) -> str:
        return f"{counted(self.written, 'clip')} in {counted(len(self.shards), 'shard')}"

    def table(self) -> Table:
        size = sum(shard["bytes"] for shard in self.shards) / 2**20
        title = f"{self.out}: {self._written}, {size:.1f} MiB"
        table = Table("skipped", "reason", title=title + (" (already there)" if self.reused else ""))
        for id, reason in self.skipped:
            table.add_row(printable(id), reason)
        if not self.skipped:
            table.add_row("none", "")
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table()

    def __str__(self) -> str:
        lines = [f"{self.out}: {self._written}, {len(self.skipped)} skipped"]
        if count := uncaptioned(self.shards):
            lines.append(f"  without a caption, and with an empty prompt: {count}")
        lines += [f"  with {stream} alone: {count}" for stream, count in self.alone.items() if count]
        if self.skipped:
            lines.append("  " + ", ".join(f"{name}: {count}" for name, count in self.removed.items()))
        return "\n".join(lines + [f"  skipped {printable(id)}: {reason}" for id, reason in self.skipped])


class ShardWriter:
    """Fills tar files in order and keeps the books, so that a stopped run can go on. For the folder's one writer.

    Args:
        out: the folder.
        settings: all that the bytes depend on; kept in the index and compared by the next run.
        remakes: as of `begun`; who says so looks whether the writer `has` each shard, and may `put` it.

    Raises:
        ValueError: as `begun`.
    """

    def __init__(self, out: str | Path, settings: dict[str, Any], *, remakes: bool = False) -> None:
        self.out, self.settings = Path(out), settings
        self.index_path, self._partial_path = self.out / INDEX, self.out / PARTIAL
        self.shards: list[Line] = []
        self.skipped: list[tuple[str, str]] = []
        self.consumed = 0  # sources that the finished shards account for
        self.complete = False
        self._samples: list[tuple[str, dict[str, bytes]]] = []
        if (state := begun(self.out, self.settings, remakes=remakes)) is not None:
            self.shards, self.consumed = state["shards"], state["consumed"]
            self.skipped = [(id, reason) for id, reason in state["skipped"]]
            self.complete = self.index_path.is_file()

    @property
    def written(self) -> int:
        return sum(shard["samples"] for shard in self.shards)

    @property
    def pending(self) -> int:
        return len(self._samples)

    def add(self, id: str, files: dict[str, bytes]) -> None:
        """Files of one sample by ending."""
        self._samples.append((id, files))

    def flush(self, consumed: int) -> None:
        """Write the samples added since the last shard as one more, and note how many sources are dealt with."""
        self.consumed = consumed
        if self._samples:
            self.put(len(self.shards))
        else:
            self._save(self._partial_path)

    def has(self, number: int) -> bool:
        """Whether the shard of this number, from 0, is finished."""
        return any(line["name"] == tar_name(number) for line in self.shards)

    def put(self, number: int) -> None:
        """Write the samples added since the last shard as the one of this number."""
        self.shards.insert(number, write_tar(self.out / tar_name(number), self._samples))
        self._samples = []
        self._save(self._partial_path)

    def finish(self, consumed: int) -> None:
        """The index comes last: a folder with one is complete."""
        self.flush(consumed)
        self._save(self.index_path)
        self._partial_path.unlink(missing_ok=True)
        self.complete = True

    def _save(self, path: Path) -> None:
        write_index(path, self.settings, self.shards, skipped=self.skipped, consumed=self.consumed)


def begun(out: Path, settings: dict[str, Any], *, remakes: bool = False) -> dict[str, Any] | None:
    """The index of what lies in a folder, finished or not; None where nothing does, and then a run is begun there.

    For the folder's one writer: what a kill left half-written goes. Of who `remakes` shards that somebody has deleted,
    a folder that lacks one is no longer finished.

    Raises:
        ValueError: it was made with other settings or of other sources, holds foreign tar files, or a shard that was
            finished is not as its index says.
    """
    out.mkdir(parents=True, exist_ok=True)  # told before the work where it cannot be written
    sweep(out)
    finished = (out / INDEX).is_file()
    state = read_index(out / INDEX) if finished else read_index(out / PARTIAL) if (out / PARTIAL).is_file() else None
    if state is None and any(out.glob("*.tar")):
        raise ValueError(f"{out} holds tar files but no index.json; choose an empty folder")
    differing = settings_differ(settings, state["settings"]) if state else []
    if differing and (finished or any(out.glob("*.tar"))):
        raise ValueError(
            f"{out} already holds shards made with other {', '.join(differing)}; "
            "choose another folder or remove that one"
        )
    if state is None or differing:  # a run that came to nothing is in nobody's way
        write_index(out / PARTIAL, settings, [], skipped=[], consumed=0)
        return None
    there = [line for line in state["shards"] if (out / line["name"]).is_file()]
    if remakes and len(there) < len(state["shards"]):
        state["shards"], finished = there, False
        skipped = [(id, reason) for id, reason in state["skipped"]]
        write_index(out / PARTIAL, settings, there, skipped=skipped, consumed=state["consumed"])
        (out / INDEX).unlink(missing_ok=True)
    try:
        check_sizes(out, state["shards"])
    except FileError as error:
        what = "it" if remakes else out
        raise FileError(f"{error}, though it was finished; remove {what} and run the command again") from error
    if finished:
        (out / PARTIAL).unlink(missing_ok=True)
    return state


def tar_name(number: int) -> str:
    """Of the shard of this number, from 0."""
    return f"shard-{number:06d}.tar"


def refuse_other_kind(out: Path, several: bool) -> None:
    """Shards and folders of shards do not go into one folder, finished or begun."""
    if several and ((out / INDEX).is_file() or (out / PARTIAL).is_file() or any(out.glob("*.tar"))):
        raise ValueError(f"{out} holds shards of one grid; choose another folder for buckets")
    names = sorted({path.parent.name for path in out.glob("[0-9]*x[0-9]*x[0-9]*/index.*json")})
    if not several and (names or (out / BUCKETS).is_file()):
        names = buckets_in(out) if (out / BUCKETS).is_file() else names
        raise ValueError(f"{out} holds the buckets {', '.join(names)}; choose another folder for one grid")


def check_sizes(folder: Path, lines: Sequence[Line]) -> None:
    """FileError naming the first of these shards that is missing, or has not as many bytes as its line says."""
    for line in lines:
        path = folder / line["name"]
        if not path.is_file():
            raise FileError(f"shard {path} is missing, which {INDEX} names")
        if (size := path.stat().st_size) != line["bytes"]:
            raise FileError(f"shard {path} has {size} bytes, its index says {line['bytes']}")


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> Line:
    """Samples, (id, files by ending), as a tar file, written as they come; its line in the index."""
    count = empty = 0
    with replacing(path) as file:
        hashing: Any = _Hashing(file)  # of a file it has what tarfile calls when it writes
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                count += 1
                empty += "json" in files and not json.loads(files["json"]).get("prompt", "none asked").strip()
                for ending, data in sorted(files.items()):
                    info = tarfile.TarInfo(f"{key}.{ending}")  # its time and owner are 0: equal clips, equal bytes
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    line = {"name": path.name, "samples": count, "bytes": hashing.size, "sha256": hashing.digest.hexdigest()}
    return line | ({"uncaptioned": empty} if empty else {})


class _Hashing:
    """Counts and hashes what is written to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def safe_keys(ids: Sequence[str]) -> list[str]:
    """File names for ids: letters, digits, `_` and `-` alone (WebDataset splits at a dot), and no two the same."""
    taken: set[str] = set()
    keys = []
    for id in ids:
        name = id.removesuffix(suffix) if (suffix := Path(id).suffix).lower() in VIDEO | SOUND else id
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80].strip("_") or "clip"
        key, count = stem, 1
        while key.lower() in taken:
            count += 1
            key = f"{stem}-{count}"
        taken.add(key.lower())
        keys.append(key)
    return keys


def sample_files(files: dict[str, bytes], description: dict[str, Any]) -> dict[str, bytes]:
    """A sample's files and its json, which holds a checksum of each: flipped bits would decode to other pictures."""
    checksums = {ending: zlib.crc32(data) for ending, data in files.items()}
    return {**files, "json": dump({**description, "crc32": checksums})}
