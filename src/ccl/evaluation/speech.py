# ruff: noqa: RUF001 - quotes of many languages
"""What is to be spoken in a clip, as a row of a test set says it: its speech, or what its prompt has in quotes."""

from __future__ import annotations

import re
from collections.abc import Iterator

SILENT = "nothing was to be spoken"
# How quotes open, and all the ways in which they then close. Besides, Ovi's prompts have speech between tags.
QUOTES = {
    '"': '"', "＂": "＂", "“": "”", "”": "”",  # English; Swedish and Finnish close as they open
    "„": "“”", "‚": "‘’",  # German, and Polish with the second
    "«": "»", "»": "«»", "‹": "›", "›": "‹›",  # French; German and Danish, Finnish
    "「": "」", "｢": "｣", "『": "』", "﹁": "﹂", "﹃": "﹄", "〝": "〞〟",
}  # fmt: skip
COUNTED = 'it stands in "...", “...”, „...“, «...» or 「...」'
TAGS = "<S>", "<E>"
# These may be apostrophes as well, so they are not read: rock ‘n’ roll, the ‘boys’ toys’.
OTHERS = re.compile("[‟❝❞❠⹂🙶🙷🙸]|&(?:quot|[lr]dquo|#34);|``")
SINGLE = re.compile(r"(?<!\w)['‘][^'‘’]{2,}['’](?!\w)")
ENDS = ".!?…。！？"  # of sentences
# All that opens or closes one but ‘ and ’, of which most are apostrophes.
MARKS = re.compile(
    "|".join([*map(re.escape, TAGS), f"[{''.join({*QUOTES, *''.join(QUOTES.values())} - {*'‘’'})}]", OTHERS.pattern])
)


def spoken(speech: str, prompt: str) -> str:
    """The words to be spoken: those the row names, else those that its prompt has in quotes.

    "" where there are none, or where it is not clear which they are: `unclear` says why.
    """
    if speech.strip():
        return speech.strip()
    found = list(quoted(prompt))
    return "" if None in found else " ".join(words.strip() for words in found if words and words.strip())


def unclear(prompt: str) -> str:
    """Why a prompt does not say for certain what is to be spoken; "" where it does, or where nobody speaks."""
    found = list(quoted(prompt))
    if None in found:
        return f"the prompt's quotes do not all close, so what is to be spoken is not clear; {COUNTED}"
    if not any(found) and OTHERS.search(prompt):
        return f"the prompt has quotation marks that are not read; {COUNTED}"
    if not any(found) and SINGLE.search(prompt):
        return f"the prompt has single quotes, which may be apostrophes; {COUNTED}"
    return ""


def quoted(prompt: str) -> Iterator[str | None]:
    """What stands in quotes, in turn; None for a quote that does not close.

    A double quote behind a digit opens nothing: it is inches.
    """
    place = 0
    while place < len(prompt):
        mark = prompt[place]
        if prompt.startswith(TAGS[0], place):
            begun = place + len(TAGS[0])
            end = prompt.find(TAGS[1], begun)
            place = end + len(TAGS[1])
        elif mark in QUOTES and not (mark in '"”' and place and prompt[place - 1].isdigit()):
            begun = place + 1
            end = closing(prompt, begun, mark)
            place = end + 1
        else:
            place += 1
            continue
        if end < 0:
            yield None
            return
        yield prompt[begun:end]


def saying(words: str, description: str = "") -> str:
    """A prompt of what is described and of who says these words, of which `spoken` finds these and no others.

    What else stands in quotes, such as the letters of a sign, loses them. A description that has the very words in
    quotes stays as it is. Without words, nobody speaks.
    """
    words = " ".join(words.replace('"', "").split())
    if words and spoken("", " ".join(description.split())) == words:
        return description
    description = unquoted(description).strip()
    if not words:
        return description
    end = "." if description and description[-1] not in ENDS else ""
    return f'{description}{end} Someone says "{words}"'.strip()


def unquoted(text: str) -> str:
    """A text without the marks of its quotes, so that nothing in it is spoken."""
    while (found := SINGLE.sub(lambda quote: quote[0][1:-1], MARKS.sub("", text))) != text:
        text = found
    return text


def closing(prompt: str, begun: int, mark: str) -> int:
    """Where the quote closes that `mark` opened before `begun`; -1 where it does not."""
    depth = 0
    for place in range(begun, len(prompt)):
        letter = prompt[place]
        if letter in QUOTES[mark]:
            # Within a word it is an apostrophe: don’t.
            if letter == "’" and prompt[place - 1].isalnum() and prompt[place + 1 : place + 2].isalnum():
                continue
            if not depth:
                return place
            depth -= 1
        elif letter == mark:
            depth += 1
    return -1
