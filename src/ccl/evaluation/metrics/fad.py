"""FAD: Frechet distance of generated and true sounds in VGGish's features (Kilgour et al. 2019, arXiv 1812.08466).

A number of two sets. As av-benchmark has it (FD-VGG): every 0.96 s of every clip is a row, the network's last ReLU and
its PCA are left out, and each sound's mean is taken away first. Sets are shrunk by clips, for what is extrapolated.

S samples at 16 kHz, K examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ccl.evaluation.dsp.banks import mel_bands
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.sets import DISTANCE, OfSets, Set, distance
from ccl.evaluation.nets.vggish import BANDS, FRAMES, WIDTH, VGGish
from ccl.weights import catalogue as weights
from ccl.weights.read import tensors

RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512
LOWEST, HIGHEST = 125.0, 7500.0  # Hz
OFFSET = 0.01  # before the logarithm
LEAST = WINDOW + (FRAMES - 1) * HOP  # samples of one example
TOGETHER = 64  # examples to a forward


class FAD(OfSets):
    """Frechet distance of VGGish's features to those of reference clips, lower is better; small sets give large ones.

    Alone: `fad.update(clips)`, `fad.update(truths, reference=True)`, `fad.compute()`.

    Args:
        seconds: that are taken of each sound, from its beginning; None is all. av-benchmark 8.0.
        weights: file of torchvggish's vggish-10086976.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name = "fad"
    columns = (Column("fad", "FAD", better="lower", pooled=True, width=WIDTH),)
    usual = False
    batch_size = 8

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

    def prepare(self, film: Film) -> Float32[Tensor, "k 96 64"]:
        """Log mel spectrograms of every 0.96 s."""
        found = examples(centred(film, self.seconds, RATE))
        if not len(found):
            raise Unscorable(f"the sound is too short for FAD: {LEAST / RATE:.3f} s are needed")
        return found

    def measure(self, inputs: Sequence[Tensor]) -> list[Measured]:
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            parts = torch.cat(list(inputs)).split(TOGETHER)
            rows = torch.cat([self.net(part.to(self.place)).float().cpu() for part in parts])
        return [Measured({}, each.numpy()) for each in rows.split([len(one) for one in inputs])]

    def pool(self, features: Set, reference: Set | None = None) -> dict[str, float]:
        return distance("fad", features, reference)

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return weights.locate("vggish", self.given)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "VGGish, without its last ReLU and PCA (av-benchmark)",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling, its mean taken away; every 0.96 s is a row",
            "seconds": self.seconds or "all",
            "distance": DISTANCE,
            "precision": self.precision,
            "weights": weights.sha256(weights.locate("vggish", self.given)),
        }

    @cached_property
    def net(self) -> VGGish:
        return VGGish.of(dict(tensors(weights.locate("vggish", self.given)))).to(self.place, torch.float32)


def centred(film: Film, seconds: float | None, rate: int) -> Float32[np.ndarray, " s"]:
    """A film's sound at a rate in Hz, or its first seconds, around 0."""
    sound = film.sound(rate)
    sound = sound - sound.mean()
    return sound if seconds is None else sound[: int(rate * seconds)]


def examples(sound: Float32[np.ndarray, " s"]) -> Float32[Tensor, "k 96 64"]:
    """Log mel magnitudes, whole frames alone, in whole examples alone; upstream: vggish/mel_features.py."""
    frames = 1 + (len(sound) - WINDOW) // HOP if len(sound) >= WINDOW else 0
    count = frames // FRAMES
    if not count:
        return torch.empty(0, FRAMES, BANDS)
    shape = (count * FRAMES, WINDOW)
    cut = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP][: shape[0]]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW))
    bands = mel_bands("kaldi", RATE, FFT, BANDS, LOWEST, HIGHEST)
    mel = np.abs(np.fft.rfft(cut * hann, FFT)) @ bands.T
    return torch.from_numpy(np.log(mel + OFFSET)).float().reshape(count, FRAMES, BANDS)
