"""Processes of this machine, each of which takes one job after another.

They end when the process that began them is gone, even where it was killed: a training saves the step it is in.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ccl.ablation.jobs import Job, Stopped
from ccl.ablation.launchers.schedule import Schedule
from ccl.cli.errors import one_sentence

SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
TICK = 0.5  # seconds between looks at what is shown
PR_SET_PDEATHSIG = 1
Work = Callable[[Job], None]


def run(
    schedule: Schedule,
    work: Work,
    *,
    workers: int,
    threads: int = 1,
    logs: Path | None = None,
    show: Callable[[Schedule], None] = lambda schedule: None,
) -> None:
    """Do all jobs of a schedule that can be done.

    Args:
        schedule: of the jobs.
        work: does one; it is sent to the processes.
        workers: processes.
        threads: of each.
        logs: folder of a file for each job, of what it says.
        show: is called twice a second.

    Raises:
        KeyboardInterrupt: a signal came; the processes have ended, and trainings are saved.
    """
    hands: list[_Hand] = []
    with as_interrupt(signal.SIGTERM):
        try:
            while True:
                hands = [hand for hand in hands if hand.alive]
                while len(hands) < workers and (job := schedule.next()) is not None:
                    hands.append(_Hand(job, work, threads, logs))
                if not hands:
                    return
                show(schedule)
                for hand in _ready(hands):
                    _take(schedule, hand)
        finally:
            for hand in hands:
                hand.process.terminate()  # which a training hears at the end of its step
            for hand in hands:
                hand.process.join()


def _ready(hands: Sequence[_Hand]) -> list[_Hand]:
    found = wait([hand.answers for hand in hands], timeout=TICK)
    return [hand for hand in hands if hand.answers in found]


def _take(schedule: Schedule, hand: _Hand) -> None:
    """What a process says of its job, and its next one."""
    try:
        said = hand.answers.recv()
    except (EOFError, OSError):
        hand.alive = False
        hand.process.join()
        code = hand.process.exitcode or 0
        schedule.die(hand.job, f"its process was killed by signal {-code}" if code < 0 else f"its process left, {code}")
        return
    if said is None:
        schedule.finish(hand.job)
    else:
        schedule.fail(hand.job, said)
    following = schedule.next()
    if following is not None:
        hand.job = following
    else:
        hand.alive = False
    hand.answers.send(following)
    if not hand.alive:
        hand.process.join()


class _Hand:
    """A process and the job that it has."""

    def __init__(self, job: Job, work: Work, threads: int, logs: Path | None) -> None:
        self.job, self.alive = job, True
        self.answers, far = SPAWN.Pipe()
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ |= dict.fromkeys(THREADS, str(threads))  # read when libraries are imported, so before it begins
        try:
            self.process = SPAWN.Process(target=serve, args=(far, job, work, logs, os.getpid()))
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        far.close()


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def serve(answers: Connection, job: Job | None, work: Work, logs: Path | None, parent: int) -> None:
    """Do job after job; in a process of its own."""
    follow(parent)
    while job is not None:
        if logs is not None:
            say_in(logs / f"{job.name}.log")
        try:
            work(job)
            said = None
        except Stopped as stopped:
            sys.exit(stopped.status)
        except Exception as error:
            traceback.print_exc()
            said = one_sentence(error)
        sys.stdout.flush()
        answers.send(said)
        job = answers.recv()


def follow(parent: int) -> None:
    """End with the process that began this one, whatever ends it. On Linux; elsewhere a job that goes on alone is
    waited for by the next command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def say_in(log: Path) -> None:
    """Append all that is said from here on to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


@contextmanager
def as_interrupt(number: int) -> Iterator[None]:
    """A signal ends what is done here as Ctrl-C does."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)
