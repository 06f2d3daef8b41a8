"""What words are worth: how much better a model knows a sound when it is told what is said in it, and pictures when
they are described to it.

The flow-matching loss of the sound with the right prompt, against that with the same prompt and another clip's sentence
in its quotes; and the loss of the pictures, against that with another clip's description around the quotes. Same clip,
same time, same noise. 0 is a model that does not listen. At t = 0.8 a sound is still noise and its words are being
decided. A word error rate tells nothing before words come right; this does long before.
B clips, T latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ccl import flow
from ccl.evaluation.tables.statistics import Ratio, compare
from ccl.generation.terms import Asked, trained
from ccl.grid import Grid
from ccl.inspection.clips import rows_of
from ccl.inspection.parts import PARTS, WORDS, PromptPart
from ccl.rng import generator
from ccl.tasks import Task
from ccl.text.base import TextEncoder
from ccl.types import AV, STREAMS, Batch, Stream

TIME = 0.8
Pairs = list[tuple[Batch, AV[Any]]]  # clips and their latents


@dataclass(frozen=True)
class Worth:
    """Of clips, the losses of a stream.

    Args:
        right: with its own prompt, of each clip.
        wrong: with another one's words or description.
        name: of the clips; the interval's resamples follow from it.
    """

    right: Float[np.ndarray, " n"]
    wrong: Float[np.ndarray, " n"]
    name: str = "words"

    @property
    def worth(self) -> float:
        """By how much the wrong ones raise the loss."""
        return float((self.wrong - self.right).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of `worth`, clips resampled."""
        one = np.ones(len(self.right))
        _, low, high, _, _ = compare([(Ratio(self.wrong, one), Ratio(self.right, one))], self.name)
        return low, high

    @property
    def figures(self) -> dict[str, Any]:
        """`loss` is that with the own prompts; `raised`, in how many clips another one's raises it."""
        if not np.isfinite([self.right, self.wrong]).all():
            return {"not_measured": "the loss of a clip is no number"}
        low, high = self.interval
        told = {"worth": self.worth, "low": low, "high": high, "loss": float(self.right.mean())}
        return {**told, "raised": int((self.wrong > self.right).sum()), "clips": len(self.right)}

    def __str__(self) -> str:
        if why := (told := self.figures).get("not_measured"):
            return f"not measured: {why}"
        return "{worth:+.4f} [{low:+.4f}, {high:+.4f}] of {loss:.4f}, {raised} of {clips} clips".format(**told)


def needed(tasks: Mapping[str, Task] | None, net: Any, stream: Stream) -> AV[bool]:
    """Which streams a model must be given for one of them to be probed: that one alone, where it was trained so.

    Raises:
        ValueError: the model does not make it of a prompt, or only where the other one or a first picture is given.
    """
    known = trained(tasks, net.closed)
    streams = AV(*(each == stream for each in STREAMS))
    both = None not in net.ends
    if both and not any(known.suits(term, Asked(None, streams)) for term in known.terms.values()):
        streams = AV(True, True)
        known.find(Asked(None, streams))
    if streams.video and "image" in net.needs:
        raise ValueError("this network is shown a first picture, and a prompt has none")
    return streams


def probed(tasks: Mapping[str, Task] | None, net: Any) -> tuple[dict[PromptPart, AV[bool]], dict[PromptPart, str]]:
    """The parts of prompts whose worth to a model can be told, each with the streams that the model must be given, and
    why those cannot whose stream it has, too. What is worth something to a stream that it has not is in neither.
    """
    found, faults = {}, {}
    for part in PARTS:
        if getattr(net.ends, part.stream) is not None:
            try:
                found[part] = needed(tasks, net, part.stream)
            except ValueError as error:
                faults[part] = str(error)
    return found, faults


def read(needs: Mapping[PromptPart, AV[bool]]) -> AV[bool]:
    """The streams that any part needs."""
    return AV(*map(any, zip(*needs.values(), strict=True)))


def gathered(
    batches: Iterable[Batch],
    count: int,
    needs: Mapping[PromptPart, AV[bool]],
    encode: Callable[[Batch, AV[bool]], AV[Any]],
) -> tuple[dict[PromptPart, Pairs], dict[PromptPart, str]]:
    """For each part the first clips whose prompts have it, at most so many, and their latents (media are let go); and
    in a sentence, for which part these clips cannot be compared.

    Args:
        batches: to be read as far as is needed.
        count: of clips, for each part.
        needs: the parts, and the streams of which each needs latents.
        encode: a batch's latents of some streams.
    """
    found: dict[PromptPart, Pairs] = {part: [] for part in needs}
    short = dict.fromkeys(needs, count)
    streams = read(needs)
    for batch in batches:
        rows = {part: [i for i, prompt in enumerate(batch.prompt) if part.of(prompt)][: short[part]] for part in needs}
        if kept := sorted(set().union(*rows.values())):
            some = rows_of(batch, kept)
            z, some = encode(some, streams), replace(some, media=None, latents=None)
            for part, own in rows.items():
                if own:
                    at = [kept.index(row) for row in own]
                    latents = AV(*(x[at] if asked else None for x, asked in zip(z, needs[part], strict=True)))
                    found[part].append((rows_of(some, at), latents))
                    short[part] -= len(own)
        if not any(short.values()):
            break
    told = {
        part: part.fault([prompt for batch, _ in pairs for prompt in batch.prompt]) for part, pairs in found.items()
    }
    faults = {part: fault for part, fault in told.items() if fault}
    return {part: pairs for part, pairs in found.items() if part not in faults}, faults


@torch.no_grad()
def worth_of(
    net: Any,
    text: TextEncoder,
    batches: Sequence[tuple[Batch, AV[Any]]],
    grid: Grid,
    part: PromptPart = WORDS,
    *,
    time: float = TIME,
    draws: int = 1,
    seed: int = 0,
    name: str = "words",
) -> Worth:
    """What the words of these clips, or their descriptions, are worth to a model.

    Args:
        net: a DualStreamTransformer, as it samples (averaged weights, `eval`).
        text: its text encoder.
        batches: clips whose prompts have the part, and the latents of the streams that `needed` names.
        grid: of the model.
        part: of prompts, another clip's of which is told; the loss is that of its stream.
        time: of both streams, 0 (clean) to 1.
        draws: of noise for each clip, over which its losses are averaged.
        seed: of the noise.
        name: of the clips.

    Raises:
        ValueError: there are no clips, one's prompt lacks the part, or that of all is the same.
    """
    other = iter(part.with_others([prompt for batch, _ in batches for prompt in batch.prompt]))
    rows: list[Tensor] = []
    for batch, z in batches:
        wrong = [next(other) for _ in batch.prompt]
        states = torch.cat([text(list(batch.prompt)), text(wrong)])
        own = replace(grid, **batch.grid)
        rows += [losses(net, z, states, own, part.stream, time, batch.id, seed, draw) for draw in range(draws)]
    sizes = [len(batch.prompt) for batch, _ in batches]
    means = [torch.stack(rows[i * draws : (i + 1) * draws]).mean(0).reshape(2, n) for i, n in enumerate(sizes)]
    right, wrong_losses = torch.cat(means, 1).double().cpu().numpy()
    return Worth(right, wrong_losses, name)


def losses(
    net: Any,
    z: AV[Any],
    states: Tensor,
    grid: Grid,
    stream: Stream,
    time: float,
    ids: Sequence[str],
    seed: int,
    draw: int,
) -> Float[Tensor, " b2"]:
    """Loss of a stream of each clip, with the first half of the states and then with the second."""

    def drawn(stream: str, x: Tensor) -> Tensor:
        of = [torch.randn(x.shape[1:], generator=generator("words", stream, seed, draw, one)) for one in ids]
        return torch.stack(of).to(x.device)

    noise = AV.zip(lambda x, stream: drawn(stream, x), z, AV("video", "audio"))
    t = z.map(lambda x: x.new_full((len(x),), time))
    twice: AV[Any] = AV.zip(flow.interpolate, z, noise, t).map(lambda x: torch.cat([x, x]))
    v_hat = getattr(net(twice, t.map(lambda x: torch.cat([x, x])), states, grid=grid).velocity, stream)
    v = flow.velocity(getattr(z, stream), getattr(noise, stream))
    return (v_hat.float() - torch.cat([v, v])).square().flatten(1).mean(1)
