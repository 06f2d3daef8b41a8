"""Clips to WebDataset shards: `<id>.mp4` + `<id>.json` in tar files, by as many processes as are wanted.

The same sources give the same bytes, on every x86 machine that has AVX. A shard appears whole or not at all; a run that
was stopped goes on after the last shard it finished. What cannot be used, or a filter removes, is listed with its
reason. With several grids, each has a folder of shards of its own (buckets.py), and so have, of mixed data, clips of
one stream alone.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ccl.data import voices
from ccl.data.archive import Report, ShardWriter, refuse_other_kind, safe_keys, sample_files, tar_name
from ccl.data.buckets import Bucket, bucket_name
from ccl.data.engines import processes
from ccl.data.faces import Finder, written
from ccl.data.filters import Filter, Silent
from ccl.data.index import VERSION, dump, grid_settings, write_buckets
from ccl.data.sources import Listener, Loadable, Source, folder_sources
from ccl.files import MachineError, naming, one_writer, sweep
from ccl.files.plaintext import unreadable
from ccl.grid import Grid
from ccl.media import Clip, MediaError, write_clip
from ccl.progress import Advance, bar
from ccl.spelling import counted
from ccl.types import AV, STREAMS

__all__ = ["Report", "Source", "folder_sources", "shards_make", "write_shards"]

OF_PICTURES, OF_SOUND = ("cuts", "lips"), ("silent", "speech", "lips")  # filters


def write_shards(
    sources: Iterable[Loadable],
    out: str | Path,
    grid: Grid | Sequence[Grid],
    *,
    strict: bool = False,
    shard_size: int = 256,
    workers: int = 0,
    filters: Sequence[Filter] = (),
    listener: Listener | None = None,
    faces: Finder | None = None,
    progress: Advance | None = None,
    sound: bool = False,
    mixed: bool = False,
    need_prompts: bool = False,
) -> Report:
    """Write clips as mp4 into tar shards.

    Args:
        sources: of the clips, in order.
        out: a folder; shards that are there already are used again if made of the same sources and settings, and what
            was deleted of them is written anew.
        grid: what every clip must have; one longer or of another size is refused, never changed in silence. Of several,
            a clip goes into the folder of the one that it has.
        strict: fail on the first clip that cannot be used, instead of listing it.
        shard_size: clips a tar file.
        workers: processes that make clips; 0 works in this one.
        filters: asked in turn, until one has something against the clip.
        listener: hears what is said in clips without a prompt.
        faces: finds the faces in each clip, which are written down with it.
        progress: told after each source.
        sound: write sound alone, as long as the grid's clips: for a model without a video stream.
        mixed: write clips of one stream alone too, into buckets of their own; a filter judges the clips that have what
            it looks at, and what is silent by its filter stays as pictures alone.
        need_prompts: leave out clips whose prompt is empty, in which the listener hears no words either.

    Raises:
        ValueError: with `strict`, a clip that cannot be used; or none can; or `out` holds something else, or is being
            written by another process; or sound alone is to go into buckets of pictures, or to be judged by its
            pictures.
        MachineError: no disk, memory or open files are left; the same call goes on from the last whole shard.
    """
    if sound and not isinstance(grid, Grid):
        raise ValueError("sound alone has no size to sort it into buckets by; make one folder of shards")
    if sound and any(one.name in OF_PICTURES for one in filters):
        raise ValueError(f"sound alone cannot be filtered by {' or '.join(OF_PICTURES)}, which look at pictures")
    if sound and faces:
        raise ValueError("sound alone shows no faces")
    if shard_size < 1 or workers < 0:
        raise ValueError(f"shards of {shard_size} clips by {workers} processes cannot be: at least 1, and 0")
    sources, out = list(sources), Path(out)
    if sound and mixed:
        raise ValueError("sound alone is no mixed data; ask for one of them")
    several = mixed or not isinstance(grid, Grid)
    buckets = {"": Bucket(grid, AV(not sound, True))} if isinstance(grid, Grid) and not mixed else named(grid, mixed)
    extra: dict[str, Any] = {"buckets": list(buckets)} if several else {}
    extra |= {"filters": [repr(one) for one in filters]} if filters else {}
    extra |= {"listener": listener.version} if listener else {}
    extra |= {"faces": faces.version} if faces else {}
    extra |= {"voices": True} if any(getattr(source, "voice", None) for source in sources) else {}
    keys = safe_keys([source.id for source in sources])
    with one_writer(out):
        sweep(out)
        refuse_other_kind(out, several)
        writers = {
            name: ShardWriter(
                out / name,
                media_settings(sources, one.grid, shard_size) | of_streams(extra, one.streams),
                remakes=not several,
            )
            for name, one in buckets.items()
        }
        # One that never came to a shard of its own knows of no source.
        start = min((writer.consumed, writer.skipped) for writer in writers.values())
        consumed, skipped = start[0], list(start[1])
        for writer in writers.values():
            writer.skipped = skipped
        reused = all(writer.complete for writer in writers.values())
        if reused:
            _complain(skipped, strict)
            consumed = len(sources)
        todo = range(consumed, len(sources))
        make = partial(_make, sources, keys, buckets, filters, listener, faces, sound, need_prompts)
        if not several:
            left_out = {id for id, _ in skipped}
            held = [index for index in range(consumed) if sources[index].id not in left_out]
            shards = [held[n : n + shard_size] for n in range(0, len(held), shard_size)]
            _remake(writers[""], shards, keys, make, workers)
        made = _in_order(make, todo, workers)
        for index, (bucket, files, reason) in zip(todo, made, strict=True):
            if files is None:
                skipped.append((sources[index].id, reason))
                _complain(skipped, strict)
            elif index >= (writer := writers[bucket]).consumed:  # else it is in a shard that was finished before
                writer.add(keys[index], files)
                if writer.pending >= shard_size:
                    writer.flush(index + 1)
            if progress:
                progress(index + 1, len(sources))
        if not any(writer.written or writer.pending for writer in writers.values()):
            first = "; the first: {}: {}".format(*skipped[0]) if skipped else ""
            raise ValueError(f"none of {counted(len(sources), 'clip')} for {out} can be used{first}")
        for writer in writers.values():
            if not writer.complete:
                writer.finish(len(sources))
        if several:
            write_buckets(out, [name for name, writer in writers.items() if writer.written])
        if progress:
            progress(len(sources), len(sources))
        return _report(out, buckets, writers, skipped, reused)


def _remake(
    writer: ShardWriter,
    shards: Sequence[Sequence[int]],
    keys: Sequence[str],
    make: Callable[[int], tuple[str, dict[str, bytes] | None, str]],
    workers: int,
) -> None:
    """Write anew the finished shards that somebody has deleted, of the sources that each one has held.

    Raises:
        ValueError: one of these cannot be used any more.
    """
    for number, indices in enumerate(shards):
        if writer.has(number):
            continue
        for index, (_, files, reason) in zip(indices, _in_order(make, indices, workers), strict=True):
            if files is None:
                raise ValueError(
                    f"{writer.out / tar_name(number)} was deleted, and its clip {keys[index]} cannot be used any more: "
                    f"{reason}; remove {writer.out} and run the command again"
                )
            writer.add(keys[index], files)
        writer.put(number)


def named(grid: Grid | Sequence[Grid], mixed: bool) -> dict[str, Bucket]:
    """Buckets of these grids by the names of their folders; of mixed data, also of one stream alone."""
    grids = [grid] if isinstance(grid, Grid) else grid
    kinds = (AV(True, True), AV(True, False), AV(False, True)) if mixed else (AV(True, True),)
    found: dict[str, Bucket] = {}
    for streams in kinds:
        for one in grids:
            found.setdefault(bucket_name(one, streams), Bucket(one, streams))
    return found


def of_streams(settings: dict[str, Any], streams: AV[bool]) -> dict[str, Any]:
    """What of these settings holds of clips of these streams, and which they are, where not both."""
    if all(streams):
        return settings
    kept = {name: x for name, x in settings.items() if streams[name == "voices"] or name not in ("faces", "voices")}
    return kept | {"streams": [stream for stream, there in zip(STREAMS, streams, strict=True) if there]}


def _report(
    out: Path,
    buckets: dict[str, Bucket],
    writers: dict[str, ShardWriter],
    skipped: list[tuple[str, str]],
    reused: bool,
) -> Report:
    shards = [
        {**shard, "name": (Path(name) / shard["name"]).as_posix()}
        for name, writer in writers.items()
        for shard in writer.shards
    ]
    mixed = len({one.streams for one in buckets.values()}) > 1
    alone: dict[str, int] = {
        stream: sum(writer.written for name, writer in writers.items() if not buckets[name].streams[1 - i])
        for i, stream in enumerate(STREAMS)
        if mixed
    }
    return Report(out, sum(writer.written for writer in writers.values()), skipped, shards, reused, alone)


def shards_make(
    folder: str | Path,
    out: str | Path,
    *,
    captions: str | Path | None = None,
    grid: Grid | Sequence[Grid] | None = None,
    strict: bool = False,
    shard_size: int = 256,
    workers: int = 0,
    filters: Sequence[Filter] = (),
    listener: Listener | None = None,
    faces: Finder | None = None,
    sound: bool = False,
    mixed: bool = False,
    empty_prompts: bool = False,
) -> Report:
    """What `ccl shards make` does: a folder of own videos to shards, with a progress bar.

    Args:
        folder: searched with all folders in it.
        out: where the shards go.
        captions: a .csv or .jsonl file with `file` and `prompt`, and perhaps `voice` and `mute`; without it,
            `<name>.txt` beside `<name>.mp4`.
        grid: rate, size and length that clips are brought to; of several, the nearest that a clip fills.
        strict: fail on the first clip that cannot be used.
        shard_size: clips a tar file.
        workers: processes that read and write clips.
        filters: which clips to leave out, beside those that cannot be used.
        listener: hears what is said in clips without a caption, which becomes their prompt.
        faces: finds the faces in clips, where an interaction is to learn from them.
        sound: of videos and of files of sound, take the sound alone.
        mixed: keep clips without sound, or mute by their caption, and files of sound: in buckets of their own.
        empty_prompts: keep clips that have no caption, with an empty prompt, instead of skipping them.

    Raises:
        ValueError: as `write_shards`; or captions cannot be read; or no clip has one, and one is needed.
    """
    grid = grid or Grid()
    captioned = listener is None and not empty_prompts  # else a prompt may come, or need not
    sources = folder_sources(folder, captions, grid=grid, need_captions=captioned, sound=sound, mixed=mixed)
    options: dict[str, Any] = {"strict": strict, "shard_size": shard_size, "workers": workers, "sound": sound}
    options |= {"need_prompts": not empty_prompts, "mixed": mixed}
    with bar(f"shards of {Path(folder).name}", said=True) as advance:
        options |= {"filters": filters, "listener": listener, "faces": faces}
        return write_shards(sources, out, grid, **options, progress=advance)


def media_settings(sources: Sequence[Loadable], grid: Grid, shard_size: int) -> dict[str, Any]:
    """What the bytes of media shards depend on."""
    digest = hashlib.sha256(dump([[source.id, getattr(source, "fingerprint", "")] for source in sources])).hexdigest()
    return {
        "version": VERSION,
        "kind": "media",
        "grid": grid_settings(grid, "media"),
        "shard_size": shard_size,
        "sources": digest,
    }


def _make(
    sources: Sequence[Loadable],
    keys: Sequence[str],
    buckets: dict[str, Bucket],
    filters: Sequence[Filter],
    listener: Listener | None,
    faces: Finder | None,
    sound: bool,
    need_prompts: bool,
    index: int,
) -> tuple[str, dict[str, bytes] | None, str]:
    """Bucket and files of a source's sample, or why there are none, which is kept: it is the clip's own fault.

    Raises:
        MachineError: the machine's, of which nothing is kept.
    """
    source = sources[index]
    try:
        with naming(f"clip {source.id}", "fewer --workers"):
            clip = source.load()
            if sound:
                clip = replace(clip, video=None, times=None)
            bucket = _bucket(clip, buckets)
            for one in filters:
                if (clip.video is None and one.name in OF_PICTURES) or (clip.audio is None and one.name in OF_SOUND):
                    continue
                if against := one(clip):
                    quiet = replace(clip, audio=None)
                    if not (isinstance(one, Silent) and clip.video is not None and _of_kind(quiet, buckets)):
                        return "", None, f"{one.name}: {against}"
                    clip, bucket = quiet, _bucket(quiet, buckets)
            if listener is not None and not clip.prompt and clip.audio is not None:
                clip = replace(clip, prompt=listener.prompt(clip))
            if fault := unreadable(clip.prompt):
                raise MediaError(source.id, f"its prompt {fault}")
            if need_prompts and not clip.prompt:
                return "", None, "no caption, and no words are heard"
            found = {} if faces is None or clip.video is None else {"faces": written(faces.find(clip))}
            file = io.BytesIO()
            write_clip(clip, file)
            files = {"mp4": file.getvalue()} | ({} if clip.audio is None else _voice(source, clip.sample_rate))
    except MachineError:
        raise
    except MediaError as error:
        return "", None, error.reason
    except OSError as error:
        return "", None, error.strerror or str(error)
    description = {"id": keys[index], "source": source.id, "prompt": clip.prompt, "meta": clip.meta, **found}
    return bucket, sample_files(files, description), ""


def _voice(source: Loadable, sample_rate: int) -> dict[str, bytes]:
    """The file of a source's voice, if it has one."""
    heard = getattr(source, "voice", None)
    try:
        return {} if heard is None else {voices.FILE: voices.encoded(heard(), sample_rate)}
    except MediaError as error:
        raise MediaError(source.id, f"its voice cannot be taken, {error}") from error


def _of_kind(clip: Clip, buckets: dict[str, Bucket]) -> dict[str, Grid]:
    """The grids of the buckets for clips that have the streams that it has."""
    there = AV(clip.video is not None, clip.audio is not None)
    return {name: one.grid for name, one in buckets.items() if one.streams == there}


def _as_large(clip: Clip, grid: Grid) -> bool:
    if clip.video is None:
        return clip.audio is not None and len(clip.audio) == grid.samples
    return clip.video.shape[:3] == (grid.frames, grid.height, grid.width)


def _bucket(clip: Clip, buckets: dict[str, Bucket]) -> str:
    """Which bucket a clip is of."""
    if not (grids := _of_kind(clip, buckets)):
        first = next(iter(buckets.values())).streams
        raise MediaError(clip.id, f"no {'video' if first.video and clip.video is None else 'audio'} stream")
    name, grid = next((each for each in grids.items() if _as_large(clip, each[1])), next(iter(grids.items())))
    wanted = (grid.frames, grid.height, grid.width, 3)
    if clip.video is not None and (clip.video.shape != wanted or clip.fps != grid.fps):
        raise MediaError(clip.id, f"video is {clip.video.shape} at {clip.fps:g} fps, not {wanted} at {grid.fps:g}")
    if clip.audio is not None and (len(clip.audio) != grid.samples or clip.sample_rate != grid.sample_rate):
        have = f"{len(clip.audio)} samples at {clip.sample_rate} Hz"
        raise MediaError(clip.id, f"sound has {have}, not {grid.samples} at {grid.sample_rate}")
    return name


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
    # Forked where the system can, as torch's loaders are: sources may then hold what cannot be pickled. macOS has a
    # fork, in which its own libraries fail.
    method: Any = "fork" if sys.platform == "linux" else "spawn"
    with processes(workers, method, _set_job, job) as pool:
        ahead: deque[Future[Any]] = deque()
        for index in indices:
            ahead.append(pool.submit(_run_job, index))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
