"""Which job is next: the first that waits for nothing, until all are done or what is left waits for one that failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ccl.ablation.jobs import Job

ATTEMPTS = 3  # of a job whose process dies; one that fails in words would fail again


class Schedule:
    """The state of all jobs of a matrix.

    Args:
        jobs: in order.
        done: whether a job is done already.
    """

    def __init__(self, jobs: Sequence[Job], done: Callable[[Job], bool]) -> None:
        self.jobs = tuple(jobs)
        self.done: set[str] = set()
        self.running: dict[str, Job] = {}
        self.failed: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        for job in self.jobs:  # a row's hash asks for its run, which comes before it
            if done(job):
                self.done.add(job.name)
        self.found = frozenset(self.done)

    def next(self) -> Job | None:
        """A job to begin now, which counts as running; None where all wait, run or are over."""
        for job in self.jobs:
            over = job.name in self.done or job.name in self.running or job.name in self.failed
            if not over and set(job.needs) <= self.done:
                self.running[job.name] = job
                self._attempts[job.name] = self._attempts.get(job.name, 0) + 1
                return job
        return None

    def finish(self, job: Job) -> None:
        """It is done."""
        del self.running[job.name]
        self.done.add(job.name)

    def fail(self, job: Job, said: str) -> None:
        """It cannot be done, in a sentence; what waits for it is left."""
        del self.running[job.name]
        self.failed[job.name] = said

    def die(self, job: Job, said: str) -> None:
        """Its process is gone without a word: it goes on from what it left, unless that was so too often."""
        if self._attempts[job.name] < ATTEMPTS:
            del self.running[job.name]
        else:
            self.fail(job, f"{said}, {ATTEMPTS} times")

    def left(self, names: Collection[str] = ()) -> list[Job]:
        """Jobs that are neither done nor failed."""
        return [job for job in self.jobs if job.name not in self.done and job.name not in self.failed]
