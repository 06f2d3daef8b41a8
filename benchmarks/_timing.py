"""Ratios on a machine that is not quiet: what is compared runs in turns, and the median of the turns' ratios counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def turns(
    runs: Mapping[str, Callable[[], object]], rounds: int, *, cpu: bool = False, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round to warm up; the order is reversed every other round.

    Args:
        runs: what to time.
        rounds: how often.
        cpu: count this process's own seconds instead of the wall's; meaningful with one thread on a busy machine.
        warm: all has run before.
    """
    clock = time.process_time if cpu else time.perf_counter
    for run in () if warm else runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs)[:: -1 if i % 2 else 1]:
            start = clock()
            runs[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(of: list[float], to: list[float]) -> float:
    """Median over the rounds of one run's seconds over another's."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def verdict(name: str, value: float, goal: float, *, at_most: bool = True) -> str:
    met = value <= goal if at_most else value >= goal
    return f"{name}: {value:.3f} (goal {'<=' if at_most else '>='} {goal}: {'met' if met else 'MISSED'})"
