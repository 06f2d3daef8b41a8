"""IB-Score: how alike pictures and sound are in ImageBind's joint space (Girdhar et al. 2023, arXiv 2305.05665).

The cosine of the mean embedding of the film's video clips and that of its audio clips. Audio is always three clips of
2 s. For pictures there are two conventions: av-benchmark's (MMAudio, MOVA), pictures 2 s apart in sliding pairs, and
that of ImageBind's own data.py (JavisBench, FastVideo), five clips of 2 s of which the first and last picture count. A
pair of pictures is seen in three square crops. The weights' licence, CC-BY-NC-SA 4.0, forbids commercial use.

N pictures, P pairs, K clips, S samples, 128 mel bands x 204 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from ccl.evaluation.dsp.fbank import fbank
from ccl.evaluation.film import Film, Kept, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets.imagebind import HUGE_TEXT, ImageBind, is_ours
from ccl.evaluation.pictures import normalised, resize_bicubic
from ccl.weights import catalogue as weights
from ccl.weights.read import tensors

SIZE = 224
RATE = 16_000
CLIP_SECONDS = 2
AUDIO_CLIPS, VIDEO_CLIPS = 3, 5
FRAMES = 204  # of a spectrogram; 2 s make 198, zeros fill it up
LEVEL, SPREAD = -4.268, 9.138  # of log mel energies, AudioSet
STREAM_FPS = 0.5

Convention = Literal["av-benchmark", "official"]


@dataclass(frozen=True)
class Inputs:
    """What is kept of a film.

    Args:
        pictures: shorter side 224; uint8, or float in 0..1 where the convention resizes in float.
        pairs: (P, 2) which pictures make a clip.
        audio: spectrograms of the audio clips.
        seen: the pictures' embedding, of all films that have them and all metrics that cut them so.
        heard: the sound's.
    """

    pictures: UInt8[Tensor, "n 3 h w"] | Float32[Tensor, "n 3 h w"]
    pairs: Tensor
    audio: Float32[Tensor, "k 1 128 204"]
    seen: Kept[Tensor] = field(default_factory=Kept)
    heard: Kept[Tensor] = field(default_factory=Kept)


class IBScore(Metric):
    """Cosine of pictures and sound in ImageBind's space, higher is better; tables elsewhere may show it times 100.

    Args:
        convention: which pictures are seen. "av-benchmark": at 0.5 fps, bicubic, sliding pairs, 4 s at least.
            "official": five clips of 2 s, bilinear, the first and last picture of each.
        seconds: how much of a clip's pictures "av-benchmark" sees, from the start, and no less (there 8.0); the sound
            is heard whole. None: all.
        pad: repeat the last picture where there are too few for `seconds` (MOVA); else such a clip has no value.
        weights: file of imagebind_huge.pth; None looks it up.
        device: where the network runs.
        precision: of its matrix products and convolutions.
        chunk: clips to a forward; None is 8 on a CPU, else 64.
    """

    name = "ib"
    columns: tuple[Column, ...] = (Column("ib_score", "IB", "higher", digits=2, sync=True),)
    batch_size, gpu_batch_size = 8, 32

    def __init__(
        self,
        *,
        convention: Convention = "av-benchmark",
        seconds: float | None = None,
        pad: bool = False,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.convention, self.file, self.place, self.precision = convention, weights, torch.device(device), precision
        if seconds is not None and convention == "official":
            raise ValueError(f"seconds is {seconds}, and the convention 'official' sees whole clips")
        if seconds is not None and seconds < 2 / STREAM_FPS:
            raise ValueError(f"seconds is {seconds}; pairs of pictures 2 s apart need {2 / STREAM_FPS:g}")
        if pad and seconds is None:
            raise ValueError("pad needs seconds: how long clips are to be")
        self.seconds, self.pad = seconds, pad
        self.chunk = chunk or (8 if self.place.type == "cpu" else 64)

    def prepare(self, film: Film) -> Inputs:
        """Resized pictures and spectrograms."""
        by = "imagebind", str(self.file), str(self.place), self.precision  # whose embeddings are the same

        def look() -> tuple[Tensor, Tensor, Kept[Tensor]]:
            official = self.convention == "official"
            return *(clipped(film) if official else streamed(film, self.seconds, self.pad)), Kept()

        pictures, pairs, seen = film.once((*by, self.convention, self.seconds, self.pad), look)
        audio, heard = film.once((*by, "sound"), lambda: (audio_clips(torch.tensor(film.sound(RATE))), Kept[Tensor]()))
        return Inputs(pictures, pairs, audio, seen, heard)

    def measure(self, inputs: Sequence[Inputs]) -> list[Measured]:
        video, audio = self.both(inputs)
        scores = F.cosine_similarity(video, audio, dim=-1)
        return [Measured({"ib_score": float(score)}) for score in scores]

    def both(self, inputs: Sequence[Inputs]) -> tuple[Float32[Tensor, "b e"], Float32[Tensor, "b e"]]:
        """Mean embeddings of pictures and of sounds.

        Each film goes through the network by itself: what is kept must not depend on the company it was made in.
        """
        video, audio = [], []
        for one in inputs:
            video.append(one.seen.get(partial(self._see, one)))
            audio.append(one.heard.get(partial(self.embed, "audio", [one.audio])))
        return torch.cat(video), torch.cat(audio)

    def _see(self, one: Inputs) -> Float32[Tensor, "1 e"]:
        return self.embed("vision", [vision_clips(one.pictures, one.pairs)])

    def embed(self, kind: str, clips: Sequence[Tensor]) -> Float32[Tensor, "b e"]:
        """Each film's mean embedding over its clips, however many it has."""
        together = torch.cat(list(clips))
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            parts = [self.net.embed(kind, part.to(self.place)).float().cpu() for part in together.split(self.chunk)]
        return torch.stack([part.mean(0) for part in torch.cat(parts).split([len(part) for part in clips])])

    @cached_property
    def net(self) -> ImageBind:
        """The two towers with their published weights, read once.

        Raises:
            ValueError: the file is not there, or not ImageBind's.
        """
        return network(weights.locate("imagebind", self.file), self.place)

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return weights.locate("imagebind", self.file)

    def protocol(self) -> dict[str, Any]:
        pictures = {
            "av-benchmark": "0.5 fps, bicubic to 224, sliding pairs",
            "official": "5 clips of 2 s, bilinear to 224, first and last picture",
        }
        return {
            "model": "imagebind_huge",
            "convention": self.convention,
            # What came later is named only where it differs, so that older rows, which were scored so, still stand.
            **({"seconds": self.seconds} if self.seconds is not None else {}),
            **({"pad": "the last picture repeated"} if self.pad else {}),
            "pictures": f"{pictures[self.convention]}, 3 crops",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling, 3 clips of 2 s from the first to the last that fits",
            "score": "cosine of mean embeddings",
            "precision": self.precision,
            "licence": "weights CC-BY-NC-SA 4.0, not for commercial use",
            "weights": weights.sha256(weights.locate("imagebind", self.file)),
        }


def network(path: Path, place: torch.device, *, text: bool = False) -> ImageBind:
    """The towers of a published file, 2.9 GB, with that of text 4.3 GB.

    Raises:
        ValueError: the file is not ImageBind's.
    """
    with torch.inference_mode(False):
        # Of the file's other tensors one is infinite by intention: which token of a text may see which.
        state = dict(tensors(path, lambda key: is_ours(key, text=text)))
        try:
            net = ImageBind.of(state, text=HUGE_TEXT if text else None)
        except ValueError as error:
            raise ValueError(f"{path} is not imagebind_huge: {error}") from error
        return net.to(place, torch.float32)


# Sound ----------------------------------------------------------------------------------------------------------------


def clip_starts(seconds: float, count: int) -> list[Fraction]:
    """Seconds at which clips of 2 s begin, the last ending with the film; all 0 where it is no longer.

    As pytorchvideo's git version has it, to which ImageBind is pinned; its release divides by `count`.
    """
    return [Fraction(max(seconds - CLIP_SECONDS, 0.0)) / max(count - 1, 1) * i for i in range(count)]


def audio_clips(sound: Float32[Tensor, " s"]) -> Float32[Tensor, "k 1 128 204"]:
    """Three clips' normalised spectrograms. Unscorable for less than one frame of 25 ms."""
    return audio_clips_(sound.clone())


def audio_clips_(sound: Float32[Tensor, " s"]) -> Float32[Tensor, "k 1 128 204"]:
    """As `audio_clips`, and leaves the sound as upstream does: each clip without its mean."""
    spectrograms = []
    for start in clip_starts(len(sound) / RATE, AUDIO_CLIPS):
        clip = sound[int(start * RATE) : int((start + CLIP_SECONDS) * RATE)]
        clip -= clip.mean()  # in place, as upstream: where clips overlap, the next one finds the sound so
        bands = fbank(clip)
        if not len(bands):
            raise Unscorable(f"the sound lasts {len(sound) / RATE:.3f} s; a spectrogram needs 0.025 s")
        spectrograms.append(F.pad(bands.T, (0, max(0, FRAMES - len(bands))))[None, :, :FRAMES])
    return (torch.stack(spectrograms) - LEVEL) / SPREAD


# Pictures -------------------------------------------------------------------------------------------------------------


def streamed(film: Film, seconds: float | None = None, pad: bool = False) -> tuple[UInt8[Tensor, "n 3 h w"], Tensor]:
    """av-benchmark's pictures, one every 2 s by ffmpeg's fps filter, and their sliding pairs (P, 2)."""
    count = int(STREAM_FPS * (film.seconds if seconds is None else seconds) + 1e-6)
    if count < 2:
        raise Unscorable(
            f"lasts {film.seconds:.2f} s; av-benchmark's IB-Score pairs pictures 2 s apart and needs 4 s "
            f'(the convention "official" takes any length)'
        )
    shown = film.indices(STREAM_FPS)[:count]
    if len(shown) < count and not pad:
        raise Unscorable(f"lasts {film.seconds:.2f} s, which is {len(shown)} pictures 2 s apart; {count} are asked for")
    shown = np.pad(shown, (0, count - len(shown)), mode="edge")
    pictures = film.video[shown]
    n = torch.arange(count)
    return resize_bicubic(torch.from_numpy(pictures).permute(0, 3, 1, 2), SIZE), torch.stack([n[:-1], n[1:]], dim=1)


def clipped(film: Film) -> tuple[Float32[Tensor, "n 3 h w"], Tensor]:
    """ImageBind's pictures: the first and last of each of five clips, and which pairs (P, 2) they make."""
    native = clip_pictures(film.times, film.seconds)
    used, pairs = np.unique(native, return_inverse=True)
    # One at a time: as float, a 1080p picture is 25 MB.
    chosen = torch.from_numpy(film.video[used]).permute(0, 3, 1, 2).split(1)
    return torch.cat([resize_bilinear(picture / 255.0) for picture in chosen]), torch.from_numpy(
        pairs.reshape(native.shape)
    )


def clip_pictures(times: Float[np.ndarray, " t"], seconds: float) -> np.ndarray:
    """(5, 2) the first and last picture that begin within each clip of 2 s; where none does, the one that stands.

    Args:
        times: of the pictures, seconds, the first at 0.
        seconds: length of the film.
    """
    starts = np.array([float(start) for start in clip_starts(seconds, VIDEO_CLIPS)]) - 1e-9  # rounding is no time
    last = np.maximum(np.searchsorted(times, starts + CLIP_SECONDS) - 1, 0)
    return np.stack([np.minimum(np.searchsorted(times, starts), last), last], axis=1)


def resize_bilinear(pictures: Float32[Tensor, "n 3 h w"]) -> Float32[Tensor, "n 3 y x"]:
    """Shorter side 224, as pytorchvideo's ShortSideScale: not antialiased."""
    h, w = pictures.shape[-2:]
    size = (floor(h / w * SIZE), SIZE) if w < h else (SIZE, floor(w / h * SIZE))
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


def vision_clips(pictures: Tensor, pairs: Tensor) -> Float32[Tensor, "k 3 2 224 224"]:
    """Each pair in each of three crops, normalised as CLIP has it."""
    crops = three_crops(normalised(pictures))
    return rearrange(crops[:, pairs], "crop p t c h w -> (p crop) c t h w")


def three_crops(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "3 n 3 224 224"]:
    """Both ends and the middle of the longer side."""
    h, w = pictures.shape[-2:]
    ys, xs = ([0, ceil((side - SIZE) / 2), side - SIZE] for side in (h, w))
    return torch.stack([pictures[..., y : y + SIZE, x : x + SIZE] for y, x in zip(ys, xs, strict=True)])
