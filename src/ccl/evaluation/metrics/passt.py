"""FD, IS and KL of sounds by PaSST: 768 features and 527 logits of the first 10 s."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column
from ccl.evaluation.metrics.heard import Divergence, Network, OfSounds, Part, Sound
from ccl.evaluation.nets import passt
from ccl.evaluation.nets.passt import LEAST, RATE, WHOLE, WIDTH

STEP, FILLED = 5 * RATE, round(0.15 * WHOLE)  # Verse-Bench's: between windows, and longer than what stays as it is
PEAK, FLOOR = 10 ** (-1 / 20), 1e-6

PASST = Network("PaSST", "PaSST-S, SWA, 32 kHz, AudioSet (mAP .476)", "passt", passt.PaSST.of, RATE, LEAST, WHOLE)


class PaSST(OfSounds):
    """FD to reference clips, lower is better, and IS, higher is better; both depend on how many clips there are.

    Alone: `passt.update(clips)`, `passt.update(truths, reference=True)`, `passt.compute()`.

    Args:
        seconds: that are taken of each sound, from its beginning; None is the 10 s that PaSST hears. av-benchmark 8.0.
        weights: file of passt-s-f128-p16-s10-ap.476-swa.pt; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, network = "passt", PASST
    columns = (
        Column("fd_passt", "FD PaSST", better="lower", pooled=True, width=WIDTH),
        Column("is_passt", "IS PaSST", pooled=True),
    )


class KLPaSST(Divergence):
    """KL divergence of a clip's classes from its true clip's by PaSST, lower is better.

    Args:
        convention: "av-benchmark" hears 10 s, around 0. "verse-bench" hears all, its peak at -1 dB, in windows of 10 s
            every 5 s, whose mean logits count, and adds 1e-6 to the clip's probabilities.
        seconds: that are taken of each sound, from its beginning; None is all that is heard. av-benchmark 8.0.
        weights: file of passt-s-f128-p16-s10-ap.476-swa.pt; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, network = "kl_passt", PASST
    columns = (Column("kl_passt", "KL PaSST", better="lower"),)

    def __init__(
        self,
        *,
        convention: Literal["av-benchmark", "verse-bench"] = "av-benchmark",
        seconds: float | None = None,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__(seconds=seconds, weights=weights, device=device, precision=precision)
        self.in_windows = convention == "verse-bench"
        self.floor = FLOOR if self.in_windows else 0.0

    def parts(self, film: Film) -> list[Part]:
        """The sound's 10 s, or its windows."""
        if not self.in_windows:
            return super().parts(film)
        sound = film.sound(RATE)[: None if self.seconds is None else int(RATE * self.seconds)]
        self.check_length(sound)
        if not sound.any():
            raise Unscorable("the sound is silent: it has no peak to be scaled to")
        return windows(sound * np.float32(PEAK / np.abs(sound).max()))

    def protocol(self) -> dict[str, Any]:
        if not self.in_windows:
            return super().protocol()
        return super().protocol() | {
            "sound": f"mono, {RATE} Hz by torchaudio's resampling, its peak at -1 dB; windows of {WHOLE / RATE:g} s "
            f"every {STEP / RATE:g} s, filled up with silence where longer than {FILLED / RATE:g} s",
            "score": f"KL(true || clip + {FLOOR:g}) of softmaxes of mean logits",
        }


def windows(sound: Sound) -> list[Part]:
    """10 s every 5 s, the last filled up with silence; a sound of at most 1.5 s stays as it is."""
    found = [sound[start : start + WHOLE] for start in range(0, max(STEP, len(sound) - STEP), STEP)]
    return [np.pad(one, (0, WHOLE - len(one))) if len(one) > FILLED else one for one in found]
