"""Losses of clips, as training weighs, logs and reports them.

n clips that train one task, T latent frames or audio latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccl import flow
from ccl.tasks import Task, names_of
from ccl.types import AV, STREAMS

MIXED = "mixed"  # what a log says in the place of a task's name where a step's clips train several


class Losses(NamedTuple):
    """Of clips that train one task, before they are weighed.

    Args:
        terms: flow-matching loss of each clip in each stream, (n,), for each term of the task.
        added: what the interactions ask to lower, (n,) by name, the mean over terms.
    """

    terms: tuple[AV[Any], ...]
    added: dict[str, Tensor]

    def mean(self) -> Losses:
        """Over clips."""
        return Losses(tuple(x.map(torch.mean) for x in self.terms), {k: x.mean() for k, x in self.added.items()})

    def none_of(self, task: Task) -> Losses:
        """The mean, 0, of another task that no clip trains: of the same streams and names."""
        zero = next(x for x in self.terms[0] if x is not None).new_zeros(())
        return Losses((self.terms[0].map(lambda _: zero),) * len(task.terms), dict.fromkeys(self.added, zero))


def by_key(name: str, task: Task, losses: Losses) -> dict[str, Tensor]:
    """Those losses of a task that count, as they are logged: loss/TERM/STREAM, and loss/TASK/NAME of what is added."""
    streams = {
        f"loss/{one}/{stream}": x
        for one, term, pair in zip(names_of(name, task), task.terms, losses.terms, strict=True)
        for stream, x, weight in zip(STREAMS, pair, term.weights, strict=True)
        if x is not None and weight
    }
    return streams | {f"loss/{name}/{key}": x for key, x in losses.added.items()}


def aligned(t: AV[Any], others: Sequence[AV[Any]]) -> AV[Any]:
    """Times (n,) as (n, T) where those of another term are."""

    def one(own: Tensor, *all: Tensor) -> Tensor:
        frames = max(x.shape[1] if x.ndim == 2 else 0 for x in all)
        return own[:, None].expand(-1, frames) if frames and own.ndim == 1 else own

    return AV.zip(one, t, *others)


def loss_by_clip(v_hat: Tensor, v: Tensor, counted: Tensor) -> Tensor:
    """flow.loss of each clip, (n,): every clip weighs the same, however many of its frames are given."""
    return torch.stack([flow.loss(*(x[None] for x in row)) for row in zip(v_hat, v, counted, strict=True)])
