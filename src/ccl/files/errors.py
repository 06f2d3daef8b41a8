"""What goes wrong with a file, in a sentence that begins with its name; or with the machine, where that is at fault."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

# Trouble of the machine, whatever file it is met at: a full disk or quota, too many open files, no memory, a bad disk.
MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EIO, errno.EROFS, errno.ESTALE, errno.EAGAIN),
}
SPARE = 2**28  # bytes that can be had at once where memory is not short
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
        if isinstance(error, KeyError):  # of a number: a code that the parser does not know
            said = "it is no such file" if said.isdigit() else f"it lacks {said}"
        said = said[:200]
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
