"""Folders of tar shards: their index, the writer that keeps it true, and the report of what was written.

index.json is written last, so a folder that has one is complete; until then index.partial.json says how far a run came.
Every file appears whole or not at all. The same samples give the same bytes, and so the same sha256, on every machine.
A folder of buckets (buckets.py) holds a folder of shards for each, and buckets.json, which is written last of all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ccl.data.filters import cause
from ccl.data.sources import SOUND, VIDEO
from ccl.files import replacing, write_whole
from ccl.grid import Grid

VERSION = 1
INDEX, PARTIAL, BUCKETS = "index.json", "index.partial.json", "buckets.json"
Kind = Literal["media", "latents"]
Advance = Callable[[int, int], None]
"""A progress report: clips done, clips in all."""


@dataclass(frozen=True)
class Report:
    """What a writer did. `print(report)` says it in a few lines, rich prints it as a table.

    Args:
        out: the folder.
        written: clips in the shards.
        skipped: (id, reason) of the others.
        shards: name, samples, bytes and sha256 of each.
        reused: the shards were there already, made of the same sources with the same settings.
    """

    out: Path
    written: int
    skipped: list[tuple[str, str]]
    shards: list[dict[str, Any]]
    reused: bool = False

    @property
    def removed(self) -> dict[str, int]:
        """How many clips each cause has removed, the greatest first."""
        return dict(Counter(cause(reason) for _, reason in self.skipped).most_common())

    def table(self) -> Table:
        size = sum(shard["bytes"] for shard in self.shards) / 2**20
        title = f"{self.out}: {self.written} clips in {len(self.shards)} shards, {size:.1f} MiB"
        table = Table("skipped", "reason", title=title + (" (already there)" if self.reused else ""))
        for id, reason in self.skipped:
            table.add_row(id, reason)
        if not self.skipped:
            table.add_row("none", "")
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table()

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.written} clips in {len(self.shards)} shards, {len(self.skipped)} skipped"]
        if self.skipped:
            lines.append("  " + ", ".join(f"{name}: {count}" for name, count in self.removed.items()))
        return "\n".join(lines + [f"  skipped {id}: {reason}" for id, reason in self.skipped])


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """A bar on stderr, as the `progress` of a writer."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, where the system has file locks; writes are whole in any case."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class ShardWriter:
    """Fills tar files in order and keeps the books, so that a stopped run can go on.

    Args:
        out: the folder.
        settings: all that the bytes depend on; kept in the index and compared by the next run.

    Raises:
        ValueError: the folder holds shards of other settings or sources.
    """

    def __init__(self, out: str | Path, settings: dict[str, Any]) -> None:
        self.out, self.settings = Path(out), settings
        self.index_path, self._partial_path = self.out / INDEX, self.out / PARTIAL
        self.shards: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self.consumed = 0  # sources that the finished shards account for
        self.complete = False
        self._samples: list[tuple[str, dict[str, bytes]]] = []
        self._restore()
        self.out.mkdir(parents=True, exist_ok=True)  # told before the work where it cannot be written

    def _restore(self) -> None:
        state = begun(self.out, self.settings)
        if state is not None:
            self.shards = state["shards"]
            self.skipped = [(id, reason) for id, reason in state["skipped"]]
            self.consumed, self.complete = state["consumed"], self.index_path.is_file()

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
        if self._samples:
            path = self.out / f"shard-{len(self.shards):06d}.tar"
            self.shards.append(write_tar(path, self._samples))
            self._samples = []
        self.consumed = consumed
        self._save(self._partial_path)

    def finish(self, consumed: int) -> None:
        """The index comes last: a folder with one is complete."""
        self.flush(consumed)
        self._save(self.index_path)
        self._partial_path.unlink()
        self.complete = True

    def _save(self, path: Path) -> None:
        write_index(path, self.settings, self.shards, skipped=self.skipped, consumed=self.consumed)

    def report(self, reused: bool = False) -> Report:
        return Report(self.out, self.written, self.skipped, self.shards, reused)


def begun(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The index of what lies in a folder, finished or not; None where nothing does.

    Raises:
        ValueError: it was made with other settings or of other sources, or holds foreign tar files.
    """
    for path in (out / INDEX, out / PARTIAL):
        if path.is_file():
            state = read_index(path)
            if differing := settings_differ(settings, state["settings"]):
                raise ValueError(
                    f"{out} already holds shards made with other {', '.join(differing)}; "
                    "choose another folder or remove that one"
                )
            return state
    if any(out.glob("*.tar")):
        raise ValueError(f"{out} holds tar files but no index.json; choose an empty folder")
    return None


def write_index(
    path: Path,
    settings: dict[str, Any],
    shards: list[dict[str, Any]],
    *,
    skipped: list[tuple[str, str]],
    consumed: int,
    **more: Any,
) -> None:
    """An index, whole or not at all: finished under INDEX, on the way under PARTIAL; `more` is kept in it."""
    state = {
        "settings": settings,
        "samples": sum(shard["samples"] for shard in shards),
        "consumed": consumed,
        "shards": shards,
        "skipped": skipped,
        **more,
    }
    write_whole(path, json.dumps(state, indent=1, sort_keys=True) + "\n")


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> dict[str, Any]:
    """Samples, (id, files by ending), as a tar file, written as they come; its line in the index."""
    count = 0
    with replacing(path) as file:
        hashing: Any = _Hashing(file)  # of a file it has what tarfile calls when it writes
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for key, files in samples:
                count += 1
                for ending, data in sorted(files.items()):
                    info = tarfile.TarInfo(f"{key}.{ending}")  # its time and owner are 0: equal clips, equal bytes
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return {"name": path.name, "samples": count, "bytes": hashing.size, "sha256": hashing.digest.hexdigest()}


class _Hashing:
    """Counts and hashes what is written to a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def buckets_in(folder: Path) -> list[str]:
    """Names of the folders of shards in a folder of buckets; [""] where it is a folder of shards itself.

    Raises:
        ValueError: its buckets.json is none.
    """
    path = folder / BUCKETS
    if not path.is_file():
        return [""]
    try:
        names = json.loads(path.read_text())["buckets"]
        assert names and all(isinstance(name, str) and Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is no list of buckets") from error
    return names


def settings_of(folder: str | Path) -> dict[str, Any]:
    """What the index of shards, or of their first bucket, says of them all.

    Raises:
        ValueError: there is no index, or it is none.
    """
    return read_index(Path(folder) / buckets_in(Path(folder))[0] / INDEX)["settings"]


def write_buckets(folder: Path, names: Sequence[str]) -> None:
    """Last of all, so that a folder that has the list is complete."""
    write_whole(folder / BUCKETS, json.dumps({"buckets": list(names)}) + "\n")


def read_index(path: Path) -> dict[str, Any]:
    """An index.json, checked. ValueError, naming it, where it is missing, none of ours or of another version."""
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}; make shards with `ccl shards make`")
    try:
        index = json.loads(path.read_text())
        version = index["settings"]["version"]
        assert {"shards", "skipped", "consumed", "samples"} <= index.keys()
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is not an index of shards") from error
    if version != VERSION:
        raise ValueError(f"{path} has version {version}; this code reads version {VERSION}")
    return index


def settings_differ(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the settings that two indices do not share, those of the grid one by one."""
    a, b = _flat(json.loads(dump(wanted))), _flat(found)
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name])


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    inner = {f"grid.{name}": value for name, value in settings.get("grid", {}).items()}
    return {**{name: value for name, value in settings.items() if name != "grid"}, **inner}


def grid_settings(grid: Grid, kind: Kind) -> dict[str, int | float]:
    """The part of a grid that stored media, or latents, depend on."""
    names = ["frames", "fps", "height", "width", "sample_rate"]
    if kind == "latents":
        names += ["latent_rate", "stride_time", "stride_space"]
    return {name: getattr(grid, name) for name in names}


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


def dump(value: Any) -> str:
    """JSON with sorted keys, numpy's numbers and arrays included: the same value gives the same text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=lambda x: x.tolist())


def sample_files(files: dict[str, bytes], description: dict[str, Any]) -> dict[str, bytes]:
    """A sample's files and its json, which holds a checksum of each: flipped bits would decode to other pictures."""
    checksums = {ending: zlib.crc32(data) for ending, data in files.items()}
    return {**files, "json": dump({**description, "crc32": checksums}).encode()}
