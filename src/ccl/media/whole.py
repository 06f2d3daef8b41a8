"""Whether a file ends before it should, by the sizes in its own outermost structure.

ISO media (mp4, mov) is a row of boxes, Matroska one segment, RIFF (wav, avi) and AIFF a row of forms. A size that a
writer left open, as for a live stream, promises nothing.
"""

from __future__ import annotations

from io import BufferedIOBase
from typing import Literal

_OPEN = 2**31 - 2**16  # sizes of forms from here on are what those put down who write to a pipe
_SLACK = 64  # bytes: some writers count their own header in
_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(file: BufferedIOBase) -> int:
    """How many bytes a file lacks of what it promises; 0 where it is whole or promises nothing."""
    length = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    if head[4:] in _BOXES:
        end = _boxes(file, length)
    elif head[:4] == _EBML:
        end = _segment(file)
    elif head[:4] in (b"RIFF", b"FORM"):
        end = _forms(file, length, "little" if head[:4] == b"RIFF" else "big")
    else:
        end = 0
    return end - length if end > length + _SLACK else 0


def _boxes(file: BufferedIOBase, length: int) -> int:
    """Where the last box that holds media ends."""
    at = end = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size < 8:  # 0 is up to the file's end; less is no box
            break
        at += size
        end = at if kind in (b"moov", b"mdat", b"moof") else end
    return end


def _forms(file: BufferedIOBase, length: int, order: Literal["little", "big"]) -> int:
    """Where the last form ends: a long avi has several."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(8)
        size = int.from_bytes(head[4:], order)
        if head[:4] not in (b"RIFF", b"FORM") or size >= _OPEN:
            break
        at += 8 + size + size % 2
    return at


def _segment(file: BufferedIOBase) -> int:
    """Where a Matroska segment ends, which follows the EBML header."""
    file.seek(4)
    file.seek(_number(file) or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _number(file)
    return 0 if size is None else file.tell() + size


def _number(file: BufferedIOBase) -> int | None:
    """A Matroska size: as many bytes as its first one has zeros in front, and one; None where all its bits are set."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    most = (1 << 7 * width) - 1
    value = int.from_bytes(first + file.read(width - 1), "big") & most
    return None if value == most else value
