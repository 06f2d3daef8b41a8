"""Onset accuracy and average precision: whether sounds begin when the true ones do (CondFoleyGen, CVPR 2023; AV-Link).

By the rules of CondFoleyGen's predict_onset.py, for sounds of hits and steps against the clip they were taken from. An
onset's confidence is the sound's largest amplitude within 50 ms, as a share of the clip's. S samples, K onsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from ccl.evaluation.dsp.onset import onsets
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.media import MediaError
from ccl.rows import Row

SAMPLE_RATE = 22_050
DELTA = 0.3  # of the peak picking
NEAR = int(0.05 * SAMPLE_RATE)  # samples on either side that an onset's confidence is taken from


class Onset(Metric):
    """Share of the reference clip's onsets that are met, and the average precision of those found; both in 0..1.

    Kept from the published code, so that numbers compare: of two weaker neighbours within 50 ms the later one stays,
    and a reference without onsets gives 0. Its precision ranks missed onsets last as if they had been found, but for
    those after the last match, so that a silent clip gets 1: read it beside the accuracy, or take "detection".

    Args:
        scoring: of the average precision: "published", or "detection", where missed onsets are never recalled and a
            silent clip gets 0.
        tolerance: seconds within which an onset meets a true one.
    """

    name = "onset"
    columns = (
        Column("onset_acc", "Onset Acc", digits=1, percent=True, sync=True),
        Column("onset_ap", "Onset AP", digits=1, percent=True, sync=True),
    )

    def __init__(self, scoring: Literal["published", "detection"] = "published", tolerance: float = 0.1) -> None:
        super().__init__()
        self.scoring, self.tolerance = scoring, tolerance

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "no reference clip to compare its onsets with" if row.reference is None else ""

    def prepare(self, film: Film) -> tuple[np.ndarray, np.ndarray]:
        """The clip's sound and its reference's, cut to the shorter."""
        if reason := self.inapplicable(film.row, speech=False):
            raise Unscorable(reason)
        sound, true = film.sound(SAMPLE_RATE), reference_sound(film)
        length = min(len(sound), len(true))
        return sound[:length], true[:length]

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Measured]:
        return [Measured(self._values(sound, true)) for sound, true in inputs]

    def protocol(self) -> dict[str, Any]:
        return {
            "onsets": f"librosa 0.11 onset_detect, delta {DELTA}, {SAMPLE_RATE} Hz mono by torchaudio's resampling",
            "tolerance": self.tolerance,
            "rule": "CondFoleyGen predict_onset.py; of two weaker neighbours within 50 ms the later one stays",
            "precision": {
                "published": "missed onsets rank last, those after the last match are left out; a silent clip gets 1",
                "detection": "missed onsets are never recalled; a silent clip gets 0",
            }[self.scoring],
            "no true onset": 0,
            "length": "the shorter of clip and reference",
        }

    def _values(self, sound: np.ndarray, true: np.ndarray) -> dict[str, float]:
        found, target = (onsets(x, SAMPLE_RATE, DELTA) for x in (sound, true))
        found, confidence = suppress(found, confidences(sound, found))
        met = match(target, found, loudness(sound)[found], confidence, self.tolerance * SAMPLE_RATE)
        misses = met.misses if self.scoring == "published" else 0
        total = len(met.hits) + misses if self.scoring == "published" else len(target)
        labels = [1] * (len(met.hits) + misses) + [0] * len(met.alarms)
        return {
            "onset_acc": len(met.hits) / len(target) if len(target) else 0.0,
            "onset_ap": average_precision(labels, [*met.hits, *[0.0] * misses, *met.alarms], total),
        }


def reference_sound(film: Film) -> Float32[np.ndarray, " s"]:
    """The sound of the clip's reference, from that clip's first picture on, as the film's own."""
    reference = film.row.reference
    assert reference is not None
    try:
        return film.once(("reference sound", SAMPLE_RATE), lambda: Film.read(Path(reference)).sound(SAMPLE_RATE))
    except (MediaError, Unscorable) as error:
        raise Unscorable(f"its reference clip: {getattr(error, 'reason', error)}") from error


def loudness(sound: Float32[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """Amplitude, the clip's smallest and largest brought to 0 and 1."""
    amplitude = np.abs(sound)
    span = np.ptp(amplitude) if len(amplitude) else 0
    return (amplitude - amplitude.min()) / span if span else np.zeros_like(amplitude)


def confidences(sound: Float32[np.ndarray, " s"], found: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Largest amplitude around each onset; windows end where the sound does (the published code fails there)."""
    amplitude = loudness(sound)
    return np.array([amplitude[max(0, at - NEAR) : at + NEAR].max() for at in found])


def suppress(
    found: Int[np.ndarray, " k"], confidence: Float[np.ndarray, " k"], window: float = 0.05 * SAMPLE_RATE
) -> tuple[Int[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """The onsets without weaker ones close by, strongest first to choose; see `Onset` for what is spared."""
    left = list(range(len(found)))
    kept = []
    for strongest in np.argsort(confidence, kind="stable")[::-1].tolist():
        if strongest not in left:
            continue
        kept.append(strongest)
        left.remove(strongest)
        near = [i for i in left if abs(found[i] - found[strongest]) < window]
        if near:
            left.remove(near[0])
    kept.sort()
    return found[kept], confidence[kept]


class Match(NamedTuple):
    """Confidences of the onsets that met a true one and of those that did not; true ones missed until none was free."""

    hits: list[float]
    alarms: list[float]
    misses: int


def match(
    target: Int[np.ndarray, " n"],
    found: Int[np.ndarray, " k"],
    height: Float[np.ndarray, " k"],
    confidence: Float[np.ndarray, " k"],
    tolerance: float,
) -> Match:
    """Each true onset takes the highest free one within reach.

    Args:
        target: true onsets, samples.
        found: the clip's onsets.
        height: amplitude at each, which decides among several.
        confidence: of each.
        tolerance: samples.
    """
    free, misses = list(range(len(found))), 0
    hits: list[float] = []
    for time in target:
        near = [i for i in free if abs(found[i] - time) < tolerance]
        if not near:
            misses += 1
            continue
        best = near[int(np.argsort(height[near], kind="stable")[-1])]
        hits.append(float(confidence[best]))
        free.remove(best)
        if not free:
            break  # what follows is counted nowhere but in the accuracy
    return Match(hits, [float(confidence[i]) for i in free], misses)


def average_precision(labels: Sequence[int], scores: Sequence[float], positives: int | None = None) -> float:
    """Mean precision over the positives, sum of (R_n - R_n-1) P_n over the distinct scores from the highest down.

    Args:
        labels: 1 where a positive was found, else 0.
        scores: of each; equal ones enter together.
        positives: how many there are in truth; None counts the labels.
    """
    label, score = np.asarray(labels, float), np.asarray(scores, float)
    if not label.sum():
        return 0.0
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), -1))
    hits = np.cumsum(label[order])[ends]
    recall = hits / (positives or label.sum())
    return float(np.sum(np.diff(recall, prepend=0) * hits / (ends + 1)))
