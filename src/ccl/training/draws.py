"""What chance decides for a training batch, and what a term of a task makes of it: times, and the frames that count.

B clips of this process, T latent frames or audio latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ccl.flow import TimeDistribution
from ccl.grid import Grid
from ccl.rng import generator
from ccl.tasks import PICTURES, Given, Term
from ccl.types import AV, STREAMS, Stream


@dataclass(frozen=True)
class Draws:
    """What chance decides for one batch, whatever its task: all terms of a task see the same.

    Args:
        time: of each stream, (B,).
        noise: of the latents' shapes.
        given: (B,) from 0 to 1; a clip is given what a term gives with a greater `prob`. On the CPU.
        where: (B,) from 0 to 1: how far a prefix or suffix reaches, and where a given part's time lies. On the CPU.
        prompt: as the network reads them, dropped ones empty.
    """

    time: AV[Tensor]
    noise: AV[Tensor]
    given: Tensor
    where: Tensor
    prompt: list[str]


def draw(
    prompt: Sequence[str],
    z: AV[Tensor],
    *,
    seed: int,
    index: int,
    rank: int,
    time: TimeDistribution,
    text_dropout: float,
    device: torch.device | str,
) -> Draws:
    """The draws of one batch.

    Each clip has its own generator, from (seed, index, place in the global batch): the same clips learn the same thing
    on one process and on many, and after a resume. Always drawn in the same order, whatever the task.
    """
    size = len(prompt)
    times: AV[list[Tensor]] = AV([], [])
    noise: AV[list[Tensor]] = AV([], [])
    dropped, given, where = [], [], []
    for row in range(size):
        g = generator("noise", seed, index, rank * size + row)
        for each in times:
            each.append(time.sample(1, g))
        chance = torch.rand(2, generator=g)
        dropped.append(bool(chance[0] < text_dropout))
        given.append(chance[1])
        for stream, x in zip(noise, z, strict=True):
            if x is not None:
                stream.append(torch.randn(x.shape[1:], generator=g))
        where.append(torch.rand((), generator=g))
    return Draws(
        time=times.map(lambda each: torch.cat(each).to(device)),
        noise=AV.zip(lambda _, xs: torch.stack(xs).to(device, non_blocking=True), z, noise),
        given=torch.stack(given),
        where=torch.stack(where),
        prompt=["" if d else p for d, p in zip(dropped, prompt, strict=True)],
    )


def placed(
    draws: Draws, term: Term, z: AV[Tensor], grid: Grid, *, shown: bool = False
) -> tuple[AV[Tensor], AV[Tensor]]:
    """The times of a term, and what of its streams counts.

    Args:
        draws: of the batch.
        term: of its task.
        z: latents (B, C, T, ...), None for a stream that the network has not.
        grid: of the clips.
        shown: the network is shown its first picture: no latent frame of it is given, and all count.

    Returns:
        Times of each stream, (B,), or (B, T) where frames have times of their own; and (B, T), 1 where the loss counts
        and 0 in a given frame, prefix or suffix. A stream that is given whole counts, but its term weighs it by 0.
    """
    time: AV[Tensor] = AV(draws.time.video, draws.time.video) if term.shared_time else draws.time
    counted = z.map(lambda x: torch.ones(x.shape[0], x.shape[2], device=x.device))
    for i, (stream, part) in enumerate(zip(STREAMS, term.parts, strict=True)):
        x = z[i]
        if x is None or part is None:
            continue
        low, high = part.times
        own = (low + (high - low) * draws.where).to(time[i])
        if part.part == "all":
            time = time._replace(**{stream: own})
            continue
        frames = held(part, draws.where, grid, stream) & (draws.given < part.prob)[:, None]
        if shown and part.part in PICTURES:
            frames[:, 0] = False
        if frames.any():  # looked at on the CPU
            frames = frames.to(x.device)
            time = time._replace(**{stream: torch.where(frames, own[:, None], time[i][:, None])})
            counted = counted._replace(**{stream: (~frames).float()})
    return time, counted


def gives_voice(term: Term) -> bool:
    """Whether a term gives the sound a voice."""
    part = term.parts.audio
    return part is not None and part.part == "voice"


def told(draws: Draws, term: Term) -> Bool[Tensor, " b"]:
    """Which clips a term gives a voice, where they have one."""
    part = term.parts.audio
    return draws.given < (part.prob if part is not None and gives_voice(term) else 0.0)


def held(part: Given, where: Tensor, grid: Grid, stream: Stream) -> Bool[Tensor, "b t"]:
    """Which latent frames or audio latents of each clip a part holds; of a prefix or suffix one at least is left."""
    low, high = part.seconds or (0.0, 0.0)
    at = STREAMS.index(stream)
    held = torch.zeros(len(where), (grid.t_v, grid.t_a)[at], dtype=torch.bool)
    for row, share in zip(held, where.double().tolist(), strict=True):
        seconds = low + (high - low) * share
        first = {"first_frame": 1, "first_last": 1, "prefix": grid.beginning(seconds)[at]}.get(part.part, 0)
        last = {"last_frame": 1, "first_last": 1, "suffix": grid.ending(seconds)[at]}.get(part.part, 0)
        row[:first] = True
        row[len(row) - last :] = True
    return held
