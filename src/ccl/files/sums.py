"""Sums of files, and those that a checkpoint carries, so that a flipped bit is told and not trained on.

A file of torch's is a zip, and the sha256 of its bytes stands in the comment at its end: one file, which may be moved.
A sharded checkpoint is a folder, and the sums of its files stand in its marker, in the form that `sha256sum -c` reads.
Checkpoints from before there were sums are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ccl.files.errors import FileError, reading
from ccl.files.whole import sync, write_whole

TAG = b"sha256 "
SIZE = len(TAG) + 64  # of the comment
END = b"PK\x05\x06"  # begins the last 22 bytes of a zip, of which two are the length of the comment that follows
DAMAGED = "is damaged: its bytes are not those that were written; take another checkpoint"
LARGE = 2**26  # bytes of a file whose sum is worth remembering
SETTLED = 2 * 10**9  # nanoseconds after which a write that follows has another time, on any file system


def sha256_now(path: str | Path) -> str:
    """The sha256 of a file's bytes, as they are now."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(path: str | Path) -> str:
    """The sha256 of a file, read once while its size and time are the same: a large one's is remembered for the user.

    So 50 GB of weights are not read again at every load. What a disk does to a file by itself is then not seen; where
    it must be, as of a checkpoint that a training goes on from, `sha256_now` is asked.
    """
    stat = Path(path).stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns, f"{stat.st_dev}-{stat.st_ino}")


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int, place: str) -> str:
    if size < LARGE:
        return sha256_now(path)
    kept = cache() / "sums" / f"{place}-{size}-{changed}"
    with suppress(OSError, ValueError):  # where it is not known yet
        if re.fullmatch("[0-9a-f]{64}", known := kept.read_text()):
            return known
    settled = time.time_ns() - changed > SETTLED
    found = sha256_now(path)
    if settled and Path(path).stat().st_mtime_ns == changed:
        with suppress(OSError):
            write_whole(kept, found)
    return found


def cache() -> Path:
    """The folder of what can be had again: $XDG_CACHE_HOME/ccl, or ~/.cache/ccl."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ccl"


def seal(path: Path) -> None:
    """Add the sum of a zip file, as it stands, as its comment."""
    comment = TAG + sha256_now(path).encode()
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(len(comment).to_bytes(2, "little") + comment)


def check_seal(path: Path) -> None:
    """Compare a zip file with the sum in it, if it has one.

    Raises:
        FileError: it is not as it was written.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(END) - 18 - SIZE))
        tail = file.read()
        end = tail.rfind(END)
        if end < 0:  # no zip at all: told by who reads it
            return
        length, comment = int.from_bytes(tail[end + 20 : end + 22], "little"), tail[end + 22 :]
        if not length and not comment:
            return
        file.seek(0)
        digest, left = hashlib.sha256(), path.stat().st_size - len(comment) - 2
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        digest.update(bytes(2))
    if length != SIZE or comment != TAG + digest.hexdigest().encode():
        raise FileError(f"{path} {DAMAGED}")


def sums_of(folder: Path, rank: int) -> dict[str, str]:
    """Sums by name of the files that a process has written into a sharded checkpoint, which are synced first.

    Args:
        folder: of the checkpoint.
        rank: of the process; the first one answers for what no process has in its name, too.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    own = [name for name in names if name.startswith(f"__{rank}_") or (rank == 0 and not name.startswith("__"))]
    for name in own:
        sync(folder / name)
    return {name: sha256_now(folder / name) for name in sorted(own)}


def write_sums(sums: Mapping[str, str]) -> str:
    """Sums by name as text."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def check_sums(folder: Path, marker: Path, *, part: int = 0, parts: int = 1) -> None:
    """Compare the files of a sharded checkpoint with their sums, if it has any.

    Args:
        folder: of the checkpoint.
        marker: the file of the sums.
        part: of the files that is looked at, among `parts`: each of many processes takes its own.
        parts: of which there are that many.

    Raises:
        FileError: one of them is not as it was written, or gone.
    """
    with reading(marker, "the sums of a checkpoint"):
        rows = [line.split("  ", 1) for line in marker.read_text().splitlines()]
        sums = {name: digest for digest, name in rows}
    there = {path.name for path in folder.iterdir()}  # so that no name leads elsewhere
    for name in sorted(sums)[part::parts]:
        if name not in there:
            raise FileError(f"{folder} is damaged: its file {name} is gone; take another checkpoint")
        if sha256_now(folder / name) != sums[name]:
            raise FileError(f"{folder / name} {DAMAGED}")
