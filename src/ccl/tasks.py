"""The paper's five training tasks as four rows, and Eq. 7 (CCL Sec. 4.2 and 4.4).

t/i2v and t2a share one step: both routes closed, so the streams train side by side and do not see each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ccl.rng import seed_of
from ccl.types import AV, CLOSED, OPEN, Route, Stream


@dataclass(frozen=True)
class Task:
    """One training task.

    Args:
        prob: how often a step draws it.
        route: who sees whom while it trains.
        reference: the given stream: clean latents, t = 0, detached where the other stream reads it, loss times 0.
        shared_time: whether both streams take the same t.
    """

    prob: float
    route: Route
    reference: Stream | None = None
    shared_time: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.prob) and self.prob >= 0):
            raise ValueError(f"a task's prob is {self.prob}; it must be a number, 0 or more")

    @property
    def is_reference(self) -> AV[bool]:
        return AV(self.reference == "video", self.reference == "audio")

    @property
    def loss_weight(self) -> AV[float]:
        """Eq. 7: multiplied by 0, not skipped, so that every parameter stays in use under DDP and FSDP."""
        return self.is_reference.map(lambda reference: 0.0 if reference else 1.0)


PAPER_TASKS: dict[str, Task] = {
    "single": Task(0.10, CLOSED),
    "a2v": Task(0.15, Route(a2v=True, v2a=False), reference="audio"),
    "v2a": Task(0.15, Route(a2v=False, v2a=True), reference="video"),
    "joint": Task(0.60, OPEN, shared_time=True),
}


def check(tasks: Mapping[str, Task]) -> None:
    """ValueError where there is nothing to draw from."""
    if not any(task.prob for task in tasks.values()):
        raise ValueError("model.tasks has no task of a prob above 0, so there is nothing to train")


def draw(tasks: dict[str, Task], seed: int, step: int) -> str:
    """The task of a step: a pure function of (seed, step), so equal on all ranks and after a resume."""
    total = sum(task.prob for task in tasks.values())
    u = seed_of("task", seed, step) / 2**63 * total
    for name, task in tasks.items():
        u -= task.prob
        if u < 0:
            return name
    return next(reversed(tasks))


def generation_route(given: Stream | None, wanted: AV[bool]) -> Route:
    """The route a generation task samples on: one that training has seen.

    Both directions open for joint; only towards the generated stream where the other is given; closed where only one
    stream is wanted and none given.
    """
    if given == "audio":
        return Route(a2v=True, v2a=False)
    if given == "video":
        return Route(a2v=False, v2a=True)
    return OPEN if wanted.video and wanted.audio else CLOSED
