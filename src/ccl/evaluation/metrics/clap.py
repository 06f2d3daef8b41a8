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

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.sets import DISTANCE, OfSets, Set, distance
from ccl.evaluation.nets.pretrained import Pretrained
from ccl.rows import Row
from ccl.weights import catalogue as weights

RATE = 48_000
WINDOW = 10 * RATE
WORDS = 77  # tokens of a prompt that are read, as laion_clap has it; the network would take 512
NOTHING = "the row has no prompt to compare its sound with"

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


class CLAP(OfSets):
    """Cosine of sound and prompt in CLAP's space, higher is better; and the Frechet distance of the sounds' embeddings
    to those of reference clips, lower is better.

    Alone: `clap.update(films)`, `clap.update(truths, reference=True)`, `clap.compute()`.

    Args:
        checkpoint: which of the published ones, by its name in `ccl weights list`.
        weights: its folder, or a file in it, whatever `checkpoint` says; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
    """

    name = "clap"
    columns = (
        Column("clap", "CLAP", digits=3),
        Column("fad_clap", "FAD CLAP", better="lower", digits=3, pooled=True, width=512),
    )
    usual = False
    batch_size, gpu_batch_size = 8, 32

    def __init__(
        self,
        *,
        checkpoint: Checkpoint = "clap",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.checkpoint, self.given, self.place, self.precision = checkpoint, weights, torch.device(device), precision

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "" if row.prompt.strip() else NOTHING

    def prepare(self, film: Film) -> Inputs:
        """Windows of the sound at 48 kHz."""
        if not film.row.prompt.strip():
            raise Unscorable(NOTHING)
        return Inputs(windows(film.sound(RATE)), film.row.prompt)

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

    def read(self, prompts: Sequence[str]) -> Float32[Tensor, "b e"]:
        """Embeddings of prompts."""
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=WORDS, return_tensors="pt")
        tokens = {name: tokens[name].to(self.place) for name in ("input_ids", "attention_mask")}
        return self.net.get_text_features(**tokens).pooler_output.float().cpu()

    def spectrogram(self, sound: Float32[np.ndarray, " s"]) -> Float32[Tensor, "1 views t 64"]:
        """What the network is given of a sound."""
        made = self.extractor(sound, sampling_rate=RATE, return_tensors="np")
        return torch.tensor(made["input_features"], dtype=torch.float32)

    @property
    def source(self) -> Pretrained:
        """Folder and file. MissingWeights, or ValueError where they hold no weights."""
        return Pretrained.find(self.checkpoint, self.given)

    @cached_property
    def net(self) -> Any:
        from transformers import ClapModel

        with torch.inference_mode(False):
            return self.source.network(ClapModel, "CLAP").to(self.place)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import RobertaTokenizer

        return self.source.tokenizer(RobertaTokenizer, "CLAP")

    @cached_property
    def extractor(self) -> Any:
        from transformers import ClapFeatureExtractor

        return self.source.part(ClapFeatureExtractor, "preprocessor_config.json of CLAP")

    def load(self) -> None:
        _ = self.net, self.tokenizer, self.extractor

    def find(self) -> object:
        return self.source

    def protocol(self) -> dict[str, Any]:
        return {
            "model": f"transformers' ClapModel, {self.checkpoint if self.given is None else self.source.folder.name}",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling; shorter than 10 s repeated whole, then zeros; "
            "longer: the mean of windows of 10 s, evenly from beginning to end",
            "words": f"the prompt's first {WORDS} tokens",
            "score": "cosine of embeddings",
            "distance": DISTANCE,
            "precision": self.precision,
            "weights": weights.sha256(self.source.file),
        }


def windows(sound: Float32[np.ndarray, " s"]) -> list[Float32[np.ndarray, " w"]]:
    """As few windows of 10 s as cover the sound, evenly from its beginning to its end; a shorter sound is its own."""
    count = -(-len(sound) // WINDOW)
    if count <= 1:
        return [sound]
    starts = np.linspace(0, len(sound) - WINDOW, count).round().astype(int)
    return [sound[start : start + WINDOW] for start in starts]
