"""Captions of a folder's clips by whoever describes them, in the table that `ccl shards make --captions` reads.

Each is a line of it, written whole as soon as it is there, so that a run that was stopped goes on with the clips that
have none. A row that is there already stays as it is, whatever else it says (a voice), but for an empty prompt.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

from ccl.data.buckets import read_into_bucket
from ccl.data.caption_files import read_captions, sidecar_captions
from ccl.data.sources import SOUND, media_files, whatever_there_is
from ccl.files import LOCK, MachineError, add_line, naming, one_writer, sweep, write_whole
from ccl.files.plaintext import json_lines, printable, unreadable
from ccl.grid import Grid
from ccl.media import Clip, MediaError, first_picture
from ccl.spelling import counted
from ccl.types import AV

Captioner = Callable[[Clip], str]
"""What is seen and heard in a clip, in words; a ValueError or OSError says why there are none."""
LARGEST = 2**28  # bytes that a clip's pictures may take where they are larger than the grid's


@dataclass(frozen=True)
class Captioned:
    """What was done.

    Args:
        out: the table.
        written: clips that were described.
        kept: clips that had a caption.
        failed: (file, reason) of the others.
    """

    out: Path
    written: int
    kept: int
    failed: list[tuple[str, str]]

    def __str__(self) -> str:
        described = counted(self.written, "clip")
        said = f"{self.out}: {described} described, {self.kept} with a caption before, {len(self.failed)} without"
        return "\n".join([said, *(f"  no caption of {printable(file)}: {reason}" for file, reason in self.failed)])


def write_captions(
    folder: Path,
    out: Path,
    begin: Callable[[], Captioner],
    *,
    grids: Sequence[Grid],
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Captioned:
    """Describe the clips of a folder that have no caption.

    Args:
        folder: searched with all folders in it.
        out: the table, a .jsonl file with `file` and `prompt`; where it is there, it is gone on with. What `<name>.txt`
            beside a clip says is taken over.
        begin: makes what describes; called once, and only where there is a clip to describe.
        grids: what `ccl shards make` will bring the clips to: their beginning is described, in its crop, though larger
            where the file is.
        overwrite: describe all anew.
        progress: told before each clip: how many are done, how many there are, and its name.

    Raises:
        ValueError: no folder, or no media in it; a bad line in the table, with its number.
        MachineError: no disk, memory or open files are left; the same call goes on.
    """
    media = media_files(folder)
    with one_writer(out.parent, name=f"{LOCK}.{out.name[-40:]}"):
        sweep(out.parent, out.name)
        table = Table(out, folder, media)
        todo = [path for path in media if path not in table.voices and (overwrite or not table.has(path))]
        captioner = begin() if todo else None
        if overwrite:  # not before there is somebody who describes them again
            table.forget()
        table.write()
        failed: list[tuple[str, str]] = []
        for number, path in enumerate(todo):
            name = path.relative_to(folder).as_posix()
            if progress:
                progress(number, len(todo), name)
            try:
                with naming(f"clip {name}"):
                    assert captioner is not None
                    prompt = checked(captioner(read_described(path, grids, name, mute=path in table.mute)))
            except MachineError:
                raise
            except MediaError as error:
                failed.append((name, error.reason))
            except (ValueError, OSError) as error:
                failed.append((name, getattr(error, "strerror", None) or str(error)))
            else:
                table.put(path, prompt)
        if progress:
            progress(len(todo), len(todo), "")
        return Captioned(out, len(todo) - len(failed), len(media) - len(table.voices) - len(todo), failed)


class Table:
    """Rows of captions, by the media file that each is of, what stands beside a file among them. For its one writer.

    Args:
        out: a .jsonl file, which may be there; nothing is written to it yet.
        folder: in which its names begin.
        media: the files of that folder.

    Raises:
        ValueError: as `read_captions`.
    """

    def __init__(self, out: Path, folder: Path, media: Sequence[Path]) -> None:
        self.out, self.folder = out, folder
        self.rows: dict[Path, dict[str, Any]] = {}
        self.mute: set[Path] = set()
        self.voices: set[Path] = set()  # there to be heard beside another
        if out.is_file():
            cut_torn(out)
            told = read_captions(out, folder, media)
            self.rows = dict(zip(told, (row for _, row in json_lines(out)), strict=True))
            self.mute = {path for path, caption in told.items() if caption.mute}
            voices = {caption.voice for caption in told.values() if caption.voice}
            self.voices = {path for path in voices if path not in told and path.suffix.lower() in SOUND}
        for path, (prompt, *_) in sidecar_captions(folder, media).items():
            if prompt and not self.has(path):
                self.rows[path] = {**self._named(path), "prompt": prompt}

    def forget(self) -> None:
        """Leave of the rows what else they say."""
        for path, row in list(self.rows.items()):
            self.rows[path] = {**row, "prompt": ""}
            if row.keys() == {"file", "prompt"}:
                del self.rows[path]

    def has(self, path: Path) -> bool:
        """Whether a file has a caption."""
        return bool(self.rows.get(path, {}).get("prompt", "").strip())

    def put(self, path: Path, prompt: str) -> None:
        """Write down the caption of a file."""
        there = path in self.rows
        self.rows[path] = {**self._named(path), "prompt": prompt}
        if there:
            self.write()
        else:
            add_line(self.out, line_of(self.rows[path]))

    def _named(self, path: Path) -> dict[str, Any]:
        """Its row, or the beginning of one."""
        return self.rows.get(path, {"file": path.relative_to(self.folder).as_posix()})

    def write(self) -> None:
        """Write all rows."""
        write_whole(self.out, "".join(f"{line_of(row)}\n" for row in self.rows.values()))


def line_of(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def cut_torn(path: Path) -> None:
    """Remove what a power cut may have left of a last line; no other last line is touched."""
    whole, newline, last = path.read_bytes().rpartition(b"\n")
    if not last.removeprefix(codecs.BOM_UTF8).startswith(b"{"):
        return
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        write_whole(path, whole + newline)


def read_described(path: Path, grids: Sequence[Grid], name: str, *, mute: bool = False) -> Clip:
    """A file as `ccl shards make` takes it, with larger pictures where it has them; a stream that it lacks is None.

    Args:
        path: of the file.
        grids: of which it is brought to the nearest that it fills.
        name: of the clip.
        mute: its sound is none to be heard.

    Raises:
        MediaError: as `read_clip`; it is too short even for the shortest grid.
    """
    try:
        height, width = first_picture(path).shape[:2]
    except MediaError:  # told below, unless there is sound alone
        height = width = 0
    larger = [enlarged(grid, height, width) for grid in grids]
    load = partial(read_into_bucket, path, grids=larger, prompt="", id=name)
    return load(require=AV(True, False)) if mute else whatever_there_is(load)


def enlarged(grid: Grid, height: int, width: int) -> Grid:
    """The grid of a whole multiple of its size: as much of the pictures, as finely as a file of this size has them."""
    room = isqrt(LARGEST // (3 * grid.frames * grid.height * grid.width))
    times = max(1, min(height // grid.height, width // grid.width, room))
    return replace(grid, height=times * grid.height, width=times * grid.width)


def checked(prompt: str) -> str:
    """A caption on one line. ValueError where it is none."""
    prompt = " ".join(prompt.split())
    if not prompt:
        raise ValueError("nothing was said of it")
    if fault := unreadable(prompt):
        raise ValueError(f"what was said of it {fault}")
    return prompt
