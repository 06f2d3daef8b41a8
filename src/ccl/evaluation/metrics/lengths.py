"""Whether sound and pictures last equally long, as the file holds them: nothing is cut or padded first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric


class Lengths(Metric):
    """By how many seconds sound and pictures end apart; `av_surplus` (a row) is above 0 where sound goes on.

    An AAC stream is whole blocks of 1024 samples, so that up to 21 ms at 48 kHz, and 64 at 16 kHz, are the codec's.
    """

    name = "lengths"
    usual = False
    columns = (
        Column("av_length", "A/V length", "lower", digits=3),
        Column("av_surplus", "sound's surplus", "", digits=3, shown=False),
    )

    def prepare(self, film: Film) -> float:
        """Seconds by which the sound outlasts the pictures, both from the first picture on."""
        return len(film.audio) / film.clip.sample_rate - len(film.video) / film.clip.fps

    def measure(self, inputs: Sequence[float]) -> list[Measured]:
        return [Measured({"av_length": abs(surplus), "av_surplus": surplus}) for surplus in inputs]

    def protocol(self) -> dict[str, Any]:
        return {"ends": "of the last sample and the last picture's duration, in seconds after the first picture"}
