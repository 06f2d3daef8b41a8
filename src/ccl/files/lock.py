"""One writer a folder: a lock that a kill of any kind lets go; and temporary folders, which are known by it."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import IO

from ccl.files.errors import FileError

LOCK = ".lock"
_HELD: dict[Path, IO[str]] = {}


@contextmanager
def one_writer(
    folder: Path,
    otherwise: str = "wait for it, or choose another folder",
    *,
    wait: bool = False,
    name: str = LOCK,
) -> Iterator[None]:
    """Keep other processes from writing in a folder, which is made where it is not there.

    A kill of any kind lets them in again. A process may take what it holds a second time.

    Args:
        folder: to write in.
        otherwise: what the other one's user may do, for the message.
        wait: until the other one is done, instead of raising: what it makes is what this one needs. A line says so.
        name: of the lock, for those who share a folder and keep others from a part of it.

    Raises:
        FileError: another process is at work there, or the name is a file's.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file, and a folder is needed")
    folder.mkdir(parents=True, exist_ok=True)
    here = folder.resolve() / name
    if here in _HELD:
        yield
        return
    while (file := _locked(folder / name, otherwise, wait)) is None:
        pass
    with file:
        _HELD[here] = file
        try:
            yield
        finally:
            if _HELD.pop(here, None) is file:  # in a forked child it is not
                here.unlink(missing_ok=True)


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder that is removed at the end; those of processes that were killed are removed, too.

    A folder is known by a lock in it that bears its name and this machine's: no other, nor a copy, is ever removed, and
    none where the file system does not say whether its process lives.

    Args:
        prefix: of its name, by which those of its kind are looked for.
    """
    import fcntl

    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # it is in use, another's, or has no such lock
            if left.lstat().st_uid == os.getuid() and not left.is_symlink():
                with open(os.open(left / _mark(left), os.O_RDWR | os.O_NOFOLLOW)) as file:  # noqa: PTH123 - a number
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    mark = folder / _mark(folder)
    try:
        with mark.with_name("new").open("w") as file:
            with suppress(OSError):  # a file system that knows no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(file.name).replace(mark)  # it is there only when it is locked
            _HELD[mark] = file
            try:
                yield folder
            finally:
                if _HELD.pop(mark, None) is file:  # in a forked child it is not
                    _remove(folder)
    except OSError:
        with suppress(OSError):
            folder.rmdir()  # where its lock had no room
        raise


def _mark(folder: Path) -> str:
    return f"{LOCK}-{socket.gethostname()}-{folder.name}"


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: what a kill leaves is still known by it."""
    with suppress(OSError):  # what cannot go is left to the next
        mark = folder / _mark(folder)
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                rmtree(path)
            elif path != mark:
                path.unlink()
        mark.unlink()
        folder.rmdir()


def _locked(path: Path, otherwise: str, wait: bool) -> IO[str] | None:
    """The lock file of a folder, locked; None where its holder took it away meanwhile, and another must be made."""
    import fcntl

    if path.is_symlink():
        raise FileError(f"{path} leads elsewhere, and what is there must not be written; remove it")
    try:
        file = path.open("a+")
    except OSError as error:  # of the folder that the user named, not of a file that they never see
        raise OSError(error.errno, error.strerror, str(path.parent.resolve())) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = "".join(letter for letter in file.read(80).strip() if letter.isprintable())
            taken = f"{path.parent} is being written by another process{f' ({who})' if who else ''}"
            if not wait:
                file.close()
                raise FileError(f"{taken}; {otherwise}") from error
            sys.stderr.write(f"ccl: {taken}; waiting for it\n")
            sys.stderr.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_at(file, path):
            file.close()
            return None
    except OSError:
        pass  # a file system that knows no locks
    with suppress(OSError):  # on a full disk the lock holds without saying whose it is
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()} on {socket.gethostname()}\n".encode())
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _release_in_child() -> None:
    """A forked worker shares its parent's lock; were it to keep it, a killed parent's folder would stay locked."""
    for file in _HELD.values():
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, file.fileno())  # not closed: the number would go to another file, which Python then closes
        os.close(nothing)
    _HELD.clear()


if hasattr(os, "fork"):  # not on Windows, where `ccl doctor` still has to say so
    os.register_at_fork(after_in_child=_release_in_child)
