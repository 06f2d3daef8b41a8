"""JavisScore and AVHScore, as JavisBench has them (Liu et al. 2025, arXiv 2503.23377; Mao et al. 2024, 2404.14381).

Both are cosines of single pictures and sound in ImageBind's space; neither is trained. AVHScore: each picture against
the whole sound, the mean. JavisScore: in windows along time, each picture against the window's sound; of a window the
mean of the lowest two fifths, of a film the mean over windows. Every picture is seen, so it is slow without a GPU. The
weights' licence, CC-BY-NC-SA 4.0, forbids commercial use.

Upstream: eval/javisbench/src/metrics.py `calc_av_score`, dataset.py `AVScoreDataset`, main.py for the window.
T pictures, M windows of N pictures each, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from ccl.evaluation.film import Film, Kept, Unscorable
from ccl.evaluation.metrics.base import Column, Measured
from ccl.evaluation.metrics.imagebind import RATE, SIZE, IBScore, audio_clips, audio_clips_
from ccl.evaluation.pictures import centre_crop, normalised, resize_bicubic

LOWEST = 0.4  # of a window's pictures, rounded down


@dataclass(frozen=True)
class Windows:
    """What is kept of a film.

    Args:
        pictures: the middle of each, shorter side 224.
        seen: which pictures each window has.
        whole: spectrograms of the whole sound.
        heard: spectrograms of each window's sound.
        frames: the pictures' embeddings, of all films that have them.
    """

    pictures: UInt8[Tensor, "t 3 224 224"]
    seen: Int[np.ndarray, "m n"]
    whole: Float32[Tensor, "3 1 128 204"]
    heard: Sequence[Float32[Tensor, "3 1 128 204"]]
    frames: Kept[Tensor] = field(default_factory=Kept)


class Javis(IBScore):
    """JavisScore and AVHScore, higher is better.

    Args:
        window: seconds of a window. JavisBench's command line has 2.0 and 1.5, its function by itself 0.5 and 0.
        overlap: seconds that a window has of the one before.
        weights: file of imagebind_huge.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
        chunk: pictures or clips to a forward; None is 8 on a CPU, else 64.
    """

    name = "javis"
    columns = (
        Column("javis_score", "JavisScore", digits=3, sync=True),
        Column("avh_score", "AVHScore", digits=3, sync=True),
    )
    usual = False
    batch_size, gpu_batch_size = 1, 4

    def __init__(
        self,
        *,
        window: float = 2.0,
        overlap: float = 1.5,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(weights=weights, device=device, precision=precision, chunk=chunk)
        if not 0 <= overlap < window:
            raise ValueError(f"overlap is {overlap} s; it must be at least 0 and less than the window, {window} s")
        self.window, self.overlap = window, overlap

    def prepare(self, film: Film) -> Any:
        """Pictures as bytes, and spectrograms of the whole and of each window."""
        sound = torch.tensor(film.sound(RATE))
        small, frames = film.once(("javis", str(self.file), str(self.place), self.precision), lambda: look(film.video))
        whole = audio_clips(sound)
        seen, starts, length = cut(len(small), film.clip.fps, len(sound), self.window, self.overlap)
        # One copy for all: where windows overlap, the next one finds the sound without the means of the one before.
        heard = [audio_clips_(sound[start : start + length]) for start in starts]
        return Windows(small, seen, whole, heard, frames)

    def measure(self, inputs: Sequence[Any]) -> list[Measured]:
        return [Measured(self._values(one)) for one in inputs]

    def _values(self, one: Windows) -> dict[str, float]:
        frames = one.frames.get(partial(self._frames, one.pictures))
        whole = self.embed("audio", [one.whole])
        heard = self.embed("audio", list(one.heard))
        harmony = F.cosine_similarity(frames, whole, dim=-1).mean()
        table = F.cosine_similarity(frames[torch.from_numpy(one.seen)], heard[:, None], dim=-1)
        lowest = table.topk(int(table.shape[1] * LOWEST), dim=1, largest=False).values
        return {"javis_score": float(lowest.mean()), "avh_score": float(harmony)}

    def _frames(self, pictures: UInt8[Tensor, "t 3 224 224"]) -> Float32[Tensor, "t e"]:
        parts = (doubled(normalised(part)) for part in pictures.split(self.chunk))
        return torch.cat([self.embed("vision", list(part)) for part in parts])

    def protocol(self) -> dict[str, Any]:
        said = super().protocol()
        del said["convention"]
        return said | {
            "pictures": "all, shorter side 224 by antialiased bicubic, middle cropped; each doubled in time",
            "windows": f"{self.window} s, each with {self.overlap} s of the one before, the last ending with the film",
            "score": f"JavisScore: mean over windows of the lowest {LOWEST:.0%}; AVHScore: mean over pictures",
        }


def look(video: UInt8[np.ndarray, "t h w 3"]) -> tuple[UInt8[Tensor, "t 3 224 224"], Kept[Tensor]]:
    """All pictures as the network takes them, and where what it makes of them is kept."""
    pictures = (torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in video)
    return torch.cat([centre_crop(resize_bicubic(picture, SIZE), SIZE) for picture in pictures]), Kept()


def doubled(pictures: Float32[Tensor, "n 3 h w"]) -> Float32[Tensor, "n 1 3 2 h w"]:
    """Each picture as a clip of two equal ones, as upstream fills up what is shorter than a patch is in time."""
    return pictures[:, None, :, None].expand(-1, 1, 3, 2, -1, -1)


def cut(
    pictures: int, fps: float, samples: int, window: float, overlap: float
) -> tuple[Int[np.ndarray, "m n"], list[int], int]:
    """Windows of pictures and of sound, as many as both have.

    Returns:
        Which pictures each window has; the sample at which each one's sound begins; how many samples it has.

    Raises:
        Unscorable: a window has so few pictures that two fifths of them are none.
    """
    size, step = int(window * fps), int(window * fps) - int(overlap * fps)
    length, hop = int(window * RATE), int(window * RATE) - int(overlap * RATE)
    if pictures <= size or samples <= length:
        seen, heard, length = [0], [0], samples
        size = pictures
    else:
        seen, heard = starts(pictures, size, step), starts(samples, length, hop)
    if int(size * LOWEST) < 1:
        raise Unscorable(f"a window of {window:g} s has {size} pictures; the lowest {LOWEST:.0%} of them are none")
    count = min(len(seen), len(heard))
    return np.array(seen[:count])[:, None] + np.arange(size), heard[:count], length


def starts(total: int, size: int, step: int) -> list[int]:
    """Where windows begin, the last one ending with what there is."""
    found = []
    for start in range(0, total, max(1, step)):
        found.append(min(start, total - size))
        if start + size >= total:
            break
    return found
