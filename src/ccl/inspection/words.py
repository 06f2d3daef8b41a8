"""What words are worth: how much better a model knows a sound when it is told what is said in it.

The flow-matching loss of the sound with the right prompt, against that with the same prompt and another clip's sentence
in its quotes; same clip, same time, same noise. 0 is a model that does not listen. At t = 0.8 a sound is still noise
and its words are being decided. A word error rate tells nothing before words come right; this does long before.
B clips, T audio latents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ccl.rng import generator
from ccl.tasks import Task
from ccl.text.base import TextEncoder
from ccl.types import AV, Batch

TIME = 0.8
QUOTED = re.compile('["“„]([^"“”„]*)["”“]')


@dataclass(frozen=True)
class Worth:
    """Of clips, the losses of the sound.

    Args:
        right: told what is said, of each clip.
        wrong: told what another one says.
        name: of the clips; the interval's resamples follow from it.
    """

    right: Float[np.ndarray, " n"]
    wrong: Float[np.ndarray, " n"]
    name: str = "words"

    @property
    def worth(self) -> float:
        """By how much the wrong words raise the loss."""
        return float((self.wrong - self.right).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of `worth`, clips resampled."""
        one = np.ones(len(self.right))
        _, low, high, _, _ = compare([(Ratio(self.wrong, one), Ratio(self.right, one))], self.name)
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        told = f"{self.worth:+.4f} [{low:+.4f}, {high:+.4f}] of {self.right.mean():.4f}"
        return f"{told}, {int((self.wrong > self.right).sum())} of {len(self.right)} clips"


def spoken(prompt: str) -> bool:
    """Whether somebody says something in a prompt."""
    return bool((found := QUOTED.search(prompt)) and found[1].strip())


def spoken_of(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The clips in which somebody says something, at most so many."""
    for batch in batches:
        rows = [row for row, prompt in enumerate(batch.prompt) if spoken(prompt)][:count]
        count -= len(rows)
        if rows:
            yield rows_of(batch, rows)
        if not count:
            return


def with_other_words(prompts: Sequence[str]) -> list[str]:
    """The prompts, each with the words of another one in its quotes: of the next in the list that says another thing.

    Raises:
        ValueError: one says nothing, or all say the same.
    """
    found = [QUOTED.search(prompt) for prompt in prompts]
    others = []
    for i, (prompt, own) in enumerate(zip(prompts, found, strict=True)):
        if own is None:
            raise ValueError(f"nothing is said in the prompt {prompt!r}; spoken words stand in double quotes")
        following = (one[1] for one in (*found[i + 1 :], *found[:i]) if one is not None)
        other = next((words for words in following if words.casefold() != own[1].casefold()), None)
        if other is None:
            raise ValueError("all prompts say the same; to compare words, clips that say different things are needed")
        others.append(f"{prompt[: own.start(1)]}{other}{prompt[own.end(1) :]}")
    return others


def needed(tasks: Mapping[str, Task] | None, net: Any) -> AV[bool]:
    """Which streams a model must be given for its sound to be probed: the sound alone, where it was trained so.

    Raises:
        ValueError: the model makes no sound, or only where pictures are given.
    """
    if net.ends.audio is None:
        raise ValueError("this model has no audio stream, so words are worth nothing to it")
    known = trained(tasks, net.closed)
    both = net.ends.video is not None
    if both and not any(known.suits(term, Asked(None, AV(False, True))) for term in known.terms.values()):
        known.find(Asked(None, AV(True, True)))
        return AV(True, True)
    return AV(False, True)


@torch.no_grad()
def worth_of(
    net: Any,
    text: TextEncoder,
    batches: Sequence[tuple[Batch, AV[Any]]],
    grid: Grid,
    *,
    time: float = TIME,
    draws: int = 1,
    seed: int = 0,
    name: str = "words",
) -> Worth:
    """What the words of these clips are worth to a model.

    Args:
        net: a DualStreamTransformer, as it samples (averaged weights, `eval`).
        text: its text encoder.
        batches: clips that say something, and the latents of the streams that `needed` names.
        grid: of the model.
        time: of both streams, 0 (clean) to 1.
        draws: of noise for each clip, over which its losses are averaged.
        seed: of the noise.
        name: of the clips.

    Raises:
        ValueError: a clip says nothing, or all say the same.
    """
    if not batches:
        raise ValueError("no clip's prompt holds words in double quotes, so there is nothing to compare")
    other = iter(with_other_words([prompt for batch, _ in batches for prompt in batch.prompt]))
    rows: list[Tensor] = []
    for batch, z in batches:
        wrong = [next(other) for _ in batch.prompt]
        states = torch.cat([text(list(batch.prompt)), text(wrong)])
        rows += [
            losses(net, z, states, replace(grid, **batch.grid), time, batch.id, seed, draw) for draw in range(draws)
        ]
    sizes = [len(batch.prompt) for batch, _ in batches]
    means = [torch.stack(rows[i * draws : (i + 1) * draws]).mean(0).reshape(2, n) for i, n in enumerate(sizes)]
    right, wrong_losses = torch.cat(means, 1).double().cpu().numpy()
    return Worth(right, wrong_losses, name)


def losses(
    net: Any, z: AV[Any], states: Tensor, grid: Grid, time: float, ids: Sequence[str], seed: int, draw: int
) -> Float[Tensor, " b2"]:
    """Loss of the sound of each clip, with the first half of the states and then with the second."""

    def drawn(stream: str, x: Tensor) -> Tensor:
        of = [torch.randn(x.shape[1:], generator=generator("words", stream, seed, draw, one)) for one in ids]
        return torch.stack(of).to(x.device)

    noise = AV.zip(lambda x, stream: drawn(stream, x), z, AV("video", "audio"))
    t = z.map(lambda x: x.new_full((len(x),), time))
    twice: AV[Any] = AV.zip(flow.interpolate, z, noise, t).map(lambda x: torch.cat([x, x]))
    v_hat = net(twice, t.map(lambda x: torch.cat([x, x])), states, grid=grid).velocity.audio
    error = (v_hat.float() - flow.velocity(z.audio, noise.audio).repeat(2, 1, 1)).square()
    return error.flatten(1).mean(1)
