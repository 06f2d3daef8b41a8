"""Numbers of two sets of clips: Frechet distances, their bias, and metrics that gather features for them.

A Frechet distance of few clips is too large, for covariances of few are wrong, by about c / N. `extrapolated` takes
it from a line through distances of smaller parts to where 1 / N is 0 (FAD-infinity: Gui et al., arXiv 2311.01616; after
Chong & Forsyth 2020, who do so for FID and the inception score). They shrink the generated set alone, against thousands
of true clips; here both sets are of one size and are shrunk alike, so that the bias of both goes. The line is straight
where a set has more clips than its features are wide; below that the result is still too large.

N and M clips of the two sets, each with one or several rows of D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Measured, Metric
from ccl.media import Clip

EXTRAPOLATED = "extrapolated"  # what stands beside a column's value, as NAME.extrapolated
LEAST = 16  # clips of a set, from which on parts of it are measured
PARTS = (0.5, 0.625, 0.75, 0.875)  # of each set; smaller ones lie where the line is bent
ROUNDS = 3  # of random clips, of each part

DISTANCE = (  # for protocols
    "Frechet, unbiased covariance; extrapolated: to 1 / N = 0 from random parts of both sets, "
    f"{', '.join(map(str, PARTS))} and all, {ROUNDS} times each"
)

Set = Sequence[np.ndarray]  # a clip's feature (D,), or its rows (k, D)


class OfSets(Metric):
    """A metric with numbers of whole sets, alone usable with `update(clips)`, `update(truths, reference=True)`."""

    def __init__(self) -> None:
        super().__init__()
        for kind in ("fake", "real"):
            self.add_state(kind, default=[], dist_reduce_fx="cat")
            self.add_state(f"{kind}_rows", default=[], dist_reduce_fx="cat")

    def update(self, sources: Iterable[Film | Clip | str | Path], reference: bool = False) -> None:
        """Gather values and features of clips, or the features of the reference clips they are compared with.

        Raises:
            ValueError: the metric cannot run here; says what is missing.
        """
        if reason := self.missing():
            raise ValueError(reason)
        kind = "real" if reference else "fake"
        for result in self.score(sources):
            feature = result.feature if isinstance(result, Measured) else None
            rows = torch.empty(0, 0) if feature is None else torch.from_numpy(np.atleast_2d(feature))
            if len(rows):
                getattr(self, kind).append(rows)
            getattr(self, f"{kind}_rows").append(torch.tensor([len(rows)]))
            if not reference:
                self.gather(result)

    def compute(self) -> dict[str, float]:
        """Each column over all clips so far, NaN where there is none; how many were "scored" and "failed"."""
        fake, real = self._set("fake"), self._set("real")
        counted = sum(len(rows) for rows in self._held("fake_rows"))
        counts = {"scored": float(len(fake)), "failed": float(counted - len(fake))}
        return super().compute() | self.pool(fake, real or None) | counts

    def _held(self, name: str) -> list[Tensor]:
        """A state as it is gathered, or joined by torchmetrics."""
        held = getattr(self, name)
        return held if isinstance(held, list) else [held]

    def _set(self, kind: str) -> list[np.ndarray]:
        """The features of each clip that has one."""
        rows, counts = self._held(kind), self._held(f"{kind}_rows")
        if not rows or not counts:
            return []
        each = torch.cat(rows).split([int(count) for count in torch.cat(counts) if count])
        return [one.squeeze(0).numpy(force=True) for one in each]


def distance(name: str, features: Set, reference: Set | None) -> dict[str, float]:
    """The Frechet distance under a column's name, and beside it "NAME.extrapolated"; none of a set of one clip.

    Raises:
        ValueError: features of different widths.
    """
    if reference is None or min(len(features), len(reference)) < 2:
        return {}
    found = {name: frechet(rows(features), rows(reference))}
    if min(len(features), len(reference)) >= LEAST:
        found[f"{name}.{EXTRAPOLATED}"] = extrapolated(
            lambda a, b: frechet(rows(a), rows(b)), found[name], features, reference
        )
    return found


def rows(features: Set) -> Float[np.ndarray, "n d"]:
    """The rows of all clips."""
    return np.concatenate([np.atleast_2d(feature) for feature in features])


def extrapolated(measure: Callable[..., float], whole: float, *sets: Set, seed: int = 0) -> float:
    """What a measure of sets tends to as they grow: where a line through its values over 1 / N meets 1 / N = 0.

    Args:
        measure: of as many sets as there are.
        whole: its value of the whole sets.
        sets: of which parts are taken, of all the same share, at random.
        seed: of the parts.
    """
    rng = np.random.default_rng(seed)
    inverse, values = [1.0], [whole]
    for part in PARTS:
        for _ in range(ROUNDS):
            # Of sets of one size the same places: they are clips of the same rows, as they are in the whole.
            sizes = dict.fromkeys(map(len, sets))
            order = {size: rng.permutation(size)[: round(part * size)] for size in sizes}
            some = [[each[i] for i in order[len(each)]] for each in sets]
            inverse.append(float(np.mean([len(each) / len(few) for each, few in zip(sets, some, strict=True)])))
            values.append(measure(*some))
    return float(np.polyfit(inverse, values, 1)[1])


def frechet(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^1/2) with the unbiased covariances A and B.

    tr (A B)^1/2 is the sum of the singular values of a b^T, centred and scaled: no matrix root, no rounding below 0.
    """
    left, right = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a.astype(np.float64), b.astype(np.float64)))
    means = ((a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)) ** 2).sum()
    # Of more rows than features the triangle of a QR says the same, and is as small as the features are wide.
    a, b = (np.asarray(np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x) for x in (left, right))
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(means + (left**2).sum() + (right**2).sum() - 2 * shared)
