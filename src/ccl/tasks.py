"""Training tasks as data: who sees whom, what is given, at which time, and what counts (CCL Sec. 4.2 and 4.4, Eq. 7).

A step draws one task, or one for each of its clips. A task is a term, or several terms of one forward that see the
same draws (Harmony's synergy of joint and driven). The paper's five tasks are four rows: t/i2v and t2a share a step, in
which both routes are closed, so that the streams train side by side and do not see each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from ccl import arguments
from ccl.rng import seed_of
from ccl.types import AV, CLOSED, OPEN, STREAMS, Route, Stream, View

Part = Literal["all", "first_frame", "last_frame", "first_last", "prefix", "suffix", "voice"]
PICTURES: tuple[Part, ...] = (
    "first_frame",
    "last_frame",
    "first_last",
)  # parts of the video alone, a latent frame each
SPANS: tuple[Part, ...] = ("prefix", "suffix")  # parts of so many seconds


@dataclass(frozen=True)
class Given:
    """What of a stream is given while a term trains: it is held at a time of its own, and its loss does not count.

    Args:
        part: "all" of the stream; the "first_frame" of the video, the "last_frame" or both, "first_last", each a latent
            frame; a "prefix" of the clip, which the rest goes on from; a "suffix", to which it leads; a "voice" of the
            audio: another sound of whoever speaks, which lies outside the clip, so that all of the clip counts.
        prob: share of the clips that are given it. "all" is given to every clip: two terms or tasks say otherwise.
        seconds: the shortest and the longest prefix or suffix; each clip draws its own, the same in both streams.
        time: 0 is clean; above, as noisy as that time has it (AV-Link: 0.04 and 0.2). Of a pair of times each clip
            draws one between them.

    Raises:
        ValueError: a number is out of range, or a prefix or suffix has no seconds, or something else has.
    """

    part: Part
    prob: float = 1.0
    seconds: tuple[float, float] | None = None
    time: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        arguments.number("a given part's prob", self.prob, 0, 1)
        if self.part == "all" and self.prob != 1:
            raise ValueError(f'"all" of a stream is given with prob {self.prob:g}; it is given to every clip, prob 1')
        if (self.part in SPANS) != (self.seconds is not None):
            raise ValueError(
                '`seconds` go with the parts "prefix" and "suffix", which need them: the shortest and the longest'
            )
        for name, pair, most in (("seconds", self.seconds or (0, 0), 1e9), ("times", self.times, 1)):
            for x in pair:
                arguments.number(f"a given part's {name}", x, 0, most)
            if pair[0] > pair[1]:
                raise ValueError(f"a given part's {name} are {pair[0]:g} to {pair[1]:g}; the first must be the least")

    @property
    def times(self) -> tuple[float, float]:
        """The least and the greatest time."""
        return self.time if isinstance(self.time, tuple) else (self.time, self.time)


@dataclass(frozen=True)
class Term:
    """What one chunk of a training batch learns.

    Args:
        route: who sees whom.
        given: by stream, what of it is given.
        detach: by stream, whether the other one reads it without a gradient; None: where it is given whole.
        weight: by stream, what its loss counts; None: 1, and 0 where it is given whole (Eq. 7). It is multiplied, not
            skipped, so that every parameter stays in use under DDP and FSDP.
        shared_time: whether both streams take the same t.
        name: in the log, and for generation; None is the task's, where it has no other term.

    Raises:
        ValueError: there is no such stream; a weight is no number; what is given counts, or nothing does.
    """

    route: Route
    given: Mapping[str, Given] = field(default_factory=dict)
    detach: Mapping[str, bool] | None = None
    weight: Mapping[str, float] | None = None
    shared_time: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for name, pair in (("given", self.given), ("detach", self.detach or {}), ("weight", self.weight or {})):
            if unknown := [str(key) for key in pair if key not in STREAMS]:
                raise ValueError(f"a term's {name} names the stream {unknown[0]!r}; there are {' and '.join(STREAMS)}")
        if (sound := self.given.get("audio")) and sound.part in PICTURES:
            raise ValueError(f'a term gives the "{sound.part}" of the audio, which has none; a "prefix" may be given')
        if (pictures := self.given.get("video")) and pictures.part == "voice":
            raise ValueError('a term gives the video a "voice", which has none; it is given to the audio')
        for stream, weight in self.weights._asdict().items():
            arguments.number(f"a term's weight of {stream}", weight, 0)
            if weight and getattr(self.whole, stream):
                raise ValueError(f"a term gives all of the {stream} and weighs its loss by {weight:g}; it must be 0")
        if not any(self.weights):
            raise ValueError("a term in which no stream's loss counts trains nothing")

    @property
    def parts(self) -> AV[Given | None]:
        """What is given of each stream."""
        return AV(self.given.get("video"), self.given.get("audio"))

    @property
    def whole(self) -> AV[bool]:
        """Which streams are given whole."""
        return AV(*(part is not None and part.part == "all" for part in self.parts))

    @property
    def weights(self) -> AV[float]:
        """Eq. 7: what the loss of each stream is multiplied by."""
        usual: AV[float] = self.whole.map(lambda given: 0.0 if given else 1.0)
        return usual if self.weight is None else AV(*(float(self.weight.get(s, 0.0)) for s in STREAMS))

    @property
    def view(self) -> View:
        """What the network is told of it."""
        detach = self.whole if self.detach is None else AV(*(self.detach.get(s, False) for s in STREAMS))
        return View(self.route, detach)

    def alone(self, stream: Stream) -> Term | None:
        """What is left of it where the other stream is not there, which it does not see; None where nothing counts."""
        if not (weight := getattr(self.weights, stream)):
            return None
        given: dict[str, Given] = {name: part for name, part in self.given.items() if name == stream}
        return Term(CLOSED, given, weight={stream: weight}, name=self.name and f"{self.name}_{stream}")


@dataclass(frozen=True)
class Task:
    """What one step trains.

    Args:
        prob: how often a step draws it, beside those of the other tasks.
        terms: chunks of one forward, with the same clips, times and noise; the loss is the sum of theirs.
    """

    prob: float
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        arguments.number("a task's prob", self.prob, 0)
        if not self.terms:
            raise ValueError("a task has no terms, so there is nothing to train")

    def alone(self, stream: Stream) -> Task | None:
        """What is left of it where the other stream is not there; None where nothing counts.

        Terms that come to the same, as they have the same draws, are one with the sum of their weights.
        """
        left: list[Term] = []
        for term in filter(None, (term.alone(stream) for term in self.terms)):
            same = next((i for i, one in enumerate(left) if one.given == term.given), None)
            if same is None:
                left.append(term)
            else:
                weight = getattr(left[same].weights, stream) + getattr(term.weights, stream)
                left[same] = replace(left[same], weight={stream: weight})
        return Task(self.prob, tuple(left)) if left else None


_IMAGE = {"video": Given("first_frame", prob=0.5)}  # decision 17: t2v : i2v = 1 : 1
PAPER_TASKS: dict[str, Task] = {
    "single": Task(0.10, (Term(CLOSED, _IMAGE),)),
    "a2v": Task(0.15, (Term(Route(a2v=True, v2a=False), {**_IMAGE, "audio": Given("all")}),)),
    "v2a": Task(0.15, (Term(Route(a2v=False, v2a=True), {"video": Given("all")}),)),
    "joint": Task(0.60, (Term(OPEN, _IMAGE, shared_time=True),)),
}


def names_of(name: str, task: Task) -> list[str]:
    """The names of a task's terms: their own, or the task's.

    Raises:
        ValueError: two terms have the same.
    """
    names = [term.name or name for term in task.terms]
    if twice := [one for one in names if names.count(one) > 1]:
        raise ValueError(f"model.tasks.{name} has two terms named {twice[0]}; give each a `name` of its own")
    return names


def terms_of(tasks: Mapping[str, Task]) -> dict[str, Term]:
    """All terms of all tasks, by name.

    Raises:
        ValueError: two terms have the same name.
    """
    found: dict[str, Term] = {}
    for key, task in tasks.items():
        for name, term in zip(names_of(key, task), task.terms, strict=True):
            if name in found:
                raise ValueError(f"model.tasks has two terms named {name}; give one of them another `name`")
            found[name] = term
    return found


def check(tasks: Mapping[str, Task]) -> None:
    """ValueError where there is nothing to draw from, or names are not told apart."""
    if not any(task.prob for task in tasks.values()):
        raise ValueError("model.tasks has no task of a prob above 0, so there is nothing to train")
    terms_of(tasks)


def alone(tasks: Mapping[str, Task], stream: Stream) -> dict[str, Task]:
    """What clips of one stream train, such as those without sound (mixed data): what is left of each task.

    Tasks that come to the same are one with the sum of their probs, named after the first: of the paper's, `single`,
    `a2v` and `joint` are one of pictures, `single_video`, and `single`, `v2a` and `joint` one of sound, `single_audio`.

    Raises:
        ValueError: nothing is left.
    """
    found: dict[str, Task] = {}
    for key, task in tasks.items():
        if (left := task.alone(stream)) is None:
            continue
        same = next((name for name, one in found.items() if nameless(one) == nameless(left)), None)
        if same is None:
            found[f"{key}_{stream}"] = left
        else:
            found[same] = replace(found[same], prob=found[same].prob + left.prob)
    if not any(task.prob for task in found.values()):
        raise ValueError(
            f"no task of model.tasks counts the loss of {stream}, so clips of {stream} alone train nothing"
        )
    return found


def nameless(task: Task) -> tuple[Term, ...]:
    """Its terms, without names."""
    return tuple(replace(term, name=None) for term in task.terms)


@runtime_checkable
class Router(Protocol):
    """What decides which task each clip of a step trains: a callback, as `ccl.callbacks.TaskRouter`."""

    def route(self, tasks: Mapping[str, Task], *, seed: int, step: int, place: int) -> str:
        """The name of a clip's task, the same whichever process has the clip, and after a resume.

        Args:
            tasks: by name, of which one is drawn.
            seed: of the training.
            step: of the optimizer.
            place: of the clip in the step's global batch: all clips of all processes, accumulated batches included.
        """
        ...


def draw(tasks: Mapping[str, Task], seed: int, step: int, *place: int) -> str:
    """A task: a pure function of (seed, step), so equal on all ranks and after a resume; or of (seed, step, place)."""
    total = sum(task.prob for task in tasks.values())
    u = seed_of("task", seed, step, *place) / 2**63 * total
    for name, task in tasks.items():
        u -= task.prob
        if u < 0:
            return name
    return list(tasks)[-1]
