"""Text of users' files, read rightly or refused with the line, and text of any origin as a terminal may show it.

A file is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 where it begins with theirs. Nothing is put in
the place of what cannot be read: a wrong letter would end as a wrong prompt, or as words that nobody could say.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ccl.files import FileError

MARKS = {  # UTF-32's begins as UTF-16's does, so it is looked for first
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
MARK = "\ufeff"
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of tables that are no CSV
NO_TEXT = re.compile("[\0\ufffd\ud800-\udfff]")
# Control characters but tab and newline, those that turn the direction of what follows, and half characters.
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def read_text(path: str | Path) -> str:
    """The whole text of a file, without its byte order mark.

    Raises:
        FileError: it is not UTF-8 (nor begins with another mark of Unicode), or holds characters that no text has; with
            the line.
    """
    raw = Path(path).read_bytes()
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if raw.startswith(mark)), (b"", "utf-8"))
    raw = raw[len(mark) :]
    try:
        text = raw.decode(encoding).removeprefix(MARK)
    except UnicodeDecodeError as error:
        line = raw[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise FileError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from error
    if found := NO_TEXT.search(text):
        raise FileError(f"{path}, line {text.count(chr(10), 0, found.start()) + 1}: {unreadable(text)}")
    return text


def unreadable(text: str) -> str:
    """What keeps a string from being text, in words; "" where nothing does."""
    found = NO_TEXT.search(text)
    if found is None:
        return ""
    if found[0] == "\0":
        return "holds a NUL character, which no text has (UTF-16 without its mark?)"
    if found[0] == "\ufffd":
        return "holds U+FFFD, which stands where a program could not read a letter"
    return f"holds half a character, {ascii(found[0])[1:-1]}"


def check_prompt(prompt: str) -> None:
    """ValueError in words where a prompt says nothing, or is no text.

    An empty one is refused wherever prompts are read: it is what a slip looks like, and nobody can score what comes of
    it. Code that wants it, as guidance does, writes `Row` itself.
    """
    if not prompt.strip():
        raise ValueError("has no prompt")
    if fault := unreadable(prompt):
        raise ValueError(f"its prompt {fault}")


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Line number and value of each line of a JSONL file that is not blank; lines end at newlines alone.

    Raises:
        FileError: a line is no JSON, or names a key twice; with its number.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        # Files that were joined have a mark in their middle.
        if line := line.strip().lstrip(MARK):
            try:
                yield number, one_json(line)
            except ValueError as error:
                raise FileError(f"{path}, line {number}: {error}") from error


def one_json(line: str) -> Any:
    """The value of a JSON text. ValueError where it is none, names a key twice or holds NaN or infinity."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise ValueError(f"the key '{twice[0]}' stands there twice")
        return dict(pairs)

    def constant(name: str) -> None:
        raise ValueError(f"is not JSON: {name} is no number")

    try:
        return json.loads(line, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("is not JSON that can be read: nested too deeply") from error


def strings(value: Any) -> Iterator[str]:
    """Every string of a value that JSON holds, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from strings(part)


def csv_rows(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line at which it begins, and cells by column, of each row of a CSV file that has a head; blank rows are skipped.

    Args:
        path: of the file.
        columns: that it must have; others may stand beside them.

    Raises:
        FileError: a column is missing or there twice, a row has more or fewer cells than the head, a quote is not
            closed; with the row's first line.
    """
    # A quote behind ", " opens a cell, too: else it would stand in the text, where quotes mean that something is said.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True, skipinitialspace=True)
    head: list[str] = []
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise FileError(f"{path}, line {line}: {_unclosed(str(error))}") from error
        begun, line = line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not head:
            head = [name.strip() for name in cells]
            if fault := _head_fault(head, columns):
                raise FileError(f"{path}, line {begun}: {fault}")
        elif len(cells) != len(head):
            raise FileError(
                f"{path}, line {begun}: has {len(cells)} cells where the head has {len(head)}; "
                'a text with commas stands in double quotes, and "" within it is one quote'
            )
        else:
            yield begun, dict(zip(head, cells, strict=True))
    if not head:
        raise FileError(f"{path} holds no rows")


def _head_fault(head: Sequence[str], columns: Sequence[str]) -> str:
    """What is wrong with a table's first row, in words; "" where nothing is."""
    wanted = " and ".join(f"`{name}`" for name in columns)
    for delimiter, name in DELIMITERS.items():
        if len(head) == 1 and delimiter in head[0]:
            return f"its columns are divided by {name}; commas must divide {wanted}"
    if missing := [name for name in columns if name not in head]:
        return f"the head lacks `{missing[0]}`; it must have {wanted}"
    if twice := [name for name, count in Counter(head).items() if count > 1 and name]:
        return f"the head has `{twice[0]}` twice"
    return ""


def _unclosed(error: str) -> str:
    """csv's words for a quote that is not closed, or closed too early, in ours."""
    if "unexpected end of data" in error:
        return "a double quote is opened and never closed"
    if "expected after" in error:
        return 'a closing double quote is followed by text; "" is a quote within quotes'
    return error


def printable(text: str) -> str:
    r"""Text as a terminal may show it: what could move, hide or turn round what stands there, as \x1b."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
