"""What is to be spoken in a clip, as a row of a test set says it."""

from __future__ import annotations

import re

# Words that are spoken, in a prompt: "...", or between the speech tags of Ovi's prompts.
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|<S>(.+?)<E>', re.DOTALL)
SILENT = "nothing was to be spoken"


def spoken(speech: str, prompt: str) -> str:
    """The words to be spoken: those the row names, else those that its prompt has in quotes."""
    return speech.strip() or " ".join("".join(found) for found in QUOTED.findall(prompt))
