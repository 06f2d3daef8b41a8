"""Where clips come from: a source names a clip and knows how to make it; a folder of videos is a list of sources."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ccl.data.buckets import read_into_bucket
from ccl.grid import Grid
from ccl.media import MediaError, read_clip
from ccl.types import AV, Clip

VIDEO = {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
# Sound alone makes no clip, unless nothing else is asked for, but is listed as skipped, not passed over in silence.
SOUND = {".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"}


@runtime_checkable
class Loadable(Protocol):
    """What a writer of shards takes: `Source`, or anything else with a name that can make its clip."""

    @property
    def id(self) -> str: ...

    def load(self) -> Clip: ...


@dataclass(frozen=True)
class Source:
    """Where a clip comes from.

    Args:
        id: names the clip; made safe for file names, and unique, when it is written.
        load: makes the clip; called once, perhaps in another process. A MediaError or OSError means: skip, with reason.
        fingerprint: what else the clip depends on (a file's size, a prompt); part of the shards' identity.
    """

    id: str
    load: Callable[[], Clip]
    fingerprint: str = ""


@runtime_checkable
class Listener(Protocol):
    """Hears what is said; handed in, for it needs a network."""

    @property
    def version(self) -> str:
        """All that its words depend on, as a hash of its weights."""
        ...

    def prompt(self, clip: Clip) -> str:
        """A prompt of what is said in a clip, the words in double quotes; "" where nothing is."""
        ...


def folder_sources(
    folder: str | Path,
    captions: str | Path | None = None,
    *,
    grid: Grid | Sequence[Grid] | None = None,
    need_captions: bool = True,
    sound: bool = False,
) -> list[Source]:
    """All media files in a folder and the folders in it, by name.

    Args:
        folder: of videos.
        captions: a .csv file with a header, or a .jsonl file, with `file` (relative to the folder) and `prompt`; a
            video it does not name is skipped by the writer. Without it a prompt is the text of `<name>.txt` beside the
            video, or empty.
        grid: what the clips are brought to; of several, the nearest that a clip fills.
        need_captions: whether a video that `captions` does not name is skipped; else its prompt is empty.
        sound: read the sound alone.

    Raises:
        ValueError: no folder, no media in it, or a bad line in the captions, with its number.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO | SOUND and not p.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder} holds no video file ({', '.join(sorted(VIDEO))})")
    prompts = None if captions is None else read_captions(captions, folder)
    sources = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        prompt = _sidecar(path) if prompts is None else prompts.get(name, None if need_captions else "")
        size = path.stat().st_size if path.exists() else 0
        if prompt is None:
            load: Callable[[], Clip] = partial(_uncaptioned, name, str(captions))
        elif isinstance(grid, Grid | None):
            load = partial(read_clip, path, grid=grid or Grid(), prompt=prompt, id=name, require=AV(not sound, True))
        else:
            load = partial(read_into_bucket, path, grids=list(grid), prompt=prompt, id=name)
        sources.append(Source(name, load, json.dumps([size, prompt])))
    return sources


def read_captions(path: str | Path, folder: Path) -> dict[str, str]:
    """File names, relative to the folder, and their prompts. ValueError names the line that is wrong."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"captions {path}: no such file")
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"captions {path}: the name must end in .csv or .jsonl")
    prompts: dict[str, str] = {}
    try:
        for line, row in readers[path.suffix.lower()](path):
            where = f"captions {path}, line {line}"
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("file", "prompt")):
                raise ValueError(f"{where}: it must have `file` and `prompt`")
            if row["file"] in prompts:
                raise ValueError(f"{where}: {row['file']} was named before")
            if not (folder / row["file"]).is_file():
                raise ValueError(f"{where}: {row['file']} is not in {folder}")
            prompts[Path(row["file"]).as_posix()] = row["prompt"]
    except UnicodeDecodeError as error:
        raise ValueError(f"captions {path}: not UTF-8 text") from error
    return prompts


def _csv_rows(path: Path) -> Iterable[tuple[int, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"captions {path}, line {reader.line_num}: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"captions {path}, line {number}: no JSON ({error.msg})") from error


def _sidecar(path: Path) -> str:
    text = path.with_suffix(".txt")
    return " ".join(text.read_text(encoding="utf-8").split()) if text.is_file() else ""


def _uncaptioned(name: str, captions: str) -> Clip:
    raise MediaError(name, f"no line in {Path(captions).name}")
