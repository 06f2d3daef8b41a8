"""Whether a file ends before it should, or holds another one behind its end, by the sizes in its outermost structure.

ISO media (mp4, mov) is a row of boxes, Matroska one segment, RIFF (wav, avi) and AIFF a row of forms, FLV one of tags.
A size that a writer left open, as for a live stream, promises nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase

_OPEN = 2**31 - 2**16  # sizes of forms from here on are what those put down who write to a pipe
_SLACK = 64  # bytes: some writers count their own header in
_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip")
_FORMS = (b"RIFF", b"FORM")
_FLV, _FLV_TAGS = b"FLV", (8, 9, 18)  # of sound, pictures and data
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(file: BufferedIOBase) -> int:
    """How many bytes a file lacks of what it promises; 0 where it is whole or promises nothing."""
    length, head = _begin(file)
    if head[4:] in _BOXES:
        end = max((end for kind, end in _boxes(file, length) if kind in (b"moov", b"mdat", b"moof")), default=0)
    elif head[:4] == _EBML:
        return _missing_of_segment(file, length)
    elif head[:3] == _FLV:
        end = _tags(file, length)[0]
        end = 2 * length - end if end < length else end  # behind the last tag lies nothing that is one
    elif head[:4] in _FORMS:
        end = max((end for _, end in _forms(file, length)), default=0)
    else:
        end = 0
    return end - length if end > length + _SLACK else 0


def is_joined(file: BufferedIOBase) -> bool:
    """Whether behind a film or sound lies another of its kind, to which no reader would come."""
    length, head = _begin(file)
    if head[4:] in _BOXES:
        kinds = [kind for kind, _ in _boxes(file, length)]
        return kinds.count(b"moov") > 1 and b"moof" not in kinds  # fragments of all parts are read
    if head[:4] in _FORMS:
        return [kind for kind, _ in _forms(file, length)][1:2] in ([b"WAVE"], [b"AIFF"], [b"AIFC"])
    return head[:3] == _FLV and _tags(file, length)[1]


def _begin(file: BufferedIOBase) -> tuple[int, bytes]:
    """How long a file is, and its first eight bytes."""
    length = file.seek(0, 2)
    file.seek(0)
    return length, file.read(8)


def _boxes(file: BufferedIOBase, length: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of each box."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size < 8:  # 0 is up to the file's end; less is no box
            return
        at += size
        yield kind, at


def _forms(file: BufferedIOBase, length: int) -> Iterator[tuple[bytes, int]]:
    """Kind and end of each form: a long avi has several."""
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(12)
        size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        if head[:4] not in _FORMS or size >= _OPEN:
            return
        at += 8 + size + size % 2
        yield head[8:], at


def _tags(file: BufferedIOBase, length: int) -> tuple[int, bool]:
    """Where the row of FLV's tags ends, each followed by its size, and whether another file begins there."""
    file.seek(5)
    at = int.from_bytes(file.read(4), "big") + 4
    while at + 11 <= length:
        file.seek(at)
        head = file.read(4)
        if head[:3] == _FLV:
            return length, True
        if head[0] & 0x1F not in _FLV_TAGS:
            break
        at += 11 + int.from_bytes(head[1:], "big") + 4
    return at, False


def _missing_of_segment(file: BufferedIOBase, length: int) -> int:
    """As `missing_bytes`, of the Matroska segment behind an EBML header."""
    file.seek(4)
    file.seek(_number(file) or 0, 1)
    if file.read(4) != _SEGMENT or (size := _number(file)) is None:
        return 0
    at = file.tell()
    end = at + size
    while at < min(end, length):
        file.seek(at)
        first = file.read(1)[0]
        if not first:  # no element begins so: a download that reserved its place and never came
            return end - at
        file.seek(8 - first.bit_length(), 1)  # the rest of its name
        if (inner := _number(file)) is None:
            break
        at = file.tell() + inner
    return end - length if end > length + _SLACK else 0


def _number(file: BufferedIOBase) -> int | None:
    """A Matroska size: as many bytes as its first one has zeros in front, and one; None where all its bits are set."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    most = (1 << 7 * width) - 1
    value = int.from_bytes(first + file.read(width - 1), "big") & most
    return None if value == most else value
