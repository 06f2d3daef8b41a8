"""Clips to WebDataset shards: `<id>.mp4` + `<id>.json` in tar files, by as many processes as are wanted.

The same sources give the same bytes on every machine. A shard appears whole or not at all; a run that was stopped goes
on after the last shard it finished. What cannot be used is listed with its reason.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ccl.data.archive import (
    VERSION,
    Advance,
    Report,
    ShardWriter,
    dump,
    grid_settings,
    progress_bar,
    safe_keys,
    sample_files,
)
from ccl.data.sources import Loadable, Source, folder_sources
from ccl.grid import Grid
from ccl.media import MediaError, write_clip
from ccl.types import Clip

__all__ = ["Report", "Source", "folder_sources", "progress_bar", "shards_make", "write_shards"]


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
    if shard_size < 1 or workers < 0:
        raise ValueError(f"shards of {shard_size} clips by {workers} processes cannot be: at least 1, and 0")
    sources = list(sources)
    writer = ShardWriter(out, media_settings(sources, grid, shard_size))
    if writer.complete:
        _complain(writer.skipped, strict)
        if progress:
            progress(len(sources), len(sources))
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
        "grid": grid_settings(grid, "media"),
        "shard_size": shard_size,
        "sources": digest,
    }


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
