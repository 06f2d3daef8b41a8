"""What raters are asked of two clips, and which answer is right where it is known."""

from __future__ import annotations

from collections.abc import Sequence

from ccl.study.design import SAME, TRUE

# key: what the page asks.
QUESTIONS = {
    "sync": "In which do sound and picture fit together better?",
    "sound": "Which sounds better?",
    "picture": "Which looks better?",
    "overall": "Which is better overall?",
}
SHORT = 24  # letters of a question's key
LEFT, RIGHT, TIE, BROKEN = "left", "right", "tie", "broken"  # the last where the browser cannot play a clip
ANSWERS = (LEFT, RIGHT, TIE, BROKEN)
# Of a clip with another's sound: its pictures are the true one's, and the other sound may be the better one.
TELLS = ("sync", "overall")


def questions_of(given: Sequence[str]) -> dict[str, str]:
    """Texts by key, of keys that are known and of `KEY=TEXT`.

    Raises:
        ValueError: there is no such key, or one comes twice.
    """
    found: dict[str, str] = {}
    for one in given:
        key, sign, text = one.partition("=")
        if key in found:
            raise ValueError(f"the question '{key}' is there twice")
        if not sign and key not in QUESTIONS:
            raise ValueError(f"there is no question '{key}'; there are {', '.join(QUESTIONS)}, or write KEY=TEXT")
        if not (key.isidentifier() and len(key) <= SHORT) or (sign and not text.strip()):
            raise ValueError(f"'{one}' is no question; it must be KEY=TEXT, the key one word of up to {SHORT} letters")
        found[key] = text.strip() if sign else QUESTIONS[key]
    return found


def right_answer(check: str, question: str) -> str | None:
    """The side that a check wants: "", neither, of one clip twice; the true one's of a clip with another's sound; None
    where nothing is known.
    """
    if check == SAME:
        return ""
    return TRUE if question in TELLS else None
