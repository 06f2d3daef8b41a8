"""AudioBox-Aesthetics: four ratings of the sound from 1 to 10 (Tjandra et al. 2025, arXiv 2502.05139).

CU (content usefulness) and PQ (production quality) are the columns of the paper's table; CE (content enjoyment) and PC
(production complexity) come with them. The sound is cut into windows of 10 s, the last one padded and masked; a clip's
rating is the mean of its windows', weighted by their length.

N windows of S = 160,000 samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets.audiobox import AXES, Aesthetics
from ccl.weights import catalogue as weights

RATE = 16_000
WINDOW = 10 * RATE
SETTINGS = ("proj_num_layer", "proj_ln", "proj_dropout", "nth_layer", "use_weighted_layer_sum", "normalize_embed")
PARTS = ("state_dict", "model_cfg", "target_transform")  # of the Lightning layout
# As the checkpoints name them; the published package computes in "64" as in "32".
PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float32}


class AudioBox(Metric):
    """CU, PQ, CE and PC, each 1 to 10, higher is better (of PC, more complex).

    Args:
        precision: of matrix products and convolutions. "checkpoint" takes what the checkpoint was published with
            (ratings in bf16 differ from those in fp32 by about 0.01 of a standard deviation), fp32 if it says nothing.
        weights: file of the Lightning checkpoint, or a model.safetensors with its config.json beside it; None looks it
            up.
        device: where the network runs.
        chunk: windows to a forward; None is 2 on a CPU, else 32.
    """

    name = "audiobox"
    columns = (Column("cu", "CU"), Column("pq", "PQ"), Column("ce", "CE"), Column("pc", "PC"))
    batch_size, gpu_batch_size = 8, 32

    def __init__(
        self,
        *,
        precision: Literal["checkpoint", "fp32", "bf16"] = "checkpoint",
        weights: str | Path | None = None,
        device: str = "cpu",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.precision, self.file, self.place = precision, weights, torch.device(device)
        self.chunk = chunk or (2 if self.place.type == "cpu" else 32)

    def prepare(self, film: Film) -> Float32[np.ndarray, " s"]:
        """The sound at 16 kHz."""
        return film.sound(RATE)

    def measure(self, inputs: Sequence[Float32[np.ndarray, " s"]]) -> list[Measured]:
        """All clips' windows together, in chunks of like lengths."""
        cut = [windows(torch.tensor(sound)) for sound in inputs]
        ratings = self.rate(torch.cat([sound for sound, _ in cut]), torch.cat([length for _, length in cut]))
        results = []
        for rating, (_, length) in zip(ratings.split([len(sound) for sound, _ in cut]), cut, strict=True):
            weight = length / length.sum()
            mean = (rating * weight[:, None]).sum(0)
            results.append(Measured({axis.lower(): float(mean[i]) for i, axis in enumerate(AXES)}))
        return results

    def rate(self, sound: Float32[Tensor, "n s"], length: Int[Tensor, " n"]) -> Float[Tensor, "n 4"]:
        """Ratings of windows, of each of which the first `length` samples are sound."""
        ratings = torch.empty(len(sound), len(AXES))
        dtype = PRECISIONS[self.compute_precision]
        for part in length.argsort(stable=True).split(self.chunk):
            valid = torch.arange(sound.shape[1]) < length[part, None]
            with torch.autocast(self.place.type, dtype, enabled=dtype is not torch.float32):
                ratings[part] = self.net(sound[part].to(self.place), valid.to(self.place)).float().cpu()
        scale = self.checkpoint.scale
        return ratings * torch.tensor([scale[axis][1] for axis in AXES]) + torch.tensor(
            [scale[axis][0] for axis in AXES]
        )

    @property
    def compute_precision(self) -> str:
        """As a checkpoint names it."""
        return {"fp32": "32", "bf16": "bf16", "checkpoint": self.checkpoint.precision}[self.precision]

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Read once. ValueError where it is not there or not AudioBox's."""
        with torch.inference_mode(False):
            return read_checkpoint(weights.locate("audiobox", self.file))

    @cached_property
    def net(self) -> Aesthetics:
        """The network with its published weights."""
        with torch.inference_mode(False):
            return self.checkpoint.network().to(self.place)

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return self.checkpoint

    def protocol(self) -> dict[str, Any]:
        return {
            "model": "audiobox-aesthetics",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling",
            "windows": "10 s, end to end, the last padded and masked; mean weighted by length",
            "precision": self.compute_precision,
            "weights": weights.sha256(weights.locate("audiobox", self.file)),
        }


def windows(sound: Float32[Tensor, " s"]) -> tuple[Float32[Tensor, "n w"], Int[Tensor, " n"]]:
    """Windows of 10 s end to end, the last padded with zeros, and how many samples of each are sound."""
    starts = torch.arange(0, len(sound), WINDOW)
    padded = torch.nn.functional.pad(sound, (0, len(starts) * WINDOW - len(sound)))
    return padded.view(len(starts), WINDOW), (len(sound) - starts).clamp(max=WINDOW)


@dataclass(frozen=True)
class Checkpoint:
    """A published file, whichever its layout.

    Args:
        state: weights by key.
        settings: arguments of Aesthetics.
        scale: (mean, standard deviation) of each axis, by which ratings were normalised.
        precision: "32", "bf16" or "16".
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    scale: dict[str, tuple[float, float]]
    precision: str

    def network(self) -> Aesthetics:
        """The network; the file's own tensors become its parameters."""
        return Aesthetics.of(self.state, **self.settings)


def read_checkpoint(path: Path) -> Checkpoint:
    """The Lightning layout (state_dict, model_cfg, target_transform) or Hugging Face's (safetensors, config.json).

    Raises:
        ValueError: in one sentence.
    """
    held = weights.read(path)
    if path.suffix == ".safetensors":
        beside = path.with_name("config.json")
        if not beside.is_file():
            raise ValueError(f"{path} needs its config.json beside it, which says how ratings are scaled")
        config, state = json.loads(beside.read_text()), dict(held)
    elif all(isinstance(held.get(part), Mapping) for part in PARTS):
        state = {key.removeprefix("model."): value for key, value in held["state_dict"].items()}
        config = {**held["model_cfg"], "target_transform": held["target_transform"]}
    else:
        raise ValueError(f"{path} is not AudioBox-Aesthetics: it lacks {', '.join(PARTS)}")
    return _checkpoint(path, state, config)


def _checkpoint(path: Path, state: dict[str, Tensor], config: Mapping[str, Any]) -> Checkpoint:
    try:
        scale = {axis: (float(config["target_transform"][axis]["mean"]), float(config["target_transform"][axis]["std"]))
                 for axis in AXES}  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config of {path} has no mean and std for each of {', '.join(AXES)}") from error
    precision = str(config.get("precision") or "32")
    if precision not in PRECISIONS:
        raise ValueError(f"the config of {path} names the precision {precision}, not one of {', '.join(PRECISIONS)}")
    checkpoint = Checkpoint(state, {key: config[key] for key in SETTINGS if key in config}, scale, precision)
    try:
        checkpoint.network()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return checkpoint
