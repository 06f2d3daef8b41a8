"""Make WebDataset shards of clips: `<id>.mp4` + `<id>.json` in tar files, and an index.json that is written last.

The same sources give the same bytes (and so the same sha256) on every machine. A shard appears whole or not at all; a
run that was stopped goes on after the last shard it finished. What cannot be used is listed with its reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ccl.data.sources import Loadable, Source, folder_sources
from ccl.grid import Grid
from ccl.media import MediaError, whole_file, write_clip
from ccl.types import Clip

__all__ = [
    "Report",
    "ShardWriter",
    "Source",
    "folder_sources",
    "progress_bar",
    "read_index",
    "shards_make",
    "write_shards",
]
VERSION = 1
Advance = Callable[[int, int], None]
"""A progress report: sources done, sources in all."""


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
        return "\n".join(lines + [f"  skipped {id}: {reason}" for id, reason in self.skipped])


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """A bar on stderr, as the `progress` of a writer."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
        self.index_path, self._partial_path = self.out / "index.json", self.out / "index.partial.json"
        self.shards: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self.consumed = 0  # sources that the finished shards account for
        self.complete = False
        self._samples: list[tuple[str, dict[str, bytes]]] = []
        self._restore()

    def _restore(self) -> None:
        for path in (self.index_path, self._partial_path):
            if not path.is_file():
                continue
            state = read_index(path)
            differing = [k for k in {**self.settings, **state["settings"]} if not self._same(k, state["settings"])]
            if differing:
                raise ValueError(
                    f"{self.out} already holds shards made with other {', '.join(sorted(differing))}; "
                    "choose another folder or remove it"
                )
            self.shards = state["shards"]
            self.skipped = [(id, reason) for id, reason in state["skipped"]]
            self.consumed, self.complete = state["consumed"], path == self.index_path
            return
        if any(self.out.glob("*.tar")):
            raise ValueError(f"{self.out} holds tar files but no index.json; choose an empty folder")

    def _same(self, key: str, settings: dict[str, Any]) -> bool:
        return key in self.settings and key in settings and json.loads(dump(self.settings[key])) == settings[key]

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
            name = f"shard-{len(self.shards):06d}.tar"
            with whole_file(self.out / name) as temporary:
                temporary.write_bytes(data := _tar(self._samples))
            digest = hashlib.sha256(data).hexdigest()
            self.shards.append({"name": name, "samples": self.pending, "bytes": len(data), "sha256": digest})
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
        state = {
            "settings": self.settings,
            "samples": self.written,
            "consumed": self.consumed,
            "shards": self.shards,
            "skipped": self.skipped,
        }
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")

    def report(self, reused: bool = False) -> Report:
        return Report(self.out, self.written, self.skipped, self.shards, reused)


def read_index(path: Path) -> dict[str, Any]:
    """An index.json, checked. ValueError, naming it, where it is none of ours or of another version."""
    try:
        index = json.loads(path.read_text())
        version = index["settings"]["version"]
        assert {"shards", "skipped", "consumed", "samples"} <= index.keys()
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is not an index of shards") from error
    if version != VERSION:
        raise ValueError(f"{path} has version {version}; this code reads version {VERSION}")
    return index


def write_shards(
    sources: Iterable[Loadable],
    out: str | Path,
    grid: Grid,
    *,
    strict: bool = False,
    shard_size: int = 256,
    workers: int = 0,
    progress: Advance | None = None,
) -> Report:
    """Write clips as mp4 into tar shards.

    Args:
        sources: of the clips, in order.
        out: a folder; shards that are there already are used again if made of the same sources and settings.
        grid: what every clip must have; one longer or of another size is refused, never changed in silence.
        strict: fail on the first clip that cannot be used, instead of listing it.
        shard_size: clips a tar file.
        workers: processes that make clips; 0 works in this one.
        progress: told after each source.

    Raises:
        ValueError: with `strict`, a clip that cannot be used; or none can; or `out` holds something else.
    """
    sources = list(sources)
    writer = ShardWriter(out, media_settings(sources, grid, shard_size))
    if writer.complete:
        _complain(writer.skipped, strict)
        return writer.report(reused=True)
    keys = safe_keys([source.id for source in sources])
    todo = range(writer.consumed, len(sources))
    made = _in_order(partial(_make, sources, keys, grid), todo, workers)
    for index, (files, reason) in zip(todo, made, strict=True):
        if files is None:
            writer.skipped.append((sources[index].id, reason))
            _complain(writer.skipped, strict)
        else:
            writer.add(keys[index], files)
        if writer.pending >= shard_size:
            writer.flush(index + 1)
        if progress:
            progress(index + 1, len(sources))
    if not writer.written and not writer.pending:
        first = "; the first: {}: {}".format(*writer.skipped[0]) if writer.skipped else ""
        raise ValueError(f"none of the {len(sources)} clips for {out} can be used{first}")
    writer.finish(len(sources))
    return writer.report()


def shards_make(
    folder: str | Path,
    out: str | Path,
    *,
    captions: str | Path | None = None,
    grid: Grid | None = None,
    strict: bool = False,
    shard_size: int = 256,
    workers: int = 0,
) -> Report:
    """What `ccl shards make` does: a folder of own videos to shards, with a progress bar.

    Args:
        folder: searched with all folders in it.
        out: where the shards go.
        captions: a .csv or .jsonl file with `file` and `prompt`; without it, `<name>.txt` beside `<name>.mp4`.
        grid: rate, size and length that clips are brought to.
        strict: fail on the first clip that cannot be used.
        shard_size: clips a tar file.
        workers: processes that read and write clips.
    """
    grid = grid or Grid()
    sources = folder_sources(folder, captions, grid=grid)
    with progress_bar(f"shards of {Path(folder).name}") as advance:
        return write_shards(sources, out, grid, strict=strict, shard_size=shard_size, workers=workers, progress=advance)


def media_settings(sources: Sequence[Loadable], grid: Grid, shard_size: int) -> dict[str, Any]:
    """What the bytes of media shards depend on."""
    digest = hashlib.sha256(
        dump([[source.id, getattr(source, "fingerprint", "")] for source in sources]).encode()
    ).hexdigest()
    return {
        "version": VERSION,
        "kind": "media",
        "grid": asdict(grid),
        "shard_size": shard_size,
        "sources": digest,
    }


def safe_keys(ids: Sequence[str]) -> list[str]:
    """File names for ids: letters, digits, `_` and `-` alone (WebDataset splits at a dot), and no two the same."""
    taken: set[str] = set()
    keys = []
    for id in ids:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", id)[:80].strip("_") or "clip"
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


def _make(
    sources: Sequence[Loadable], keys: Sequence[str], grid: Grid, index: int
) -> tuple[dict[str, bytes] | None, str]:
    """The files of a source's sample, or why there are none."""
    try:
        clip = sources[index].load()
        _check(clip, grid)
        file = io.BytesIO()
        write_clip(clip, file)
    except MediaError as error:
        return None, error.reason
    except OSError as error:
        return None, str(error)
    description = {"id": keys[index], "source": sources[index].id, "prompt": clip.prompt, "meta": clip.meta}
    return sample_files({"mp4": file.getvalue()}, description), ""


def _check(clip: Clip, grid: Grid) -> None:
    if clip.video is None:
        raise MediaError(clip.id, "no video stream")
    if clip.audio is None:
        raise MediaError(clip.id, "no audio stream")
    wanted = (grid.frames, grid.height, grid.width, 3)
    if clip.video.shape != wanted or clip.fps != grid.fps:
        raise MediaError(clip.id, f"video is {clip.video.shape} at {clip.fps:g} fps, not {wanted} at {grid.fps:g}")
    if len(clip.audio) != grid.samples or clip.sample_rate != grid.sample_rate:
        have = f"{len(clip.audio)} samples at {clip.sample_rate} Hz"
        raise MediaError(clip.id, f"sound has {have}, not {grid.samples} at {grid.sample_rate}")


def _complain(skipped: list[tuple[str, str]], strict: bool) -> None:
    if strict and skipped:
        raise ValueError("clip {} cannot be used: {}".format(*skipped[0]))


def _tar(samples: list[tuple[str, dict[str, bytes]]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, files in samples:
            for ending, data in sorted(files.items()):
                info = tarfile.TarInfo(f"{key}.{ending}")  # its time and owner are 0: equal clips, equal bytes
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


_job: Callable[[int], Any] | None = None


def _run_job(index: int) -> Any:
    assert _job is not None
    return _job(index)


def _set_job(job: Callable[[int], Any]) -> None:
    global _job
    _job = job


def _in_order(job: Callable[[int], Any], indices: Iterable[int], workers: int) -> Iterator[Any]:
    """map(job, indices), by processes that work a little ahead."""
    if not workers:
        yield from map(job, indices)
        return
    # Forked where the system can, as torch's loaders are: sources may then hold what cannot be pickled.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_set_job, initargs=(job,))
    try:
        ahead: deque[Future[Any]] = deque()
        for index in indices:
            ahead.append(pool.submit(_run_job, index))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
