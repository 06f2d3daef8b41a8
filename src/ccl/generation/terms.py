"""The trained term that clips are sampled on: found by what is given and wanted, or by its name.

So no model is sampled on a route, or held at a time, that its training has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ccl.tasks import PAPER_TASKS, Given, Part, Task, Term, check, terms_of
from ccl.types import AV, STREAMS, Closed, Pass, Stream

WORDS = AV("pictures", "sound")
PARTS: dict[Part, str] = {
    "first_frame": "a first picture",
    "last_frame": "a last picture",
    "first_last": "a first and a last picture",
    "prefix": "a beginning",
    "suffix": "an end",
    "voice": "a voice",
}
NOTHING: AV[Part | None] = AV(None, None)


@dataclass(frozen=True)
class Asked:
    """What clips of one batch ask of a model.

    Args:
        given: the stream that is given whole.
        generated: the streams that are to be made.
        parts: of each clip, what of its streams is given as latent frames.
    """

    given: Stream | None
    generated: AV[bool]
    parts: Collection[AV[Part | None]] = (NOTHING,)

    def kinds(self, stream: int) -> set[Part | None]:
        """What of a stream some clip is given, and None where one is given nothing of it."""
        return {parts[stream] for parts in self.parts}

    def __str__(self) -> str:
        each = [parts.video or parts.audio for parts in self.parts]
        told = " and ".join(PARTS[part] for part in dict.fromkeys(each) if part)
        some = " in some of the clips" if told and len(set(each)) > 1 else ""
        whole = AV(*(stream == self.given for stream in STREAMS))
        return f"{listed(self.generated)}{for_given(whole)}{f' from {told}' if told else ''}{some}"


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
        made = [i for i, wanted in enumerate(asked.generated) if wanted]
        return all(asked.kinds(i) <= known(term.parts[i]) for i in made)

    def near(self, asked: Asked, name: str | None = None) -> tuple[Term, str]:
        """The term that `find` finds; or, where there is none, one that is close to what is asked for.

        Who has learned to go on from a clean first latent frame takes a clean beginning, end or last picture as well
        (docs/log.md has how well), and its sound with it: such a term is taken, and what it lacks is told.

        Returns:
            The term, and a sentence on what was not trained; "" where it was.

        Raises:
            ValueError: as of `find`.
        """
        try:
            return self.find(asked, name), ""
        except ValueError as error:
            strange = (asked.kinds(0) | asked.kinds(1)) - {None, "first_frame"}
            if not strange or "voice" in strange or not asked.generated.video:
                raise
            parts: list[AV[Part | None]] = [AV("first_frame" if any(of) else None, None) for of in asked.parts]
            try:
                found = self.find(Asked(asked.given, asked.generated, parts), name)
            except ValueError:
                raise error from None
        told = " and ".join(PARTS[part] for part in PARTS if part in strange)
        return found, f"this model was not trained on {told}, which is held as a first picture is"

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
    starts = sorted({("" if part.prob == 1 else "with or without ") + PARTS[part.part] for part in parts})
    return f"{listed(made)}{for_given(term.whole)}{apart}{''.join(f', {start}' for start in starts)}"


def known(part: Given | None) -> set[Part | None]:
    """What clips may be given of a stream, None for nothing, where training gave that part."""
    return {None} if part is None else {part.part} if part.prob == 1 else {None, part.part}


def listed(streams: AV[bool]) -> str:
    return " and ".join(word for word, there in zip(WORDS, streams, strict=True) if there)


def for_given(whole: AV[bool]) -> str:
    return f" for given {listed(whole)}" if any(whole) else ""
