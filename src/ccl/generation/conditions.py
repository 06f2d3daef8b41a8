"""Given media as a model takes them: encoded, and held or shown while the rest is generated.

Given pictures and sound are latent frames that stay as they are (ccl.sampling.Held): the whole of a stream, a first or
last picture, the beginning or the end of a clip. A network of Wan2.1-I2V's kind is shown its first picture instead.
B clips, T latent frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ccl.codecs.base import Codec
from ccl.generation.given import Media
from ccl.grid import Grid
from ccl.image import ImageEncoder
from ccl.image.first import show
from ccl.model.image import Shown
from ccl.model.voice import Voice
from ccl.rows import Row
from ccl.sampling import Held
from ccl.tasks import Term
from ccl.types import AV, STREAMS, VOICE_SECONDS, Stream


@dataclass(frozen=True)
class Conditions:
    """Given media as one model takes them.

    Args:
        codec: of the model.
        grid: of its clips.
        device: where the codec works.
        image: encoder of the first picture, of a network that is shown one.
    """

    codec: Codec
    grid: Grid
    device: torch.device
    image: ImageEncoder | None = None

    def held(self, media: Sequence[Media], like: AV[Any], term: Term) -> Held:
        """Latents of the given media, where they hold, at the times that the term gives them, or None.

        A first picture is a video of one frame, so it holds the first latent frame; rows of a batch may differ.

        Args:
            media: of each row.
            like: noise (B, C, T, ...) of each stream that takes part.
            term: that the clips are sampled on; of a range of times the least is taken.
        """
        clean, mask = zip(*(self._held(stream, media, x) for stream, x in zip(STREAMS, like, strict=True)), strict=True)
        time: AV[float] = AV(*(0.0 if part is None else part.times[0] for part in term.parts))
        return Held(AV(*clean), AV(*mask), time, AV(*(z if t else None for z, t in zip(like, time, strict=True))))

    def _held(self, stream: Stream, media: Sequence[Media], like: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        pairs = [(getattr(m.start, stream), getattr(m.end, stream)) for m in media]
        if like is None or all(x is None for pair in pairs for x in pair):
            return None, None
        clean = torch.zeros_like(like)
        mask = torch.zeros(like.shape[0], like.shape[2], dtype=torch.bool, device=like.device)
        for row, (start, end) in enumerate(pairs):
            if start is not None:
                z = self.beginning(stream, start)
                clean[row, :, : z.shape[1]], mask[row, : z.shape[1]] = z, True
            if end is not None:
                z = self.ending(stream, end)
                first = like.shape[2] - z.shape[1]
                clean[row, :, first:], mask[row, first:] = z, True
        return clean, mask

    def beginning(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) of media that stand at a clip's beginning: of a part of it, what lies whole within.

        A sound goes on as its mirror image, not as silence, which the last latents would hear.
        """
        grid = self.grid
        if stream == "video" or len(media) >= grid.samples:
            return self.encode(stream, media)
        _, latents = grid.beginning(len(media) / grid.sample_rate)
        return self.encode(stream, np.pad(media, (0, grid.samples - len(media)), mode="symmetric"))[:, :latents]

    def ending(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) of media that stand at a clip's end; before them the first picture stands still, and a sound is
        its mirror image. The latent frame of a last picture alone holds it as often as it holds pictures."""
        grid = self.grid
        if stream == "audio":
            _, latents = grid.ending(len(media) / grid.sample_rate)
            z = self.encode(stream, np.pad(media, (grid.samples - len(media), 0), mode="symmetric"))
            return z[:, grid.t_a - latents :]
        pictures = media if len(media) > 1 else media.repeat(grid.stride_time, 0)
        still = pictures[:1].repeat(grid.frames - len(pictures), 0)
        return self.encode(stream, np.concatenate([still, pictures]))[:, grid.t_v - len(pictures) // grid.stride_time :]

    def nulls(self, media: Sequence[Media], wanted: AV[bool]) -> AV[Any]:
        """Latents of what a guidance rule puts in the place of a stream that a pass leaves out; None where none does.

        Silence, and a picture that stands still: the first one given, else mid-grey (paper silent: Harmony names a
        static video, and not which).

        Args:
            media: of each row, as `read` gives them.
            wanted: the streams that some pass leaves out.
        """
        grid = self.grid

        def still(picture: np.ndarray) -> Tensor:
            return self.encode("video", np.broadcast_to(picture, (grid.frames, *picture.shape)))

        def pictures() -> Tensor:
            grey = np.full((grid.height, grid.width, 3), 127.5, np.float32)  # 0 in [-1, 1]
            first = [None if x.start.video is None else x.start.video[0] for x in media]
            blank = [still(grey)] if any(x is None for x in first) else []
            return torch.stack([blank[0] if x is None else still(x) for x in first])

        def silence() -> Tensor:
            return torch.stack([self.encode("audio", np.zeros(grid.samples, np.float32))] * len(media))

        return AV(pictures() if wanted.video else None, silence() if wanted.audio else None)

    def encode(self, stream: Stream, media: np.ndarray) -> Tensor:
        """(C, T, ...) latents of one clip's pictures or sound."""
        x = torch.tensor(media, device=self.device)[None]  # a copy: an array may be read-only
        if stream == "audio":
            return self.codec.audio.encode(x, self.grid.t_a)[0]
        return self.codec.video.encode(rearrange(x, "b f h w c -> b c f h w").float() / 127.5 - 1)[0]

    def voice(self, media: Sequence[Media]) -> Voice | None:
        """The reference voices of some clips, each as long as in training; None where no clip is given one."""
        if all(x.voice is None for x in media):
            return None
        length = self.grid.latents_of(VOICE_SECONDS)
        silence = np.zeros(1, np.float32)
        each = [torch.tensor(silence if x.voice is None else x.voice, device=self.device) for x in media]
        latents = torch.cat([self.codec.audio.encode(x[None], length) for x in each])
        return Voice(latents, torch.tensor([x.voice is not None for x in media], device=self.device))

    def shown(self, rows: Sequence[Row], media: Sequence[Media]) -> Shown:
        """The first picture of each row, as a network of Wan2.1-I2V's kind is shown it; of given pictures, the first.

        Raises:
            ValueError: a row has none, or the model has no encoder of it.
        """
        if lacking := [row.id for row, x in zip(rows, media, strict=True) if x.start.video is None]:
            raise ValueError(f"{lacking[0]}: this network is always shown a first picture: give `image`")
        if self.image is None:
            raise ValueError(
                "this network is shown a first picture, but the model's config has no encoder of it, `image`"
            )
        each = []
        for x in media:  # one at a time, so that a clip does not depend on its batch
            picture = torch.tensor(x.start.video[:1], device=self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            each.append(show(picture, self.grid.frames, self.codec.video, self.image))
        return Shown(torch.cat([one.latents for one in each]), torch.cat([one.states for one in each]))
