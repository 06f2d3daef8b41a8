"""FD, IS and KL of sounds by PANNs' Cnn14, with av-benchmark's conventions (metrics/{fad,isc,kl}.py there).

FD is the Frechet distance of its 2048 features to those of true clips. IS is the inception score of its 527 logits by
softmax, high where each sound is clearly of one class and the classes of all are many: the mean over ten parts of the
set, shuffled. Both are numbers of sets. KL is a clip's, against its true clip: KL(true || clip) of the two softmaxes.

S samples at 16 kHz, N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.metrics.fad import RATE, centred
from ccl.evaluation.metrics.sets import DISTANCE, EXTRAPOLATED, LEAST, OfSets, Set, distance, extrapolated
from ccl.evaluation.nets.panns import LEAST as SHORTEST
from ccl.evaluation.nets.panns import WIDTH, Cnn14
from ccl.media import MediaError
from ccl.rows import Row
from ccl.weights import catalogue as weights
from ccl.weights.read import tensors

SPLITS, SEED = 10, 2020  # av-benchmark's
NOTHING = "no reference clip to compare its classes with"

Sound = Float32[np.ndarray, " s"]


class Heard(Metric):
    """What the metrics here share: sounds for Cnn14, and what it says of them."""

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
        """Long enough for Cnn14. Unscorable where it is not."""
        sound = centred(film, self.seconds)
        if len(sound) < SHORTEST:
            raise Unscorable(f"the sound is too short for Cnn14: {SHORTEST / RATE:.2f} s are needed")
        return sound

    def hear(self, sounds: Sequence[Sound]) -> list[tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, " c"]]]:
        """Features and logits of each, those of one length together."""
        found: list[Any] = [None] * len(sounds)
        for length in {len(sound) for sound in sounds}:
            same = [i for i, sound in enumerate(sounds) if len(sound) == length]
            batch = torch.from_numpy(np.stack([sounds[i] for i in same])).to(self.place)
            with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
                features, logits = self.net(batch)
            for i, feature, logit in zip(same, features.float().cpu(), logits.float().cpu(), strict=True):
                found[i] = (feature.numpy(), logit.numpy())
        return found

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return weights.locate("panns", self.given)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "PANNs Cnn14, 16 kHz, AudioSet",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling, its mean taken away",
            "seconds": self.seconds or "all",
            "precision": self.precision,
            "weights": weights.sha256(weights.locate("panns", self.given)),
        }

    @cached_property
    def net(self) -> Cnn14:
        return Cnn14.of(dict(tensors(weights.locate("panns", self.given)))).to(self.place, torch.float32)


class PANNs(Heard, OfSets):
    """FD to reference clips, lower is better, and IS, higher is better; both depend on how many clips there are.

    Alone: `panns.update(clips)`, `panns.update(truths, reference=True)`, `panns.compute()`.

    Args:
        seconds: that are taken of each sound, from its beginning; None is all. av-benchmark 8.0.
        weights: file of Cnn14_16k_mAP=0.438.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name = "panns"
    columns = (
        Column("fd_panns", "FD PANNs", better="lower", pooled=True, width=WIDTH),
        Column("is_panns", "IS PANNs", pooled=True),
    )

    def prepare(self, film: Film) -> Sound:
        """The sound at 16 kHz."""
        return self.sound(film)

    def measure(self, inputs: Sequence[Sound]) -> list[Measured]:
        return [Measured({}, np.concatenate(both)) for both in self.hear(inputs)]

    def pool(self, features: Set, reference: Set | None = None) -> dict[str, float]:
        """Of features and logits, one after the other in each clip's array."""
        own = [feature[:WIDTH] for feature in features]
        true = None if reference is None else [feature[:WIDTH] for feature in reference]
        return distance("fd_panns", own, true) | score("is_panns", [feature[WIDTH:] for feature in features])

    def protocol(self) -> dict[str, Any]:
        parts = f"mean of {SPLITS} parts, shuffled with seed {SEED}; extrapolated: of all as one, to 1 / N = 0"
        return super().protocol() | {"distance": DISTANCE, "inception score": f"softmax of logits, {parts}"}


class KL(Heard):
    """KL divergence of a clip's classes from its true clip's, lower is better.

    Args:
        seconds: that are taken of each sound, from its beginning; None is all. av-benchmark 8.0.
        weights: file of Cnn14_16k_mAP=0.438.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name = "kl"
    columns = (Column("kl_panns", "KL PANNs", better="lower"),)

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return NOTHING if row.reference is None else ""

    def prepare(self, film: Film) -> tuple[Sound, Float32[np.ndarray, " r"]]:
        """The clip's sound and its true clip's."""
        if film.row.reference is None:
            raise Unscorable(NOTHING)
        own = self.sound(film)
        try:
            return own, self.sound(Film.read(film.row.reference))
        except (MediaError, Unscorable) as error:
            raise Unscorable(f"its reference clip: {getattr(error, 'reason', error)}") from error

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Measured]:
        logits = [logit for _, logit in self.hear([sound for pair in inputs for sound in pair])]
        return [Measured({"kl_panns": divergence(t, o)}) for o, t in zip(logits[::2], logits[1::2], strict=True)]

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"score": "KL(true || clip) of softmaxes of logits"}


def divergence(true: Float[np.ndarray, " c"], other: Float[np.ndarray, " c"]) -> float:
    """KL(true || other) of the softmaxes of two rows of logits."""
    p, q = (torch.from_numpy(x).double().log_softmax(0) for x in (true, other))
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
