"""FD, IS and KL of sounds by PaSST: 768 features and 527 logits of the first 10 s."""

from __future__ import annotations

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.metrics.heard import Divergence, Network, OfSounds
from ccl.evaluation.nets import passt
from ccl.evaluation.nets.passt import LEAST, RATE, WHOLE, WIDTH

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
        seconds: that are taken of each sound, from its beginning; None is the 10 s that PaSST hears. av-benchmark 8.0.
        weights: file of passt-s-f128-p16-s10-ap.476-swa.pt; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, network = "kl_passt", PASST
    columns = (Column("kl_passt", "KL PaSST", better="lower"),)
