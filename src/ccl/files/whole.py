"""Files written whole or not at all: made beside their target, synced, then renamed over it.

What a kill leaves, under names that begin with MARK, is swept by the next writer, who holds the folder's lock: nobody
else can be at work there.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile
from typing import IO

MARK = ".partial-"
KEPT = 40  # letters of a name, at its end, that a temporary one has too


def temporary(path: Path) -> Path:
    """A name beside `path` for what is not yet whole: nobody else's, on any machine that shares the disk."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum())[:16]
    # The end of the name keeps its suffix; the whole of a long one would not fit the 255 bytes of a name.
    return path.with_name(f"{MARK}{host}-{os.getpid()}-{secrets.token_hex(4)}-{path.name[-KEPT:]}")


@contextmanager
def replacing_path(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends, synced, and is gone where the block raises.

    For what is written by a library that wants a name; `replacing` gives an open file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:  # a full disk does not say where
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write; it takes the place of `path` when the block ends, and is gone where the block raises."""
    with replacing_path(path) as partial, partial.open("wb") as file:
        yield file


def writable(folder: Path) -> None:
    """Make a folder where it is not there; OSError that names it where nothing can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder.resolve())) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes, whole or not at all."""
    with replacing(path) as file:
        # Half a surrogate pair, of a file's name or from JSON, becomes the escape that JSON reads back as the same.
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def add_line(path: Path, line: str) -> None:
    """Add a line to the end of a file, synced: whole or not at all, whatever kills this process or fills the disk."""
    data = f"{line}\n".encode(errors="backslashreplace")
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            if file.write(data) < len(data):  # one call: what is not taken has no room
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:  # a full disk does not say where
        error.filename = error.filename or str(path)
        raise


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, name: str = "") -> None:
    """Remove what a kill left half-written, files and folders, of one name where it is given.

    For the one writer of a folder, or of that name in it, alone.
    """
    for leftover in folder.glob(f"{MARK}*-{escape(name[-KEPT:])}" if name else f"{MARK}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
