"""What a prompt tells each stream: the sound its words, which stand in double quotes, the pictures its description,
which is all the rest; and a prompt with another one's words or description in the place of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ccl.generation import terms
from ccl.types import Stream

QUOTED = re.compile('(["“„])([^"“”„]*)(["”“])')


@dataclass(frozen=True)
class PromptPart:
    """A part of prompts, and who is told by it.

    Args:
        name: of the part.
        stream: the one that needs it.
        of: that part of a prompt, to be compared; "" where the prompt has none.
        swapped: a prompt with this part of the second one's.
        does: what a prompt does by it, in words.
        where: where it stands, in words.
        alike: another one's is the one that differs in fewest words, else the next in the list that differs. A
            description tells many things, and a stream that reads a few of them tells most descriptions apart.
    """

    name: str
    stream: Stream
    of: Callable[[str], str]
    swapped: Callable[[str, str], str]
    does: str
    where: str
    alike: bool = False

    def __str__(self) -> str:
        return f"{self.name} to the {getattr(terms.WORDS, self.stream)}"

    def fault(self, prompts: Sequence[str]) -> str:
        """Why no prompt can be told from another one by this part; "" where each can."""
        if not prompts:
            return f"no clip's prompt {self.does}s anything; {self.where}"
        if lacking := [prompt for prompt in prompts if not self.of(prompt)]:
            return f"the prompt {lacking[0]!r} {self.does}s nothing; {self.where}"
        if len({self.of(prompt) for prompt in prompts}) == 1:
            return f"all prompts {self.does} the same; clips that {self.does} different things are needed"
        return ""

    def with_others(self, prompts: Sequence[str]) -> list[str]:
        """The prompts, each with this part of another one in which it differs; of several that suit, of the next.

        Raises:
            ValueError: there are none, one has no such part, or that of all is the same.
        """
        if fault := self.fault(prompts):
            raise ValueError(fault)
        parts, n = [self.of(prompt) for prompt in prompts], len(prompts)
        bags = [Counter(part.split()) for part in parts]

        def apart(i: int, j: int) -> int:  # words that only one of both has
            return sum(((bags[i] - bags[j]) + (bags[j] - bags[i])).values()) if self.alike else 0

        found = [[j % n for j in range(i + 1, i + n) if parts[j % n] != parts[i]] for i in range(n)]
        others = [min(differing, key=partial(apart, i)) for i, differing in enumerate(found)]
        return [self.swapped(prompt, prompts[j]) for prompt, j in zip(prompts, others, strict=True)]


def said(prompt: str) -> str:
    """What somebody says in a prompt, in small letters; "" where nobody speaks."""
    found = QUOTED.search(prompt)
    return found[2].casefold() if found and found[2].strip() else ""


def described(prompt: str) -> str:
    """What a prompt says outside its quotes, in small letters; "" where that is nothing."""
    outside = " ".join(QUOTED.sub(" ", prompt).casefold().split())
    return outside if re.search(r"\w", outside) else ""


def with_words(prompt: str, other: str) -> str:
    """A prompt with another one's words in its quotes."""
    words = QUOTED.findall(other)[0][1]
    return QUOTED.sub(lambda own: f"{own[1]}{words}{own[3]}", prompt, count=1)


def with_description(prompt: str, other: str) -> str:
    """Another prompt with the words of this one in its quotes: what is said stays as it was.

    Quotes that it has too many are left out, and words for which it has none stand at its end.
    """
    words = [found[0] for found in QUOTED.finditer(prompt)]
    filled = QUOTED.sub(lambda _: words.pop(0) if words else "", other)
    return " ".join([filled.rstrip(), *words])


WORDS = PromptPart("words", "audio", said, with_words, "say", "words that are spoken stand in double quotes")
DESCRIPTION = PromptPart(
    "description", "video", described, with_description, "describe", "what is to be seen stands outside of the quotes",
    alike=True,
)  # fmt: skip
PARTS = (WORDS, DESCRIPTION)
