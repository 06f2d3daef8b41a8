"""A Ray cluster, or a local one. The folder must lie where all its machines see it.

A worker that is killed costs its job what came after its last checkpoint: Ray begins the job again, and it goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccl.ablation.jobs import Job, Stopped
from ccl.ablation.launchers.local import THREADS, TICK, Work
from ccl.ablation.launchers.schedule import ATTEMPTS, Schedule
from ccl.cli.errors import UsageError, one_sentence


def run(
    schedule: Schedule,
    work: Work,
    *,
    address: str = "",
    workers: int | None = None,
    threads: int = 1,
    show: Callable[[Schedule], None] = lambda schedule: None,
) -> None:
    """Do all jobs of a schedule that can be done.

    Args:
        schedule: of the jobs.
        work: does one; it is sent to the workers.
        address: of the cluster; "" is the one that RAY_ADDRESS names, or a new one on this machine.
        workers: jobs at a time; None is as many as the cluster has room for.
        threads: CPUs of each. Where the cluster has GPUs, a job takes one.
        show: is called twice a second.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs the [ray] extra: pip install 'ccl[ray]'") from error
    # Where our code is found, and how many threads a worker's libraries take.
    seen = os.pathsep.join(path for path in sys.path if path)
    own = {"env_vars": {"PYTHONPATH": seen, **dict.fromkeys(THREADS, str(threads))}}
    try:
        ray.init(address=address or None, runtime_env=own, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"--ray: {one_sentence(error)}") from error
    try:
        room = ray.cluster_resources()
        gpus = min(1.0, room.get("GPU", 0.0))
        most = workers or max(1, int(room.get("GPU", 0) if gpus else room.get("CPU", 1) // threads))
        one = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=ATTEMPTS - 1)(attempt)
        waiting: dict[Any, Job] = {}
        while True:
            while len(waiting) < most and (job := schedule.next()) is not None:
                waiting[one.remote(work, job, str(Path.cwd()))] = job
            if not waiting:
                return
            show(schedule)
            for done in ray.wait(list(waiting), timeout=TICK)[0]:
                job = waiting.pop(done)
                try:
                    said = ray.get(done)
                except ray.exceptions.RayError as error:  # a worker that was killed time and again
                    said = one_sentence(error)
                schedule.finish(job) if said is None else schedule.fail(job, said)
    finally:
        ray.shutdown()


def attempt(work: Work, job: Job, folder: str) -> str | None:
    """A job in a worker: None, or why it cannot be done."""
    os.chdir(folder)
    try:
        work(job)
    except Stopped as stopped:
        os._exit(stopped.status)  # gone without a word, so that it is begun again
    except Exception as error:
        return one_sentence(error)
    return None
