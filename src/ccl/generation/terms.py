"""The trained term that clips are sampled on: found by what is given and wanted, or by its name.

So no model is sampled on a route, or held at a time, that its training has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ccl.tasks import PAPER_TASKS, Task, Term, check, terms_of
from ccl.types import AV, STREAMS, Closed, Pass, Stream

WORDS = AV("pictures", "sound")


@dataclass(frozen=True)
class Asked:
    """What clips of one batch ask of a model.

    Args:
        given: the stream that is given whole.
        generated: the streams that are to be made.
        images: of each clip, whether its first picture is given as a latent frame.
    """

    given: Stream | None
    generated: AV[bool]
    images: Collection[bool] = (False,)

    def __str__(self) -> str:
        first = " from a first picture" if all(self.images) else " from some first pictures" if any(self.images) else ""
        whole = AV(*(stream == self.given for stream in STREAMS))
        return f"{listed(self.generated)}{for_given(whole)}{first}"


@dataclass(frozen=True)
class Trained:
    """The terms that a model was trained on.

    Args:
        terms: by name.
        closed: what a closed route leaves; where that is the same as an open one, routes have no say.
    """

    terms: Mapping[str, Term]
    closed: Closed = "nothing"

    def find(self, asked: Asked, name: str | None = None) -> Term:
        """The term of that name, or of those that suit the one in which most is seen; of several, the first.

        Raises:
            ValueError: there is none of that name, it is for something else, or none suits.
        """
        if name is not None and name not in self.terms:
            raise ValueError(f"this model knows no task {name!r}; {self}")
        found = [term for key, term in self.terms.items() if name in (None, key) and self.suits(term, asked)]
        if not found and name is not None:
            raise ValueError(f"the task {name} is for {in_words(self.terms[name])}; asked for: {asked}; {self}")
        if not found:
            raise ValueError(f"this model was not trained for {asked}; {self}")
        return max(found, key=lambda term: term.route.a2v + term.route.v2a)

    def suits(self, term: Term, asked: Asked) -> bool:
        """Whether the term learns what is asked for, of what is given."""
        if term.whole != AV(*(stream == asked.given for stream in STREAMS)):
            return False
        if any(wanted and not weight for wanted, weight in zip(asked.generated, term.weights, strict=True)):
            return False
        video, audio = (made or stream == asked.given for stream, made in zip(STREAMS, asked.generated, strict=True))
        seen = (term.route.a2v and not audio) or (term.route.v2a and not video)
        if seen and self.closed != "same":  # a stream that is not there was seen
            return False
        first = term.parts.video
        if any(asked.images) and (first is None or first.part != "first_frame"):
            return False
        always = [part.part for part in term.parts if part and part.part != "all" and part.prob == 1]
        return "prefix" not in always and not ("first_frame" in always and not all(asked.images))

    @property
    def given_times(self) -> AV[float]:
        """At which time each stream is given whole: 0, clean, unless its training says otherwise (AV-Link)."""
        parts = [AV(*(p if p and p.part == "all" else None for p in term.parts)) for term in self.terms.values()]
        return AV(*(next((part.times[0] for part in of_stream if part), 0.0) for of_stream in zip(*parts, strict=True)))

    def unseen(self, rule: str, passes: Collection[Pass]) -> str:
        """In a sentence, what a rule's passes give the network whole and no term does; "" where each was trained.

        Args:
            rule: its name.
            passes: of it.
        """
        whole = {term.whole for term in self.terms.values()}
        strange = [one.null for one in passes if any(one.null) and one.null not in whole]
        if not strange or self.closed == "same":
            return ""
        return f"this model was not trained on given {listed(strange[0])}, which a pass of {rule} gives it"

    def __str__(self) -> str:
        return f"it knows: {'; '.join(f'{name} ({in_words(term)})' for name, term in self.terms.items())}"


def trained(tasks: Mapping[str, Task] | None, closed: Closed) -> Trained:
    """Of a model's tasks, those that its training draws; of a model that does not say its tasks, the paper's.

    Raises:
        ValueError: nothing is ever drawn, or two terms have one name.
    """
    tasks = PAPER_TASKS if tasks is None else tasks
    check(tasks)
    return Trained(terms_of({name: task for name, task in tasks.items() if task.prob}), closed)


def in_words(term: Term) -> str:
    """A term in words."""
    made = AV(*map(bool, term.weights))
    apart = ", apart" if all(made) and not (term.route.a2v or term.route.v2a) else ""
    parts = [part for part in term.parts if part and part.part != "all"]
    kinds = {"first_frame": "a first picture", "prefix": "a beginning"}
    starts = sorted({("" if part.prob == 1 else "with or without ") + kinds[part.part] for part in parts})
    return f"{listed(made)}{for_given(term.whole)}{apart}{''.join(f', {start}' for start in starts)}"


def listed(streams: AV[bool]) -> str:
    return " and ".join(word for word, there in zip(WORDS, streams, strict=True) if there)


def for_given(whole: AV[bool]) -> str:
    return f" for given {listed(whole)}" if any(whole) else ""
