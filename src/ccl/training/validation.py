"""Validation on fixed draws, told by bins of time: what a flow-matching loss is at one time says nothing of another.

B clips of this process, K bins of equal width of the time, t = 0 clean and t = 1 noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from ccl.rng import generator
from ccl.tasks import Task, alone, names_of
from ccl.training.losses import Losses
from ccl.types import AV, STREAMS

BINS = 4


def stratified(size: int, *, bins: int, seed: int, place: int) -> AV[Float[Tensor, " b"]]:
    """Times of each stream that visit all bins equally often, wherever training draws its own; on the CPU.

    Row r is in bin (place + r) mod K. A stream that has a time of its own takes the bins in another order, so that
    each bin of the one meets every bin of the other.

    Args:
        size: B.
        bins: K.
        seed: of where in its bin a time lies.
        place: of the batch among all batches of all processes; the same place draws the same.
    """
    number = place + torch.arange(size)
    within = torch.rand(2, size, generator=generator("validation", seed, place))
    return AV(*((bin % bins + x) / bins for bin, x in zip((number, number + number // bins), within, strict=True)))


class Binned:
    """Means of the losses that count, over all clips and by bin.

    Args:
        tasks: by name.
        there: which streams the network has.
        bins: K.
        device: of the sums.
    """

    def __init__(self, tasks: Mapping[str, Task], there: AV[bool], bins: int, device: torch.device | str) -> None:
        self.bins = bins
        left: dict[str, Task] = {}
        for stream in STREAMS:
            with suppress(ValueError):  # clips of it alone train nothing
                left |= alone(tasks, stream)
        keys = [
            f"{one}/{stream}"
            for name, task in {**tasks, **left}.items()
            for one, term in zip(names_of(name, task), task.terms, strict=True)
            for stream, weight, here in zip(STREAMS, term.weights, there, strict=True)
            if weight and here
        ]
        # Of losses and of clips. A row from the start for all that clips may bring: every process has the same rows.
        self.rows = {key: row for row, key in enumerate(keys)}
        self.sums = torch.zeros(len(keys), 2, bins, device=device)

    def add(self, name: str, task: Task, losses: Losses, times: AV[Tensor]) -> None:
        """Losses of clips of a task, or of what is left of it for these clips, (B,), by the times of each stream."""
        for one, term, pair in zip(names_of(name, task), task.terms, losses.terms, strict=True):
            own = AV(times.video, times.video) if term.shared_time else times
            for stream, x, t in zip(STREAMS, pair, own, strict=True):
                if (row := self.rows.get(f"{one}/{stream}")) is not None:
                    bin = (t.to(x.device) * self.bins).long().clamp(max=self.bins - 1)
                    self.sums[row].index_add_(1, bin, torch.stack([x.float(), torch.ones_like(x, dtype=torch.float)]))

    def means(self, sums: Tensor) -> dict[str, float]:
        """TERM/STREAM over all bins, each weighing the same, and TERM/STREAM/tFROM-TO of each.

        A bin without a clip is left out.

        Args:
            sums: this one's, or those of all processes.
        """
        found: dict[str, float] = {}
        for key, row in self.rows.items():
            means = {
                f"{key}/t{bin / self.bins:.2f}-{(bin + 1) / self.bins:.2f}": loss / clips
                for bin, (loss, clips) in enumerate(sums[row].T.tolist())
                if clips
            }
            if means:
                found |= {key: sum(means.values()) / len(means)} | means
        return found
