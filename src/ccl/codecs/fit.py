"""Fit the embedded codecs' bases to clips: principal components of pixel blocks and of log-mel pairs.

`ccl codec fit` calls `fit` with clips of the embedded world's training split; test clips never enter. The shipped file
is `ccl codec fit -o src/ccl/codecs/basis/world.safetensors --clips 600`: a minute on one core, half a gigabyte. A file
holds mean, basis and scale for blocks of pixels and for the audio, and the weights of the decoders' corrections; under
1 MB. With `--keep-basis src/ccl/codecs/basis/world.safetensors` the corrections alone are fitted anew: latents, and
what was trained on them, stay good.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from ccl.codecs.embedded_audio import PAIR
from ccl.codecs.embedded_video import PARTS, EmbeddedVideo, blocks
from ccl.codecs.mel import LogMel
from ccl.codecs.projection import ENCODER, Basis, BasisFile, Still
from ccl.codecs.refine import PAIRS, Features, Ridge, context, sequence
from ccl.media import Clip
from ccl.rng import generator

LENGTH = EmbeddedVideo.stride_time
BLOCK = 3 * LENGTH * EmbeddedVideo.stride_space**2


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


def principal(moments: Moments, weighted: Moments, channels: int, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, `channels` orthonormal rows and the standard deviation along each.

    The directions come from the weighted rows, mean and deviations from the rows as they are, so that latents have
    mean 0 and variance 1. A row's largest entry is positive, so that a fit repeats.
    """
    if moments.weight < channels:
        raise ValueError(
            f"the clips hold {int(moments.weight)} blocks of {what} to fit {channels} channels to; give more"
        )
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
    motion: float = 1.0,
    hidden: int = 1024,
    rank: int = 96,
    audio_rank: int = 80,
    keep_basis: str | Path | None = None,
) -> Path:
    """Write a basis file fitted to clips, which are held in memory: 0.7 MB each at 48 x 48.

    Args:
        out: the file, ending in .safetensors; written whole or not at all.
        clips: with video, with sound or with both; sizes may differ, sides are multiples of 8.
        video_channels: numbers a block of pixels.
        audio_channels: numbers a pair of log-mel frames.
        motion: how much more than a still block one counts whose pixels change by the average amount: what moves is
            rare, and it is what one looks at.
        hidden: random features of the decoders' corrections.
        rank: of the pictures' corrections; the shipped file stays under 1 MB.
        audio_rank: of the sound's.
        keep_basis: a basis file whose bases are taken as they are, so that its latents stay good; None fits new ones.

    Returns:
        The path of the file.

    Raises:
        ValueError: where the clips are too few, or none has video, or none has sound; where the kept
            file is broken or of other numbers of channels.
    """
    clips = list(clips)
    kept = None if keep_basis is None else BasisFile(str(keep_basis))
    tensors = _fit_audio(clips, audio_channels, hidden, audio_rank, kept)
    tensors |= _fit_video(clips, video_channels, motion, hidden, rank, kept)
    for name, value in tensors.items():
        # The correction is large and rough, the basis small and exact.
        kind = torch.float16 if name.endswith(("inward", "outward")) else torch.float32
        tensors[name] = value.to(kind).contiguous()
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(tensors, {"format": "ccl-codec-basis"}))
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _fit_audio(clips: list[Clip], channels: int, hidden: int, rank: int, kept: BasisFile | None) -> dict[str, Tensor]:
    """The basis of pairs of frames, and the correction from the pairs around each."""
    mel, moments, pairs = LogMel(), Moments(PAIR * LogMel().bands), []
    for clip in clips:
        if clip.audio is not None:
            audio = torch.tensor(clip.audio)[None]
            audio = audio[:, : audio.shape[1] // (PAIR * mel.hop) * PAIR * mel.hop]
            pairs.append(rearrange(mel(audio), "1 (t p) m -> 1 t (p m)", p=PAIR))
            moments.add(pairs[-1][0])
    basis = _basis("audio", channels, "sound", moments, moments, kept)
    ridge = Ridge(Features(channels, hidden, PAIRS), PAIR * mel.bands)
    for rows in pairs:
        z = basis.project(rows)
        ridge.add(sequence(z)[0], (rows - basis.expand(z))[0])
    inward, outward = ridge.solve(rank)
    return _named("audio", basis) | {"audio.inward": inward, "audio.outward": outward}


def _fit_video(
    clips: list[Clip], channels: int, motion: float, hidden: int, rank: int, kept: BasisFile | None
) -> dict[str, Tensor]:
    """The basis, from the blocks of all but the first pictures, and the correction of either kind of block."""
    pictures = [clip.video for clip in clips if clip.video is not None]
    moments, weighted = Moments(BLOCK), Moments(BLOCK)
    for video in pictures:
        rows = _blocks(video)[1]
        moments.add(rows.flatten(0, -2))
        weighted.add(rows.flatten(0, -2), _movement(rows, motion).flatten())
    later = _basis("video_later", channels, "video", moments, weighted, kept)
    tensors = _named("video_later", later)
    projections: tuple[Basis | Still, ...] = (Still(later, LENGTH), later)
    for part, (name, basis) in enumerate(zip(PARTS, projections, strict=True)):
        dim = (BLOCK // LENGTH, BLOCK)[part]
        ridge = Ridge(Features(channels, hidden), dim)
        for number, video in enumerate(pictures):
            rows = _blocks(video)[part]
            # Neighbouring latent frames look alike: six of a clip tell about as much as all.
            chosen = torch.randperm(rows.shape[1], generator=generator("codec", number))[:6]
            rows = rows[:, chosen]
            z = basis.project(rows)
            ridge.add(context(z).flatten(0, -2), (rows - basis.expand(z)).flatten(0, -2))
        inward, outward = ridge.solve(min(rank, dim))
        tensors |= {f"{name}.inward": inward, f"{name}.outward": outward}
    return tensors


def _basis(name: str, channels: int, what: str, moments: Moments, weighted: Moments, kept: BasisFile | None) -> Basis:
    """The kept file's basis, or one fitted to the moments, in float32."""
    if kept is not None:
        return kept.basis(name, channels)
    return Basis(*(tensor.float() for tensor in principal(moments, weighted, channels, what)))


def _named(name: str, basis: Basis) -> dict[str, Tensor]:
    return {f"{name}.{part}": getattr(basis, part) for part in ENCODER}


def _blocks(video: np.ndarray) -> tuple[Tensor, Tensor]:
    frames = 1 + (len(video) - 1) // 4 * 4
    return blocks(rearrange(torch.tensor(video[:frames]), "f h w c -> 1 c f h w") / 127.5 - 1)


def _movement(blocks: Float[Tensor, "b t h w d"], motion: float) -> Float[Tensor, "b t h w"]:
    """Weights of blocks, by how much their pixels change."""
    change = rearrange(blocks, "b t h w (n p) -> b t h w n p", n=LENGTH).var(-2).mean(-1)
    return 1 + motion * change / change.mean().clamp(min=1e-6)
