"""Many jobs by many workers: in this process, in processes of this machine, or on a cluster of Ray.

Processes end with the one that started them, however that ends. A worker is made once on its device, by a function that
can be pickled, and then takes job after job. Results come in any order. A job may run more than once where a machine
fails, so it must leave the same behind each time.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from ccl.files import MachineError

Job = TypeVar("Job")
Result = TypeVar("Result")
Build = Callable[[str], Callable[[Job], Result]]
"""Makes a worker on a device."""
Engine = Literal["processes", "ray"]


def run(
    build: Build[Job, Result], jobs: Sequence[Job], devices: Sequence[str] = ("cpu",), engine: Engine = "processes"
) -> Iterator[Result]:
    """The results of all jobs.

    Args:
        build: makes a worker.
        jobs: what is to be done; each can be pickled.
        devices: one for each worker; a single one works in this process.
        engine: processes of this machine, or actors of Ray, on the cluster that `RAY_ADDRESS` names or a local one.

    Raises:
        ValueError: what a job raises.
        MachineError: a process was killed.
    """
    if engine == "ray":
        yield from _on_ray(build, jobs, devices)
    elif len(devices) == 1:
        worker = build(devices[0])
        yield from map(worker, jobs)
    else:
        yield from _in_processes(build, jobs, devices)


@contextmanager
def processes(
    workers: int, method: Literal["fork", "spawn"], begin: Callable[..., None], *args: Any
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that die with this one.

    Args:
        workers: how many.
        method: how they start.
        begin: called with `args` in each.
        args: of `begin`.

    Raises:
        MachineError: one was killed, or the machine has no room for another.
    """
    context = multiprocessing.get_context(method)
    try:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(os.getpid(), begin, args))
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    except BrokenProcessPool as error:
        raise MachineError(
            "a working process died (killed for want of memory, or it could not start); what was finished is kept, so "
            "run it again, with fewer workers if need be"
        ) from error
    except OSError as error:
        if error.errno is None or error.filename is not None:  # a job's own, in words
            raise
        raise MachineError(f"working processes: {error.strerror}; run it again, with fewer workers") from error


def _begin(parent: int, begin: Callable[..., None], args: Sequence[Any]) -> None:
    def watch() -> None:
        while os.getppid() == parent:  # a pool's workers wait for their next job for ever: nothing tells them
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Ctrl-C reaches every process of a terminal: the one that started them has words for it.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    begin(*args)


_order: tuple[bytes, str] = b"", ""
_worker: Callable[[Any], Any] | None = None


def _start(build: bytes, devices: Any, threads: int) -> None:
    global _order
    import torch

    torch.set_num_threads(threads)
    _order = build, devices.get()


def _work(job: Any) -> Any:
    global _worker
    if _worker is None:  # built at the first job, which brings home what goes wrong
        build, device = _order
        _worker = pickle.loads(build)(device)
    return _worker(job)


def _in_processes(build: Build[Job, Result], jobs: Sequence[Job], devices: Sequence[str]) -> Iterator[Result]:
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    for device in devices:
        queue.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    try:
        # A forked process can use neither CUDA nor OpenMP's threads. What it builds travels as bytes, for reading them
        # imports all that it needs, which takes seconds in which nobody would look whether this process still lives.
        with processes(len(devices), "spawn", _start, pickle.dumps(build), queue, threads) as pool:
            for future in as_completed([pool.submit(_work, job) for job in jobs]):
                yield future.result()
    finally:
        queue.close()


class _Actor:
    """A worker as Ray Data holds it."""

    def __init__(self, build: Build[Any, Any], device: str) -> None:
        self.work = build(device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self.work(pickle.loads(row["job"])))}


def _on_ray(build: Build[Job, Result], jobs: Sequence[Job], devices: Sequence[str]) -> Iterator[Result]:
    """By Ray Data: an actor that dies, or the machine under it, is replaced, and its job is done by another."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"--engine ray needs Ray ({error}): pip install 'ccl[ray]'") from error
    gpus = 0 if devices[0] == "cpu" else 1  # Ray shows each actor its own GPU alone
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        rows = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
        done = rows.map(
            _Actor,
            fn_constructor_args=(build, "cuda" if gpus else "cpu"),
            compute=ray.data.ActorPoolStrategy(size=min(len(devices), len(jobs))),
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in done.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, ValueError | OSError) else None
        raise (cause or error) from None
    finally:
        if begun:
            ray.shutdown()
