"""Which prompt each stream of a row reads, in each kind of guidance pass, and which words a model does not know."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ccl.rows import Row
from ccl.text.vocabulary import unknown
from ccl.types import AV, Pass, Text


def texts_of(rows: Sequence[Row], passes: Collection[Pass]) -> dict[Text, AV[list[str]]]:
    """The prompts of all rows, for each stream, by what the passes call them; what no pass reads is left out."""
    texts = dict.fromkeys(text for one in passes for text in one.text)
    return {text: AV(*([read(row, text)[i] for row in rows] for i in range(2))) for text in texts}


def read(row: Row, text: Text) -> AV[str]:
    """What each stream of a row reads where a pass names that text."""
    if text == "positive":
        return AV(row.prompt, row.prompt)
    if text == "negative":
        return AV(row.negative, row.negative if row.negative_audio is None else row.negative_audio)
    return AV("", "")


def written(row: Row) -> list[str]:
    """All prompts of a row."""
    return [row.prompt, *row.then, row.negative, *([] if row.negative_audio is None else [row.negative_audio])]


def notes_of(rows: Sequence[Row], remarks: Sequence[str], known: Collection[str] | None) -> list[list[str]]:
    """The notes of each row before its media are read.

    Args:
        rows: whose clips are to be made.
        remarks: on all of them.
        known: words that the model has learned, where it says so; others are noted.
    """
    words = ([note] if known and (note := unknown(written(row), known)) else [] for row in rows)
    return [[*remarks, *of_row] for of_row in words]
