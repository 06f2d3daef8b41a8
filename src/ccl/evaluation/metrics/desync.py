"""DeSync: by how many seconds sound and pictures seem apart, as Synchformer judges it (protocol of av-benchmark).

Pictures at 25 a second and sound at 16 kHz are cut into segments of 0.64 s, one every 0.32 s. The network names one
of 21 offsets (-2 to 2 s) for the first 14 segments, and one for the last 14; DeSync is the mean of their sizes.

N segments, U pictures, W windows (the first 14 segments, and the last where they differ).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn

from ccl.evaluation.dsp.mel import mel_spectrogram
from ccl.evaluation.film import Film, Kept, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets.synchformer import CLASSES, SEGMENTS, Synchformer
from ccl.weights import catalogue as files

FPS, SAMPLE_RATE, SIZE = 25, 16_000, 224
PICTURES, PICTURE_STEP = 16, 8  # of a segment
SAMPLES, SAMPLE_STEP = 10_240, 5_120
SHORTEST = (PICTURES + PICTURE_STEP * (SEGMENTS - 1)) / FPS  # seconds: 4.8
OFFSETS = torch.linspace(-2, 2, CLASSES)  # seconds; above 0 where the sound is early
BLACK = -1  # in the place of a picture's number
CHANCE = float(OFFSETS.abs().mean())  # of a class drawn at random


@dataclass(frozen=True)
class Segments:
    """What the network needs of a clip: each picture once, though segments share them.

    Args:
        pictures: those of the segments, 224 x 224.
        index: which pictures make each segment.
        mel: log-mel spectrogram of each segment, normalised.
        windows: which segments are compared together.
        seen: what the network sees in the pictures' segments, of all films that have them.
    """

    pictures: UInt8[Tensor, "u 224 224 3"]
    index: Int[Tensor, "n 16"]
    mel: Float[Tensor, "n 128 66"]
    windows: Int[Tensor, f"w {SEGMENTS}"]
    seen: Kept[Tensor] = field(default_factory=Kept)


class DeSync(Metric):
    """Mean size of the offsets named for the first and the last 4.8 s. Shorter clips have no value.

    Args:
        seconds: how much of each clip counts, from its start (av-benchmark 8.0). None: as much as both streams have.
        pad: a clip with less of either stream than `seconds` has no value where it is "none" (av-benchmark); "last"
            repeats the last picture, and a short sound has no value (MOVA); "zeros" adds black pictures and silence
            (JavisBench).
        windows: "ends" compares the first and the last 14 segments (av-benchmark, MOVA); "all" 14 after 14, the last
            ones ending with the clip (JavisBench), which differs from 29 segments on, 9.6 s.
        loop: repeat the segments of a clip that has fewer than 14 until there are (JavisBench); else it has no value.
        weights: Synchformer's file; None looks up "synchformer".
        device: where the network runs.
        precision: of the matrix products; sums between them stay fp32.
    """

    name = "desync"
    columns = (Column("desync", "DeSync", better="lower", digits=2, sync=True),)
    batch_size = 4

    def __init__(
        self,
        seconds: float | None = None,
        pad: Literal["none", "last", "zeros"] = "none",
        windows: Literal["ends", "all"] = "ends",
        loop: bool = False,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        self.batch_for(device)
        if seconds is not None and seconds < (least := PICTURES / FPS if loop else SHORTEST):
            needed = "a segment" if loop else f"{SEGMENTS} segments"
            raise ValueError(f"DeSync needs {least} s of a clip, {needed}; seconds is {seconds}")
        if pad != "none" and seconds is None:
            raise ValueError(f"pad is {pad!r}, which needs seconds: how long clips are to be")
        self.pad, self.windows, self.loop = pad, windows, loop
        self.seconds, self.file, self.place, self.precision = seconds, weights, torch.device(device), precision
        self._loaded: list[Synchformer] = []  # in a list, so that it is no part of this module

    def prepare(self, film: Film) -> Segments:
        """The segments of both windows."""
        video, audio = film.video, film.audio
        seen, heard = film.seconds, len(audio) / film.clip.sample_rate
        length = min(seen, heard) if self.seconds is None else self.seconds
        lasts = f"the pictures last {seen:.2f} s and the sound {heard:.2f} s"
        enough = {"none": min(seen, heard), "last": heard, "zeros": length}[self.pad]
        if enough < length - 1e-6:
            raise Unscorable(f"{lasts}; {length:.2f} s of both are asked for")
        pictures, samples = int(FPS * length + 1e-6), int(SAMPLE_RATE * length + 1e-6)
        count = min((pictures - PICTURES) // PICTURE_STEP, (samples - SAMPLES) // SAMPLE_STEP) + 1
        if count < (1 if self.loop else SEGMENTS):
            needed = f"{round(SHORTEST * FPS)} and {round(SHORTEST * SAMPLE_RATE):,}"
            raise Unscorable(
                f"{lasts}: {pictures} frames at 25 fps and {samples:,} samples at 16 kHz, "
                f"where DeSync needs {needed} ({SHORTEST} s)"
            )
        segments, windows = choose(count, self.windows)
        ticks = segments[:, None] * PICTURE_STEP + np.arange(PICTURES)
        shown, sound = film.indices(FPS), film.sound(SAMPLE_RATE)
        if len(shown) < pictures:
            shown = np.pad(
                shown, (0, pictures - len(shown)), constant_values=shown[-1] if self.pad == "last" else BLACK
            )
        if len(sound) < samples:
            sound = np.pad(sound, (0, samples - len(sound)))
        natives, index = np.unique(shown[ticks], return_inverse=True)
        cut = segments[:, None] * SAMPLE_STEP + np.arange(SAMPLES)
        key = "synchformer", str(self.file), str(self.place), self.precision, shown[ticks].tobytes()
        cropped, made = film.once(key, lambda: (crops(video, natives), Kept[Tensor]()))
        return Segments(
            cropped,
            torch.from_numpy(index.reshape(ticks.shape)),
            log_mel(torch.from_numpy(sound[cut])),
            torch.from_numpy(windows),
            made,
        )

    def measure(self, inputs: Sequence[Segments]) -> list[Measured]:
        """The clips' segments go through the network together, each once."""
        net = self.network()
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.precision == "bf16"):
            seen, heard = features(net, inputs, self.place)
            logits = net.compare(
                torch.cat([x[s.windows] for x, s in zip(seen, inputs, strict=True)]),
                torch.cat([x[s.windows] for x, s in zip(heard, inputs, strict=True)]),
            )
        found = logits.float().cpu().split([len(s.windows) for s in inputs])
        return [Measured({"desync": desync(each)}) for each in found]

    def network(self) -> Synchformer:
        """Synchformer with its weights, on its device; loaded once."""
        if not self._loaded:
            path = files.locate("synchformer", self.file)
            held = files.read(path)
            state = held.get("model", held)  # the authors' own checkpoints wrap it
            if not isinstance(state, Mapping):
                raise ValueError(f"{path} does not hold Synchformer's weights")
            try:
                net = Synchformer.of({key.removeprefix("module."): value for key, value in state.items()}).float()
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            if self.precision == "bf16":  # what multiplies: autocast would cast it anew at each call
                for module in net.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.MultiheadAttention):
                        module.to(torch.bfloat16)
            self._loaded.append(net.to(self.place))
        return self._loaded[0]

    def load(self) -> None:
        self.network()

    def find(self) -> object:
        return files.locate("synchformer", self.file)

    def protocol(self) -> dict[str, Any]:
        whole = "the whole clip, as far as both streams last"
        return {
            "video": "25 fps, shorter side 224 bicubic antialiased, centre crop",
            "audio": "mono, 16 kHz by torchaudio's resampling",
            "seconds": whole if self.seconds is None else self.seconds,
            "windows": f"first and last {SEGMENTS} segments ({SHORTEST} s)",
            "shortest": SHORTEST,
            "grid": [float(OFFSETS[0]), float(OFFSETS[-1]), CLASSES],
            "chance": round(CHANCE, 3),
            # What came later is named only where it differs, so that older rows, which were scored so, still stand.
            **({"pad": self.pad} if self.pad != "none" else {}),
            **(
                {"windows": f"{SEGMENTS} after {SEGMENTS} segments, the last with the clip's end"}
                if self.windows == "all"
                else {}
            ),
            **({"loop": True} if self.loop else {}),
            "precision": self.precision,
            "weights": "" if self.missing() else files.sha256(files.locate("synchformer", self.file)),
        }


def desync(logits: Float[Tensor, f"w {CLASSES}"]) -> float:
    """Seconds: the mean size of the likeliest offsets."""
    if not logits.isfinite().all():
        raise ValueError("Synchformer's answer is not finite; neither, then, are its inputs or weights")
    return float(OFFSETS[logits.argmax(1)].abs().double().mean())


def choose(
    count: int, windows: Literal["ends", "all"] = "ends"
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, f"w {SEGMENTS}"]]:
    """Of `count` segments those that are compared, and the windows of 14 as positions among them.

    The first and the last, or one after the other up to the last; fewer than 14 go round.
    """
    last = max(count - SEGMENTS, 0)
    starts = [0, last] if windows == "ends" else [*range(0, last, SEGMENTS), last]
    rows = np.unique(np.array(starts)[:, None] + np.arange(SEGMENTS), axis=0) % count
    segments, positions = np.unique(rows, return_inverse=True)
    return segments, positions.reshape(rows.shape)


def features(
    net: Synchformer, inputs: Sequence[Segments], device: torch.device
) -> tuple[list[Float[Tensor, "n 8 d"]], list[Float[Tensor, "n 6 d"]]]:
    """Each clip's segments seen and heard; what was seen before, of the same pictures, is not looked at again."""
    seen = [clip.seen.get(partial(see, net, clip.pictures, clip.index, device)) for clip in inputs]
    heard = net.hear(torch.cat([clip.mel for clip in inputs]).to(device)).float()
    return seen, list(heard.split([len(clip.index) for clip in inputs]))


def see(
    net: Synchformer, pictures: UInt8[Tensor, "u 224 224 3"], index: Int[Tensor, "n 16"], device: torch.device
) -> Float[Tensor, "n 8 d"]:
    """A clip's segments: on a GPU many together, on a CPU one by one, which its caches like best."""
    seen = []
    for part in index.split(1 if device.type == "cpu" else 32):
        scaled = pictures[part].to(device).permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1)
        seen.append(net.see(scaled).float())
    return torch.cat(seen)


def crops(video: UInt8[np.ndarray, "t h w 3"], chosen: Int[np.ndarray, " u"]) -> UInt8[Tensor, "u 224 224 3"]:
    """Pictures with the shorter side at 224, then their middle square; black for -1.

    In uint8 arithmetic, as torchvision resizes bytes; rounding a float result instead differs by 1 in a tenth of them.
    """
    height, width = video.shape[1:3]
    short = min(height, width)
    size = (SIZE * height // short, SIZE * width // short)  # the longer side rounds down
    top, left = (round((side - SIZE) / 2) for side in size)
    out = torch.empty(len(chosen), SIZE, SIZE, 3, dtype=torch.uint8)
    for i, t in enumerate(chosen):
        if t == BLACK:
            out[i] = 0
            continue
        picture = torch.from_numpy(np.require(video[t], requirements=["C", "W"])).permute(2, 0, 1)[None]
        if size != (height, width):
            picture = F.interpolate(picture, size, mode="bicubic", antialias=True)
        out[i] = picture[0, :, top : top + SIZE, left : left + SIZE].permute(1, 2, 0)
    return out


def log_mel(segments: Float32[Tensor, f"n {SAMPLES}"]) -> Float32[Tensor, "n 128 66"]:
    """Normalised log-mel spectrograms: 65 frames and a last one of zeros, log energy 0, which is not silence."""
    mel = F.pad((mel_spectrogram(segments, sample_rate=SAMPLE_RATE) + 1e-6).log(), (0, 1))
    return (mel + 4.2677393) / (2 * 4.5689974)
