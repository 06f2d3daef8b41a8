"""Files written whole or not at all, by one writer a folder, and read with their name in whatever goes wrong.

A file is made beside its target under a name that begins with MARK, synced, then renamed over it. What a kill leaves
under such names is swept by the next writer, who holds the folder's lock: nobody else can be at work there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from shutil import rmtree
from typing import IO

MARK = ".partial-"
LOCK = ".lock"
# Trouble of the machine, whatever file it is met at: a full disk or quota, too many open files, no memory, a bad disk.
MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EIO, errno.EROFS, errno.ESTALE, errno.EAGAIN),
}
SPARE = 2**28  # bytes that can be had at once where memory is not short
LARGE = 2**26  # bytes of a file whose sum is worth remembering
SETTLED = 2 * 10**9  # nanoseconds after which a write that follows has another time, on any file system
# The same, as libraries say it that have errors of their own, without a number.
TROUBLE = re.compile(
    r"can't start new thread|out of memory|not enough memory|can't allocate memory|Cannot allocate memory|bad_?alloc"
    r"|Insufficient memory|CUDA error|CU\w+_STATUS_\w+|No space left on device|Too many open files"
    r"|unable to open shared memory|died with <Signals|terminated abruptly|killed by signal",
    re.IGNORECASE,
)


class FileError(ValueError):
    """A file that cannot be used; the message is one sentence that begins with its name."""


class MachineError(OSError):
    """The machine cannot go on; the message is one sentence that names what it was met at."""


# Writing ------------------------------------------------------------------------------------------------------------


def temporary(path: Path) -> Path:
    """A name beside `path` for what is not yet whole: nobody else's, on any machine that shares the disk."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum())[:16]
    # The end of the name keeps its suffix; the whole of a long one would not fit the 255 bytes of a name.
    return path.with_name(f"{MARK}{host}-{os.getpid()}-{secrets.token_hex(4)}-{path.name[-40:]}")


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


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text or bytes, whole or not at all."""
    with replacing(path) as file:
        # Half a surrogate pair, of a file's name or from JSON, becomes the escape that JSON reads back as the same.
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written, files and folders; for the one writer of a folder alone."""
    for leftover in folder.glob(f"{MARK}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


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


def _locked(path: Path, otherwise: str, wait: bool) -> IO[str] | None:
    """The lock file of a folder, locked; None where its holder took it away meanwhile, and another must be made."""
    import fcntl

    if path.is_symlink():
        raise FileError(f"{path} leads elsewhere, and what is there must not be written; remove it")
    file = path.open("a+")
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


os.register_at_fork(after_in_child=_release_in_child)


# Reading ------------------------------------------------------------------------------------------------------------


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Whatever goes wrong while a file is read, in one sentence that begins with the file's name.

    Bytes of unknown origin make parsers raise nearly anything, torch's even what is no Exception.

    Args:
        path: of the file.
        what: it should be, as "a checkpoint", for the message.

    Raises:
        FileError: what went wrong, with the file's name.
        OSError, MemoryError: the machine's trouble, which says nothing of the file.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, FileError):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and (error.strerror or machine_trouble(error)):
            error.filename = error.filename or str(path)
            raise
        said = " ".join(str(error).split())
        if isinstance(error, ValueError) and str(path) in said:
            raise  # it names the file already
        if isinstance(error, UnpicklingError) and "Weights only load failed" in said:  # and how to run it all the same
            said = "it holds more than tensors and plain values, which could be code, or is no such file"
        said = f"it lacks {said}" if isinstance(error, KeyError) else said[:200]
        raise FileError(f"{path} cannot be read as {what} ({said or type(error).__name__})") from error


def machine_trouble(error: BaseException) -> bool:
    """Whether an error is the machine's (disk, memory, open files, a GPU, a process that was killed) and says nothing
    of the file it was met at.

    What follows from it must never be stored as a result of that file.
    """
    seen: BaseException | None = error
    while seen is not None:
        claimed = isinstance(seen, MemoryError) and _claimed(seen)
        numbered = isinstance(seen, OSError) and seen.errno is not None
        # A ValueError is somebody's judgement of a value, a LookupError names a key: both may quote what a user wrote.
        worded = not (claimed or numbered or isinstance(seen, ValueError | LookupError)) and TROUBLE.search(str(seen))
        if worded or (isinstance(seen, MemoryError) and not claimed):
            return True
        if isinstance(seen, OSError) and seen.errno in MACHINE:
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


def _claimed(error: BaseException) -> bool:
    """Whether libav lacks memory because a file claims more than any has: where memory is not short, it is that.

    A table of 10^9 entries in a damaged mp4 and a machine without memory end in the same error.
    """
    if not type(error).__module__.startswith("av"):
        return False
    try:
        bytearray(SPARE)
    except MemoryError:
        return False
    return True


@contextmanager
def naming(what: str, less: str = "") -> Iterator[None]:
    """Put into the machine's trouble what it was met at, and how the run goes on.

    Args:
        what: the clip that was being worked on.
        less: what would need less memory, as "a smaller --batch-size".

    Raises:
        MachineError: the machine's trouble; any other error passes.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MachineError) or not machine_trouble(error):
            raise
        said = " ".join(str(getattr(error, "strerror", None) or error).split())[:200].removeprefix(f"{what}: ")
        hint = f", or with {less}," if less and "memory" in f"{type(error).__name__} {said}".lower() else ""
        raise MachineError(
            f"{what}: {said or 'out of memory'}; this is the machine's trouble and no result of the clip, of which "
            f"nothing is kept: the same command{hint} goes on from here"
        ) from error


def plain_name(name: object, where: object) -> str:
    """A name that a file gives for another one beside it: it must be a plain name, so that nothing outside is touched.

    Args:
        name: as found in a file.
        where: it was found, for the message.

    Raises:
        FileError: it is no text, is empty, hidden or too long, or leads to another folder.
    """
    plain = isinstance(name, str) and 0 < len(name.encode(errors="replace")) <= 255 and not name.startswith(".")
    if not plain or any(letter in "/\\" or not letter.isprintable() for letter in str(name)):
        raise FileError(f"{where} names {str(name)[:80]!r}, which is not a plain file name")
    return str(name)


# Sums ---------------------------------------------------------------------------------------------------------------


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
