"""CLAP: how alike the sound and the words of its prompt are (LAION-CLAP; Wu et al. 2023, arXiv 2211.06687).

The cosine of the two embeddings of transformers' ClapModel. A sound up to 10 s is repeated as often as it fits whole,
then filled up with zeros, as upstream. Of a longer one upstream reads 10 s from a random place, which nobody repeats;
here it is the mean of windows of 10 s, as many as cover it, evenly from its beginning to its end.

S samples at 48 kHz, K windows, E = 512.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.prompted import Prompted
from ccl.evaluation.metrics.sets import DISTANCE, OfSets, Set, distance

RATE = 48_000
WINDOW = 10 * RATE

Checkpoint = Literal["clap", "clap-unfused", "clap-fused", "clap-music", "clap-music-speech"]


@dataclass(frozen=True)
class Inputs:
    """What is kept of a film.

    Args:
        sounds: windows of 10 s, or the whole of a shorter sound.
        prompt: the row's.
    """

    sounds: Sequence[Float32[np.ndarray, " s"]]
    prompt: str


class CLAP(Prompted, OfSets):
    """Cosine of sound and prompt in CLAP's space, higher is better; and the Frechet distance of the sounds' embeddings
    to those of reference clips, lower is better.

    Alone: `clap.update(films)`, `clap.update(truths, reference=True)`, `clap.compute()`.

    Args:
        checkpoint: which of the published ones, by its name in `ccl weights list`.
        weights: its folder, or a file in it, whatever `checkpoint` says; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name, title, model, reader = "clap", "CLAP", "ClapModel", "RobertaTokenizer"
    columns = (
        Column("clap", "CLAP", digits=3),
        Column("fad_clap", "FAD CLAP", better="lower", digits=3, pooled=True, width=512),
    )
    batch_size, gpu_batch_size = 8, 32

    def __init__(
        self,
        *,
        checkpoint: Checkpoint = "clap",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__(checkpoint, weights, device, precision)

    def prepare(self, film: Film) -> Inputs:
        """Windows of the sound at 48 kHz."""
        prompt = self.prompt(film)
        return Inputs(windows(film.sound(RATE)), prompt)

    def measure(self, inputs: Sequence[Inputs]) -> list[Measured]:
        counts = [len(one.sounds) for one in inputs]
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            sounds = self.hear([sound for one in inputs for sound in one.sounds]).split(counts)
            words = self.read([one.prompt for one in inputs])
        means = torch.stack([F.normalize(each, dim=-1).mean(0) for each in sounds])
        scores = F.cosine_similarity(means, words, dim=-1)
        return [Measured({"clap": float(score)}, mean.numpy()) for score, mean in zip(scores, means, strict=True)]

    def pool(self, features: Set, reference: Set | None = None) -> dict[str, float]:
        return distance("fad_clap", features, reference)

    def hear(self, sounds: Sequence[Float32[np.ndarray, " s"]]) -> Float32[Tensor, "k e"]:
        """Embeddings of sounds of 10 s at most."""
        features = torch.cat([self.spectrogram(sound) for sound in sounds])
        # No sound is longer than a window, so a checkpoint with feature fusion gets four equal views and fuses none.
        longer = torch.zeros(len(features), 1, dtype=torch.bool)
        found = [
            self.net.get_audio_features(part.to(self.place), is_longer=flags.to(self.place)).pooler_output.float().cpu()
            for part, flags in zip(features.split(self.batch_size), longer.split(self.batch_size), strict=True)
        ]
        return torch.cat(found)

    def spectrogram(self, sound: Float32[np.ndarray, " s"]) -> Float32[Tensor, "1 views t 64"]:
        """What the network is given of a sound."""
        made = self.extractor(sound, sampling_rate=RATE, return_tensors="np")
        return torch.tensor(made["input_features"], dtype=torch.float32)

    @cached_property
    def extractor(self) -> Any:
        from transformers import ClapFeatureExtractor

        return self.source.part(ClapFeatureExtractor, "preprocessor_config.json of CLAP")

    def load(self) -> None:
        super().load()
        _ = self.extractor

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {
            "sound": f"mono, {RATE} Hz by torchaudio's resampling; shorter than 10 s repeated whole, then zeros; "
            "longer: the mean of windows of 10 s, evenly from beginning to end",
            "score": "cosine of embeddings",
            "distance": DISTANCE,
        }


def windows(sound: Float32[np.ndarray, " s"]) -> list[Float32[np.ndarray, " w"]]:
    """As few windows of 10 s as cover the sound, evenly from its beginning to its end; a shorter sound is its own."""
    count = -(-len(sound) // WINDOW)
    if count <= 1:
        return [sound]
    starts = np.linspace(0, len(sound) - WINDOW, count).round().astype(int)
    return [sound[start : start + WINDOW] for start in starts]
