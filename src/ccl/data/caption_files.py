"""Captions of a folder's media files: a table of them, which may name voices too, or a text beside each.

However a table writes a file's name (absolute, `./a.mp4`, `x/../a.mp4`, composed or decomposed letters), it is the file
that counts: one in the folder, named once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ccl.files.plaintext import csv_rows, json_lines, read_text, unreadable
from ccl.spelling import meant

COLUMNS = ("file", "prompt")
MUTE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


class Caption(NamedTuple):
    """What is told of a file.

    Args:
        prompt: of it.
        voice: another file of the folder, in which whoever speaks says something else.
        mute: its sound is none to learn from.
    """

    prompt: str
    voice: Path | None = None
    mute: bool = False


def sidecar_captions(folder: Path, media: Sequence[Path]) -> dict[Path, Caption]:
    """What `<name>.txt` beside each file says, on one line; files that have none are left out.

    Raises:
        ValueError: a text is not UTF-8, with its name.
    """
    texts = {_same(path.with_suffix("")): path for path in folder.rglob("*") if path.suffix.lower() == ".txt"}
    found = {path: texts.get(_same(path.with_suffix(""))) for path in media}
    there = {path: text for path, text in found.items() if text and text.is_file()}
    return {path: Caption(" ".join(read_text(text).split())) for path, text in there.items()}


def read_captions(table: str | Path, folder: Path, media: Sequence[Path]) -> dict[Path, Caption]:
    """The prompt of each media file that a table names, and its voice where there is one.

    Args:
        table: .csv with a head, or .jsonl, with `file` and `prompt`, and perhaps `voice` and `mute`; anything else in
            it is left.
        folder: in which relative names begin, and in which all files must be.
        media: the files of that folder that may be named.

    Raises:
        ValueError: with the line at which a row begins: it is none, or names no such file, or one a second time.
    """
    table = Path(table)
    if not table.is_file():
        raise ValueError(f"captions {table}: no such file")
    rows: Iterator[tuple[int, Any]]
    if table.suffix.lower() == ".csv":
        rows = csv_rows(table, COLUMNS)
    elif table.suffix.lower() == ".jsonl":
        rows = json_lines(table)
    else:
        raise ValueError(f"captions {table}: the name must end in .csv or .jsonl")
    names = _Names(folder, media)
    captions: dict[Path, Caption] = {}
    lines: dict[Path, int] = {}
    for line, row in rows:
        where = f"captions {table}, line {line}"
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in COLUMNS):
            raise ValueError(f"{where}: it must have `file` and `prompt`, both text")
        if fault := unreadable(row["prompt"]):
            raise ValueError(f"{where}: its prompt {fault}")
        voice = row.get("voice") or ""
        if not isinstance(voice, str):
            raise ValueError(f"{where}: its `voice` must be text, the name of a file")
        try:
            path = names.find(row["file"])
            other = names.find(voice) if voice.strip() else None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        mute = row.get("mute") or ""
        if str(mute).strip().lower() not in MUTE:
            raise ValueError(f"{where}: its `mute` is {mute!r}; it must be true or false")
        if path == other:
            raise ValueError(f"{where}: its voice is the file itself; it must be another one, with other words")
        if path in captions:
            raise ValueError(f"{where}: {row['file']} was named before, in line {lines[path]}")
        if table.suffix.lower() == ".csv" and (next_row := names.swallowed(row["prompt"])):
            raise ValueError(f"{where}: a double quote is opened and not closed before the row of {next_row}")
        captions[path], lines[path] = Caption(row["prompt"].strip(), other, MUTE[str(mute).strip().lower()]), line
    return captions


class _Names:
    """The media files of a folder by whatever name a table gives them."""

    def __init__(self, folder: Path, media: Sequence[Path]) -> None:
        self.folder, self.root = folder, folder.resolve()
        self.exact = {self._inside(path): path for path in media}
        self.composed: dict[Path, list[Path]] = {}
        self.loose: dict[str, str] = {}  # for a hint: what differs in case, blanks or slashes alone
        for name, path in self.exact.items():
            self.composed.setdefault(_same(name), []).append(path)
            self.loose[_loose(name)] = name.as_posix()

    def _inside(self, path: Path) -> Path:
        """A path without links and `..` on its way; the last part stays, for it may be a link to a file elsewhere."""
        return (path.parent.resolve() / path.name).relative_to(self.root)

    def find(self, name: str) -> Path:
        """The file of that name; ValueError where there is none, it lies outside the folder, or it could be two."""
        if not name.strip():
            raise ValueError("names no file")
        path = self.folder / name
        if path.name in ("", ".."):
            raise ValueError(f"{name} is not in {self.folder}")
        try:
            inside = self._inside(path)
        except ValueError:
            raise ValueError(f"{name} is not in {self.folder}, but outside of it") from None
        if inside in self.exact:
            return self.exact[inside]
        same = self.composed.get(_same(inside), [])
        if len(same) == 1:
            return same[0]
        if same:
            raise ValueError(f"{name} could be either of two files whose names differ in their Unicode form alone")
        with suppress(OSError):  # a name that is too long for any file
            if path.is_file():
                raise ValueError(f"{name} is no video and no sound")
        raise ValueError(f"{name} is not in {self.folder}{meant(self.loose.get(_loose(Path(name)), ''))}")

    def swallowed(self, text: str) -> str:
        """A file with which a later line of a text begins, as a row would: an open quote has taken in other rows."""
        for line in text.splitlines()[1:]:
            name, comma, _ = line.partition(",")
            try:
                if comma and self.find(name.strip('"')):
                    return name
            except ValueError:
                continue
        return ""


def _same(path: Path) -> Path:
    return Path(unicodedata.normalize("NFC", path.as_posix()))


def _loose(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).replace("\\", "/").strip().lower()
