"""Metrics that say what they were asked, and runs of scoring over six clips of which some cannot be scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.score import score
from ccl.media import Clip
from ccl.rows import Row

ROWS = [Row(id=f"c{i}", prompt="p", subset="easy" if i < 3 else "hard") for i in range(6)]


class Loudness(Metric):
    """Counts what it is asked; stumbles over silence."""

    name = "loudness"
    columns = (Column("peak", "Peak"), Column("average", "Average"))
    batch_size = 2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.prepared: list[str] = []
        self.batches: list[int] = []

    def protocol(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def prepare(self, film: Film) -> np.ndarray:
        self.prepared.append(film.row.id)
        if not film.audio.any():
            raise Unscorable("only silence")
        return np.abs(film.audio) * self.scale

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        self.batches.append(len(inputs))
        # As of a network, a number depends a little on its batch.
        extra = 1e-6 * len(inputs)
        return [Measured({"peak": float(a.max()) + extra, "average": float(a.mean())}) for a in inputs]


class Brittle(Loudness):
    name = "brittle"
    columns = (Column("brittle", "Brittle"),)

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        if any(a.max() > 0.25 for a in inputs):
            raise RuntimeError("too loud")
        return [Measured({"brittle": float(len(inputs))}) for _ in inputs]


class Weightless(Metric):
    name = "weightless"
    columns = (Column("nothing", "Nothing"),)

    def missing(self) -> str:
        return "it needs weights.pt"

    def prepare(self, film: Film) -> Any:
        raise AssertionError("must not be called")

    def measure(self, inputs: Sequence[Any]) -> list[Measured]:
        raise AssertionError("must not be called")


class Spread(Metric):
    """A number of a whole set."""

    name = "spread"
    columns = (Column("spread", "Spread", pooled=True),)

    def prepare(self, film: Film) -> float:
        return float(np.abs(film.audio).max())

    def measure(self, inputs: Sequence[float]) -> list[Measured]:
        return [Measured({}, np.array([value])) for value in inputs]

    def pool(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None = None) -> dict[str, float]:
        own = {"spread": float(np.ptp(features))}
        return own | ({"shift": float(np.mean(features) - np.mean(reference))} if reference else {})


def clip(i: int = 0) -> Clip:
    video = np.full((5, 16, 16, 3), 40 * i, np.uint8)
    return Clip(video, (0.1 * (i + 1) * np.sin(np.arange(3200) / 5)).astype(np.float32), id=f"c{i}")


def run(folder: Path, metrics: list[Metric], out: Path, **settings: Any):
    return score({"mine": folder}, ROWS, metrics, out, **settings)


def by(results) -> dict[tuple[str, str], dict]:
    return {(row["id"], row["metric"]): row for row in results.rows}
