"""Prompts to files: out/<id>.mp4 and its record out/<id>.json for each row, written whole, skipped when finished.

The record holds everything the clip follows from (weights, config, seed, guidance, solver, given media), so a run that
was stopped goes on, and a folder made with other settings is refused instead of being mixed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ccl import __version__
from ccl.files import LOCK, one_writer, sha256, sweep, write_whole
from ccl.generation.pipeline import Pipeline
from ccl.generation.prompts import written
from ccl.guidance import Guidance
from ccl.media import Clip
from ccl.rows import MEDIA, Row, check_rows, file_names
from ccl.types import AV

Report = Callable[[int, int, str], None]
# What records said nothing of while it could not be otherwise.
SILENT: dict[str, Any] = {
    "step_cache": 0.0,
    "loras": [],
    "then": [],
    **dict.fromkeys(("seconds", "overlap", "last_image", "prefix", "suffix", "voice")),
}


def generate_files(
    pipe: Pipeline,
    rows: Sequence[Row],
    out: str | Path,
    *,
    batch_size: int = 8,
    wanted: AV[bool] = AV(True, True),
    task: str | None = None,
    guidance: Guidance | str | None = None,
    steps: int | None = None,
    shift: float | None = None,
    seconds: float | None = None,
    overlap: float | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: Report | None = None,
    made: Callable[[Clip], None] = lambda clip: None,
    share: tuple[int, int] = (0, 1),
    writes: bool = True,
) -> list[Path]:
    """Make a clip of every row, in batches of rows that are given the same stream.

    Args:
        pipe: the model.
        rows: what to make.
        out: folder of the files.
        batch_size: clips a forward.
        wanted: streams of the clips.
        task: name of the trained term to sample on; None is that which suits what is given and wanted.
        guidance: rule, in place of the pipeline's.
        steps: of the solver, in place of the pipeline's.
        shift: moves its times towards noise, in place of the pipeline's.
        seconds: how long clips are to be, window after window; None is one window more than there is.
        overlap: seconds that windows share; None is the longest beginning that the model was trained to go on from.
        seed: rows without a seed of their own take one from this and their id.
        resume: skip rows whose clip is finished; else make all anew.
        progress: called with (solver steps done, of how many, id of the last clip) over the whole run.
        made: called with each clip once it is written.
        share: (r, n): make only every n-th batch, from the r-th on, as one of n processes that share a folder. Together
            they make what one process makes, to the last byte; none needs to know of the others.
        writes: whether this process writes, of several that make each clip together, as a network does that is
            `split_over` them.

    Returns:
        The clips' paths, in the order of the rows; those of a share alone.

    Raises:
        ValueError: two ids become one file name; a clip in the folder was made with other settings.
    """
    check_rows(rows)
    rows, out = [row.seeded(seed) for row in rows], Path(out)
    suffix = ".mp4" if wanted.video else ".wav"
    paths = {row.id: out / f"{name}{suffix}" for row, name in zip(rows, file_names(rows), strict=True)}
    how: dict[str, Any] = {"wanted": wanted, "guidance": guidance, "steps": steps, "shift": shift, "task": task}
    how |= {"seconds": seconds, "overlap": overlap}
    settings = describe(pipe, **how)
    records = {row.id: {**describe_row(row), **settings} for row in rows}

    def unfinished(some: Sequence[Row]) -> list[Row]:
        return [row for row in some if not (resume and finished(paths[row.id], records[row.id]))]

    with at_work(out, share) if writes else nullcontext():
        rank, ranks = share
        if ranks == 1:
            batches = list(in_batches(unfinished(rows), batch_size))
        else:  # cut before it is looked at what is finished: other processes are at work, and all must cut alike
            own = list(in_batches(rows, batch_size))[rank::ranks]
            batches = [batch for some in own if (batch := unfinished(some))]
            paths = {row.id: paths[row.id] for some in own for row in some}
        pipe.remember([text for batch in batches for row in batch for text in written(row)])
        per_batch = settings["steps"]
        for number, batch in enumerate(batches):

            def step(done: int, total: int, number: int = number, last: str = batch[-1].id) -> None:
                if progress is not None:
                    progress(number * per_batch + done, len(batches) * per_batch, last)

            for clip in pipe.generate(batch, **how, progress=step):
                if writes:
                    write(clip, paths[clip.id], records[clip.id])
                    made(clip)
    return list(paths.values())


def generate_file(
    pipe: Pipeline,
    row: Row,
    path: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    writes: bool = True,
    **settings: Any,
) -> Clip:
    """One clip to one file, with its record beside it; `settings` are those of `Pipeline.generate`, and `writes` is as
    of `generate_files`."""
    (clip,) = pipe.generate([row], progress=progress, **settings)
    if not writes:
        return clip
    record, path = {**describe_row(row), **describe(pipe, **settings)}, Path(path)
    # One after another, where two make the same file: a clip must not lie beside the other's record.
    with one_writer(path.parent, wait=True, name=f"{LOCK}.{hashlib.sha256(path.name.encode()).hexdigest()[:16]}"):
        write(clip, path, record)
    return clip


@contextmanager
def at_work(out: Path, share: tuple[int, int]) -> Iterator[None]:
    """Keep others from a folder of clips while this process, alone or as one of several that share it, writes there.

    Each of several has a lock of its own, so that a second such job meets its twin; who is alone asks for all of them.
    """
    rank, ranks = share
    own = f"{LOCK}-{rank}" if rank else LOCK
    with ExitStack() as held:
        held.enter_context(one_writer(out, name=own))
        for other in sorted(out.glob(f"{LOCK}-*")) if ranks == 1 else ():
            held.enter_context(one_writer(out, name=other.name))
        if ranks == 1 and not any(out.glob(f"{LOCK}.*")):  # nobody writes a single clip here
            sweep(out)
        yield


def write(clip: Clip, path: Path, record: dict[str, Any]) -> None:
    """The clip, then its record: a clip without one is not finished. The clip's notes stand in the record."""
    beside = path.with_suffix(".json")
    made_with = {"ccl": __version__, "torch": torch.__version__, "python": platform.python_version()}
    beside.unlink(missing_ok=True)
    clip.save(path)  # which syncs it, before a record vouches for it
    record = {
        **record,
        **clip.meta,
        "file": {"bytes": path.stat().st_size, "sha256": sha256(path)},
        "made_with": made_with,
    }
    write_whole(beside, json.dumps(record, indent=1, ensure_ascii=False))


def finished(path: Path, record: dict[str, Any]) -> bool:
    """Whether the clip is there, as its record says, and follows from the same settings.

    What is damaged is not finished: it is made anew.
    """
    beside = path.with_suffix(".json")
    if not (path.is_file() and beside.is_file()):
        return False
    try:
        there = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    if not isinstance(there, dict):
        return False
    there = SILENT | there
    other = [key for key, value in json.loads(json.dumps(record)).items() if there.get(key) != value]
    if other:
        raise ValueError(
            f"{path} was made with another {other[0]} ({there.get(other[0])!r}, now {record[other[0]]!r}); "
            "choose another folder, or make all clips anew with --overwrite"
        )
    file = there.get("file")
    if not isinstance(file, dict) or file.get("bytes") != path.stat().st_size:
        return False
    return bool(file.get("sha256") == sha256(path))


def reconstruct_files(pipe: Pipeline, rows: Sequence[Row], out: str | Path) -> list[Path]:
    """Each row's true clip through the codec and back, the ceiling of any model; what is there is skipped."""
    paths = []
    for row, name in zip(rows, file_names(rows), strict=True):
        path = Path(out) / f"{name}.mp4"
        if row.reference is None:
            raise ValueError(f"{row.id}: has no reference clip to reconstruct")
        if not path.is_file():
            pipe.reconstruct(row).save(path)
        paths.append(path)
    return paths


def describe(
    pipe: Pipeline,
    wanted: AV[bool] = AV(True, True),
    guidance: Guidance | str | None = None,
    steps: int | None = None,
    shift: float | None = None,
    task: str | None = None,
    seconds: float | None = None,
    overlap: float | None = None,
) -> dict[str, Any]:
    """What all clips of a run follow from."""
    rule = pipe.rule(guidance)
    return {
        "weights": pipe.provenance.get("weights_sha256"),
        "config": pipe.provenance.get("config_sha256"),
        "guidance": rule.record(),
        "solver": pipe.solver,
        "steps": pipe.steps if steps is None else steps,
        "shift": pipe.shift if shift is None else shift,
        "step_cache": pipe.step_cache,
        "loras": [lora.record(scale) for lora, scale in pipe.loras.on],
        "task": task,
        "seconds": seconds,
        "overlap": overlap,
        "wanted": [stream for stream, is_wanted in wanted._asdict().items() if is_wanted],
        "grid": vars(pipe.grid),
    }


def describe_row(row: Row) -> dict[str, Any]:
    """What one clip follows from; media that code has given are named as such."""

    def name(media: Any) -> str | None:
        return None if media is None else str(media) if isinstance(media, str | Path) else "array"

    given = {key: name(getattr(row, key)) for key in MEDIA}
    texts = {
        "prompt": row.prompt,
        "then": list(row.then),
        "negative": row.negative,
        "negative_audio": row.negative_audio,
    }
    return {"id": row.id, **texts, "seed": row.seed or 0, **given}


def in_batches(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    """Rows in order, at most `size` at a time, only such together as are given the same stream, or go on alike."""
    if size < 1:
        raise ValueError(f"a batch needs at least one row, not {size}")
    for _, group in groupby(rows, key=lambda row: (row.given, row.prefix is None, row.suffix is None)):
        same = list(group)
        yield from (same[i : i + size] for i in range(0, len(same), size))
