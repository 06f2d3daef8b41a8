"""Which job is next: the first that waits for nothing, until all are done or what is left waits for one that failed.

Rows follow their runs, so that there is something to look at early. Towards the end the runs that are left go first: a
training takes several times as long as a row, and the last one begun late would be waited for by idle workers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ccl.ablation.jobs import Job
from ccl.ablation.matrix import RUNS

ATTEMPTS = 3  # of a job whose process dies; one that fails in words would fail again


class Schedule:
    """The state of all jobs of a matrix.

    Args:
        jobs: in order.
        done: whether a job is done already.
        workers: that do them at a time.
    """

    def __init__(self, jobs: Sequence[Job], done: Callable[[Job], bool], workers: int = 1) -> None:
        self.jobs, self.workers = tuple(jobs), workers
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
        over = {*self.done, *self.running, *self.failed}
        ready = [job for job in self.jobs if job.name not in over and set(job.needs) <= self.done]
        runs = [job for job in ready if job.kind == RUNS]
        if self.workers > 1 and 0 < len(runs) <= 2 * self.workers:
            ready = runs
        if not ready:
            return None
        job = ready[0]
        self.running[job.name] = job
        self._attempts[job.name] = self._attempts.get(job.name, 0) + 1
        return job

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
