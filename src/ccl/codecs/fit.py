"""Fit the embedded codecs' bases to clips: principal components of pixel blocks and of log-mel pairs.

`ccl codec fit` calls `fit` with clips of the embedded world's training split; test clips never enter. The file holds
float32 mean, basis and scale for the first pictures' blocks, the later blocks and the audio, about 100 kB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from ccl.codecs.embedded_audio import PAIR
from ccl.codecs.embedded_video import blocks
from ccl.codecs.mel import LogMel
from ccl.types import Clip


class Moments:
    """Weighted mean and covariance of rows that arrive in pieces, in float64."""

    def __init__(self, dim: int) -> None:
        self.weight = torch.zeros((), dtype=torch.float64)
        self.first = torch.zeros(dim, dtype=torch.float64)
        self.second = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, rows: Float[Tensor, "n d"], weight: Float[Tensor, " n"] | None = None) -> None:
        rows = rows.double()
        weighted = rows if weight is None else rows * weight.double()[:, None]
        self.weight += len(rows) if weight is None else weight.double().sum()
        self.first += weighted.sum(0)
        self.second += weighted.T @ rows

    @property
    def mean(self) -> Tensor:
        return self.first / self.weight

    def about(self, centre: Tensor) -> Float[Tensor, "d d"]:
        """Second moments about a centre."""
        mean = self.mean
        cross = torch.outer(mean, centre)
        return self.second / self.weight - cross - cross.T + torch.outer(centre, centre)


def principal(moments: Moments, weighted: Moments, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, `channels` orthonormal rows and the standard deviation along each.

    The directions come from the weighted rows, mean and deviations from the rows as they are, so that latents have
    mean 0 and variance 1. A row's largest entry is positive, so that a fit repeats.
    """
    if moments.weight < channels:
        raise ValueError(f"there are {int(moments.weight)} blocks to fit {channels} channels to; give more clips")
    mean = moments.mean
    _, vectors = torch.linalg.eigh(weighted.about(mean))
    basis = vectors.flip(1)[:, :channels].T
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    variance = torch.einsum("ci,ij,cj->c", basis, moments.about(mean), basis)
    return mean, basis, variance.clamp(min=0).sqrt()


def fit(
    out: str | Path,
    clips: Iterable[Clip],
    *,
    video_channels: int = 16,
    audio_channels: int = 40,
    motion: float = 4.0,
) -> Path:
    """Write a basis file fitted to clips.

    Args:
        out: the file, ending in .safetensors; written whole or not at all.
        clips: with video, with sound or with both; sizes may differ, sides are multiples of 8.
        video_channels: numbers a block of pixels.
        audio_channels: numbers a pair of log-mel frames.
        motion: how much more than a still block one counts whose pixels change by the average amount: what moves is
            rare, and it is what one looks at.

    Returns:
        The path of the file.

    Raises:
        ValueError: where the clips are too few, or none has video, or none has sound.
    """
    first, later, sound = (Moments(dim) for dim in (192, 768, 160))
    first_weighted, later_weighted = Moments(192), Moments(768)
    mel = LogMel()
    for clip in clips:
        if clip.video is not None:
            pixels = rearrange(torch.tensor(clip.video), "f h w c -> 1 c f h w") / 127.5 - 1
            still, moving = (rearrange(part, "b t h w d -> t (b h w) d") for part in blocks(pixels))
            change = rearrange(moving, "t s (n p) -> t s n p", n=4).var(2).mean(-1)
            weight = 1 + motion * change / change.mean().clamp(min=1e-6)
            for rows, into, into_weighted, by in (
                (still, first, first_weighted, weight.mean(0, keepdim=True)),
                (moving, later, later_weighted, weight),
            ):
                into.add(rows.flatten(0, 1))
                into_weighted.add(rows.flatten(0, 1), by.flatten())
        if clip.audio is not None:
            audio = torch.tensor(clip.audio)[None]
            audio = audio[:, : audio.shape[1] // (PAIR * mel.hop) * PAIR * mel.hop]
            sound.add(rearrange(mel(audio), "1 (t p) m -> t (p m)", p=PAIR))
    bases = {
        "video_first": principal(first, first_weighted, video_channels),
        "video_later": principal(later, later_weighted, video_channels),
        "audio": principal(sound, sound, audio_channels),
    }
    tensors = {
        f"{name}.{part}": value.float().contiguous()
        for name, values in bases.items()
        for part, value in zip(("mean", "basis", "scale"), values, strict=True)
    }
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(tensors, {"format": "ccl-codec-basis", "motion": str(motion)}))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out
