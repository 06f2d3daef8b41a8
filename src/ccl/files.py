"""Files written whole or not at all: a temporary file beside the target, synced, then renamed over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

MARK = ".partial-"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; it takes the place of `path` when the block ends, and is gone where the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{MARK}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:  # a full disk does not say where
        if error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes, whole or not at all."""
    with replacing(path) as file:
        # Half a surrogate pair, of a file's name or from JSON, becomes the escape that JSON reads back as the same.
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written; only for the one process that writes here."""
    for leftover in folder.glob(f"{MARK}*"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
