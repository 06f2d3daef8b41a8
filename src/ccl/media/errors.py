"""What is said of a file that cannot be used, and whose fault it is: the file's or the machine's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av.error

from ccl.files import machine_trouble
from ccl.grid import PICTURES, SOUND

LARGEST = {"pictures": PICTURES, "sound": SOUND}  # bytes that one file may unfold to


class MediaError(ValueError):
    """A file that cannot be used: `str` is one sentence naming it, `reason` the part after its name."""

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = str(name), reason

    def __reduce__(self) -> tuple[Any, ...]:  # it travels between the processes of a loader
        return MediaError, (self.name, self.reason)


@contextmanager
def faults(source: str | Path | bytes, name: str, what: str) -> Iterator[None]:
    """Whatever ffmpeg or a picture's decoder says within the block becomes a MediaError: the name, `what`, the detail.

    Raises:
        MediaError: the file is at fault.
        OSError, MemoryError: the machine is (`ccl.files.machine_trouble`).
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:  # bytes of unknown origin make parsers raise nearly anything
        if machine_trouble(error) and not _made_up(error, source):
            raise
        detail = (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
        # Not chained: what the file made up must not be found again as the machine's trouble.
        raise MediaError(name, f"{what} ({detail})" if detail else what) from None


def _made_up(error: BaseException, source: str | Path | bytes) -> bool:
    """Whether ffmpeg says of a file's own making what a machine in trouble would say."""
    if not isinstance(error, av.error.FFmpegError):
        return False
    if error.errno == errno.EAGAIN:  # of a decoder, which wants another packet
        return True
    if error.errno == errno.EIO:  # said of files that end too early, too; a bad disk fails here as well
        if not isinstance(source, bytes):
            with Path(source).open("rb") as file:
                while file.read(2**20):
                    pass
        return True
    return False


def check_size(name: str, what: str, size: int | float) -> None:
    """MediaError where a file unfolds to more bytes of pictures or sound than are read."""
    if size > LARGEST[what]:
        most = f"{LARGEST[what] / 2**30:g} is the most that is read"
        raise MediaError(name, f"its {what} would take {size / 2**30:,.0f} GB and more, {most}")
