"""FD, IS and KL of sounds by PANNs' Cnn14: 2048 features and 527 logits."""

from __future__ import annotations

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.metrics.heard import Divergence, Network, OfSounds
from ccl.evaluation.nets.panns import LEAST, RATE, WIDTH, Cnn14

CNN14 = Network("Cnn14", "PANNs Cnn14, 16 kHz, AudioSet", "panns", Cnn14.of, RATE, LEAST)


class PANNs(OfSounds):
    """FD to reference clips, lower is better, and IS, higher is better; both depend on how many clips there are.

    Alone: `panns.update(clips)`, `panns.update(truths, reference=True)`, `panns.compute()`.

    Args:
        seconds: that are taken of each sound, from its beginning; None is all. av-benchmark 8.0.
        weights: file of Cnn14_16k_mAP=0.438.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, network = "panns", CNN14
    columns = (
        Column("fd_panns", "FD PANNs", better="lower", pooled=True, width=WIDTH),
        Column("is_panns", "IS PANNs", pooled=True),
    )


class KL(Divergence):
    """KL divergence of a clip's classes from its true clip's by Cnn14, lower is better.

    Args:
        seconds: that are taken of each sound, from its beginning; None is all. av-benchmark 8.0.
        weights: file of Cnn14_16k_mAP=0.438.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, network = "kl", CNN14
    columns = (Column("kl_panns", "KL PANNs", better="lower"),)
