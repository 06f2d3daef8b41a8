"""Words of sentences: what was probably meant by one that does not exist, and what is counted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """The word that is most like this one, or nothing where none is near."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), "")


def meant(word: str) -> str:
    """` (did you mean 'x'?)`, or nothing for no word: it goes behind what it corrects, wherever that stands."""
    return f" (did you mean '{word}'?)" if word else ""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no word is near."""
    return meant(nearest(word, words))


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2,000 clips`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
