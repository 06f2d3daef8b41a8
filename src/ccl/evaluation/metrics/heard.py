"""FD, IS and KL of sounds by a network that hears classes, by av-benchmark's conventions (its metrics/{fad,isc,kl}.py).

FD is the Frechet distance of its features to those of true clips. IS is the inception score of its logits by softmax,
high where each sound is clearly of one class and the classes of all are many: the mean over ten parts of the set,
shuffled. Both are numbers of sets. KL is a clip's, against its true clip: KL(true || clip) of the two softmaxes.

S samples at the network's rate, N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import nn

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Measured, Metric
from ccl.evaluation.metrics.fad import centred
from ccl.evaluation.metrics.sets import DISTANCE, EXTRAPOLATED, LEAST, OfSets, Set, distance, extrapolated
from ccl.media import MediaError
from ccl.rows import Row
from ccl.weights import catalogue as weights
from ccl.weights.read import tensors

SPLITS, SEED = 10, 2020  # av-benchmark's
NOTHING = "no reference clip to compare its classes with"

Sound = Float32[np.ndarray, " s"]
Part = Float32[np.ndarray, " _"]  # of a sound, as long as it is


@dataclass(frozen=True)
class Network:
    """One that gives a sound's features and the logits of its classes.

    Args:
        name: in errors.
        says: of it in protocols.
        weights: their name in `ccl weights list`.
        of: makes it of what their file holds.
        rate: of its sounds, Hz.
        least: samples that it needs.
        whole: samples that every sound is cut to, or filled up to with silence; 0 takes sounds as long as they are.
    """

    name: str
    says: str
    weights: str
    of: Callable[[dict[str, Any]], nn.Module]
    rate: int
    least: int
    whole: int = 0


class Heard(Metric):
    """What the metrics here share: sounds for a network, and what it says of them. Subclasses name the network."""

    network: ClassVar[Network]
    usual = False
    batch_size = 4

    def __init__(
        self,
        *,
        seconds: float | None = None,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.seconds, self.given, self.place, self.precision = seconds, weights, torch.device(device), precision

    def sound(self, film: Film) -> Sound:
        """At the network's rate, as long as it needs. Unscorable where it is too short."""
        network = self.network
        sound = centred(film, self.seconds, network.rate)
        self.check_length(sound)
        if network.whole:
            return np.pad(sound[: network.whole], (0, max(0, network.whole - len(sound))))
        return sound

    def check_length(self, sound: Sound) -> None:
        """Unscorable where the network cannot hear so short a sound."""
        if len(sound) < self.network.least:
            needed = self.network.least / self.network.rate
            raise Unscorable(f"the sound is too short for {self.network.name}: {needed:.2f} s are needed")

    def hear(self, sounds: Sequence[Part]) -> list[tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, " c"]]]:
        """Features and logits of each, those of one length together."""
        found: list[Any] = [None] * len(sounds)
        for length in {len(sound) for sound in sounds}:
            same = [i for i, sound in enumerate(sounds) if len(sound) == length]
            for some in (same[i : i + self.batch_size] for i in range(0, len(same), self.batch_size)):
                batch = torch.from_numpy(np.stack([sounds[i] for i in some])).to(self.place)
                with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    features, logits = self.net(batch)
                for i, feature, logit in zip(some, features.float().cpu(), logits.float().cpu(), strict=True):
                    found[i] = (feature.numpy(), logit.numpy())
        return found

    def load(self) -> None:
        _ = self.net

    def find(self) -> Path:
        return weights.locate(self.network.weights, self.given)

    def protocol(self) -> dict[str, Any]:
        network = self.network
        whole = f"; {network.whole / network.rate:g} s, cut or filled up with silence" if network.whole else ""
        return {
            "network": network.says,
            "sound": f"mono, {network.rate} Hz by torchaudio's resampling, its mean taken away{whole}",
            "seconds": self.seconds or "all",
            # Said, so that no score is kept of when spectrograms were in bf16 too.
            "precision": "bf16, spectrograms fp32" if self.precision == "bf16" else self.precision,
            "weights": weights.sha256(self.find()),
        }

    @cached_property
    def net(self) -> nn.Module:
        return self.network.of(dict(tensors(self.find()))).to(self.place, torch.float32)


class OfSounds(Heard, OfSets):
    """FD to reference clips and IS, the columns of its subclasses."""

    def prepare(self, film: Film) -> Sound:
        """The sound at the network's rate."""
        return self.sound(film)

    def measure(self, inputs: Sequence[Sound]) -> list[Measured]:
        return [Measured({}, np.concatenate(both)) for both in self.hear(inputs)]

    def pool(self, features: Set, reference: Set | None = None) -> dict[str, float]:
        """Of features and logits, one after the other in each clip's array."""
        fd, inception = self.columns
        own = [feature[: fd.width] for feature in features]
        true = None if reference is None else [feature[: fd.width] for feature in reference]
        logits = [feature[fd.width :] for feature in features]
        return distance(fd.name, own, true) | score(inception.name, logits)

    def protocol(self) -> dict[str, Any]:
        parts = f"mean of {SPLITS} parts, shuffled with seed {SEED}; extrapolated: of all as one, to 1 / N = 0"
        return super().protocol() | {"distance": DISTANCE, "inception score": f"softmax of logits, {parts}"}


class Divergence(Heard):
    """KL divergence of a clip's classes from its true clip's, the column of its subclasses."""

    floor = 0.0  # added to the clip's probabilities

    def parts(self, film: Film) -> list[Part]:
        """What is heard of a sound, piece by piece; their mean logits count."""
        return [self.sound(film)]

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return NOTHING if row.reference is None else ""

    def prepare(self, film: Film) -> tuple[list[Part], list[Part]]:
        """The clip's sound and its true clip's."""
        if film.row.reference is None:
            raise Unscorable(NOTHING)
        own = self.parts(film)
        try:
            return own, self.parts(Film.read(film.row.reference))
        except (MediaError, Unscorable) as error:
            raise Unscorable(f"its reference clip: {getattr(error, 'reason', error)}") from error

    def measure(self, inputs: Sequence[tuple[list[Part], list[Part]]]) -> list[Measured]:
        (column,) = self.columns
        heard = iter(self.hear([part for pair in inputs for parts in pair for part in parts]))
        pairs = [[np.mean([next(heard)[1] for _ in parts], 0) for parts in pair] for pair in inputs]
        return [Measured({column.name: divergence(true, own, self.floor)}) for own, true in pairs]

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"score": "KL(true || clip) of softmaxes of logits"}


def divergence(true: Float[np.ndarray, " c"], other: Float[np.ndarray, " c"], floor: float = 0.0) -> float:
    """KL(true || other + floor) of the softmaxes of two rows of logits."""
    p, q = (torch.from_numpy(x).double().log_softmax(0) for x in (true, other))
    q = (q.exp() + floor).log() if floor else q
    return float((p.exp() * (p - q)).sum())


def score(name: str, logits: Set) -> dict[str, float]:
    """The inception score, and beside it "NAME.extrapolated"; none of fewer clips than parts."""
    if len(logits) < SPLITS:
        return {}
    every = np.stack(logits)[np.random.RandomState(SEED).permutation(len(logits))]
    edges = [i * len(every) // SPLITS for i in range(SPLITS + 1)]
    parts = [inception(every[a:b]) for a, b in pairwise(edges)]
    found = {name: float(np.mean(parts))}
    if len(logits) >= LEAST:
        found[f"{name}.{EXTRAPOLATED}"] = extrapolated(inception, inception(every), logits)
    return found


def inception(logits: Sequence[np.ndarray] | Float[np.ndarray, "n c"]) -> float:
    """exp of the mean KL of each clip's classes from those of all."""
    log_p = torch.from_numpy(np.stack(list(logits))).double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - log(len(log_p))
    return float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
