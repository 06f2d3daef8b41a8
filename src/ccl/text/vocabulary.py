"""The words that a model knows whose text encoder learned them from the captions it was trained on.

A training gathers them as it begins: words.txt in its folder, one a line. They go with the model that is made of it, as
`provenance.words` of its config, and a prompt with others is told in a note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ccl.files import FileError, write_whole
from ccl.files.plaintext import read_text
from ccl.text.embedded import words_of

FILE = "words.txt"
MOST = 5000  # a model that has seen more is not asked for what it has not seen, and no config is to hold them
LETTERS = 100_000  # of them all, as a config spells them
TOLD = 8  # in one note


def gather(prompts: Iterable[str], known: Collection[str] = ()) -> list[str] | None:
    """The words of prompts and those known before, sorted; None where they are too many to be listed."""
    words = set(known)
    for prompt in prompts:
        words.update(words_of(prompt))
        if len(words) > MOST:
            return None
    return sorted(words) if sum(len(ascii(word)) for word in words) <= LETTERS else None


def write_words(folder: Path, words: Iterable[str] | None) -> None:
    """The list of a run, or none, in the place of what an earlier start has left."""
    if words is None:
        (folder / FILE).unlink(missing_ok=True)
    else:
        write_whole(folder / FILE, "".join(f"{word}\n" for word in words))


def read_words(folder: Path) -> list[str] | None:
    """The list of a run; None where it has none.

    Raises:
        FileError: it is longer than any of ours, or no text.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > LETTERS or len(words := read_text(path).split()) > MOST:
        raise FileError(f"{path} is no list of the words of a training; {MOST} are the most")
    return words


def unknown(prompts: Iterable[str], known: Collection[str]) -> str:
    """A note of the words of prompts that are none of these; "" where all are."""
    words = [word for prompt in prompts for word in words_of(prompt) if word not in known]
    words = list(dict.fromkeys(words))
    if not words:
        return ""
    more = f" and {len(words) - TOLD} more" if len(words) > TOLD else ""
    told = ", ".join(f"'{word}'" for word in words[:TOLD])
    return f"this model has not learned the word{'s' * (len(words) > 1)} {told}{more}"
