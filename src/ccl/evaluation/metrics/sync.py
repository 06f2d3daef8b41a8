"""Sync-C and Sync-D: how surely, and how closely, a mouth goes with its voice (SyncNet; Wav2Lip's LSE-C and LSE-D).

Each window of a face track is compared with the sound at 31 shifts of one picture: the mean distance at the best shift
is Sync-D, how far it lies below the median shift's is Sync-C. Protocol: joonson/syncnet_python, without its two
re-encodings; where those who built on it differ is an argument (evaluation/protocols). N pictures of a track at 25 a
second, L windows of five, K = 2 * vshift + 1 shifts, D = 1024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from ccl.evaluation import faces
from ccl.evaluation.dsp.mfcc import mfcc
from ccl.evaluation.faces.settings import Follow
from ccl.evaluation.film import Film, Kept, Unscorable
from ccl.evaluation.metrics.base import Column, Failed, Measured, Metric, Result
from ccl.evaluation.nets.syncnet import PICTURES, STEP, Precision, SyncNetwork, Towers
from ccl.evaluation.speech import SILENT, spoken
from ccl.rows import Row
from ccl.weights import catalogue as weights

FPS, RATE = 25, 16_000
VSHIFT = 15  # pictures, either way
_TICK = RATE // FPS  # samples to a picture
# Conventions that came later are named in `protocol` where they differ from these alone, so that older rows, which were
# scored so, still stand.
LATER: dict[str, object] = {"follow": "overlap", "distance": "least", "farthest": None}


Tracks = Literal["mean", "best", "extremes"]
Distance = Literal["least", "mean"]


class Score(NamedTuple):
    """Of one track: confidence, distance, and where the least lies: by how many pictures the sound is early."""

    confidence: float
    distance: float
    offset: float


@dataclass(frozen=True)
class Talk:
    """A face track as the network takes it.

    Args:
        faces: crops, RGB.
        mfcc: of the sound from the track's first picture on.
        windows: how many are scored.
        seen: pictures of the film with a face, and all of them.
        lips: the windows' embeddings, of all films with these pictures.
    """

    faces: UInt8[np.ndarray, "n 224 224 3"]
    mfcc: Float[np.ndarray, "t 13"]
    windows: int
    seen: tuple[int, int]
    lips: Kept[Tensor] = field(default_factory=Kept)


class SyncNet(Metric):
    """Sync-C, higher is better, and Sync-D, lower is better, with the offset at which they were found.

    Args:
        min_track: pictures that a track must exceed. 50 is LatentSync's and syncnet-python's: two thirds of its windows
            have a sound even at the outermost shifts. joonson's 100 refuses every 5 s clip whose face is lost once for
            longer than a gap may last (1 s); at MOVA's 20 the outermost shifts compare with little but padding.
        tracks: a clip's value where it has several tracks: their mean (LatentSync), the track with the greatest C - D
            (MOVA's "inperson"), or the "extremes", greatest C and least D, be they of two (PyPI's syncnet-python).
        active_speaker: score only the track that Light-ASD hears speaking most.
        detector: of faces; "auto" takes S3FD where its file is there, else YuNet.
        min_face: pixels that the mean width or height of a track's boxes must exceed.
        crop_scale: how much of a face's size is cropped around it.
        follow: "overlap" is SyncNet's pipeline. "first" is Verse-Bench's: the best-scored face of each picture as long
            as every picture has one, boxes not smoothed, shots not told apart, the last picture without its sound.
        distance: what Sync-D is of the 31 shifts' mean distances: the least, or their mean, which is what averaging
            Verse-Bench's list of them comes to. The mean tells little of sync: it hardly moves with the sound.
        farthest: a clip with a track that is found so many pictures apart has no value (Verse-Bench 14); None keeps it.
        legacy_avi: follow only as many pictures as the file has, as the reference does to clips below 25 pictures a
            second on common versions of ffmpeg: of a clip at 16 a second it scores the first 16/25.
        weights: file of syncnet_v2.model; None looks it up.
        face_weights: files by hand of "s3fd", "yunet" and "light_asd".
        device: where the networks run.
        precision: of the convolutions; bf16 halves their time and moved C by 0.003, D by 0.03 % with random weights.
    """

    name = "sync"
    columns = (
        Column("sync_c", "Sync-C", "higher", also="LSE-C", sync=True),
        Column("sync_d", "Sync-D", "lower", also="LSE-D", sync=True),
        Column("sync_offset", "offset", "", shown=False),
        Column("sync_faces", "pictures with a face", "", digits=0, shown=False),
        Column("sync_pictures", "pictures", "", digits=0, shown=False),
    )

    def __init__(
        self,
        *,
        min_track: int = 50,
        tracks: Tracks = "mean",
        active_speaker: bool = False,
        detector: Literal["auto", "s3fd", "yunet"] = "auto",
        min_face: float = 100.0,
        crop_scale: float = 0.4,
        follow: Follow = "overlap",
        distance: Distance = "least",
        farthest: int | None = None,
        legacy_avi: bool = False,
        weights: str | Path | None = None,
        face_weights: Mapping[str, str | Path] | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.batch_for(device)
        self.settings = faces.Settings(
            detector=detector,
            min_track=min_track,
            min_face=min_face,
            crop_scale=crop_scale,
            follow=follow,
            legacy_avi=legacy_avi,
            device=device,
        )
        self.tracks, self.active_speaker, self.precision = tracks, active_speaker, precision
        self.distance, self.farthest = distance, farthest
        self.file = weights
        self.face_files = {name: Path(path) for name, path in (face_weights or {}).items()}
        self._towers: Towers | None = None

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        """A test set that says what is spoken needs no face where nothing is."""
        return SILENT if speech and not spoken(row.speech, row.prompt) else ""

    def prepare(self, film: Film) -> list[Talk]:
        """The film's tracks that are long enough to score."""
        sound = samples(film.sound(RATE))
        talks, spoken = [], []
        followed = faces.tracks(film, self.settings, self.face_files)
        found = faces.found(film, self.settings, self.face_files)
        seen = sum(map(bool, map(len, found))), len(found)
        for track in followed:
            start, end = track.start, track.start + len(track.boxes)
            # Verse-Bench cuts the sound where its last picture begins, which costs a window.
            heard = sound[start * _TICK : (end - (self.settings.follow == "first")) * _TICK]
            if (count := windows(end - start, len(heard))) < 1:
                continue
            crops = faces.crop(film, track, self.settings)[: count + PICTURES]
            key = "syncnet", str(self.file), self.settings, self.precision, start, track.boxes.tobytes(), count
            lips = film.once(key, Kept[Tensor])
            talks.append(Talk(crops[:-1], mfcc(heard).astype(np.float32), count, seen, lips))
            if self.active_speaker:
                path = weights.locate("light_asd", self.face_files.get("light_asd"))
                spoken.append(faces.speaking(crops, film.sound(RATE)[start * _TICK : end * _TICK], path))
        if not talks:
            raise Unscorable(f"the sound ends before any face has been seen for {PICTURES + 1} pictures")
        return [talks[int(np.argmax(spoken))]] if self.active_speaker else talks

    def measure(self, inputs: Sequence[list[Talk]]) -> list[Result]:
        """The sounds of all tracks of all clips go through the network together, the pictures track by track."""
        scores = iter(self._scores([talk for talks in inputs for talk in talks]))
        return [self._result([next(scores) for _ in talks], talks[0].seen) for talks in inputs]

    def _result(self, scores: Sequence[Score], seen: tuple[int, int]) -> Result:
        """Of one clip's tracks."""
        far = max(abs(score.offset) for score in scores)
        if self.farthest is not None and far >= self.farthest:
            return Failed(
                f"a face and its voice are found {far:.0f} pictures apart; from {self.farthest} on it counts as none"
            )
        c, d, offset = choose(scores, self.tracks)
        values = {"sync_c": c, "sync_d": d, "sync_offset": offset}
        return Measured(values | {"sync_faces": seen[0], "sync_pictures": seen[1]})

    def _scores(self, talks: Sequence[Talk]) -> list[Score]:
        towers, counts = self.towers(), [talk.windows for talk in talks]
        cepstra = torch.cat([torch.from_numpy(talk.mfcc.T) for talk in talks], dim=1)
        video = [talk.lips.get(partial(towers.lip, torch.from_numpy(talk.faces))) for talk in talks]
        audio = towers.audio(cepstra, starts([len(talk.mfcc) for talk in talks], counts))
        pairs = zip(video, audio.split(counts), strict=True)
        return [confidence(distances(seen, heard), self.distance) for seen, heard in pairs]

    def towers(self) -> Towers:
        """The network with its published weights, read once."""
        if self._towers is None:
            path = weights.locate("syncnet", self.file)
            state = weights.read(path)
            try:
                network = SyncNetwork.of(state)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            self._towers = Towers(network, device=self.settings.device, precision=self.precision)
        return self._towers

    def load(self) -> None:
        self.towers()

    def missing(self) -> str:
        try:
            weights.locate("syncnet", self.file)
            if self.active_speaker:
                weights.locate("light_asd", self.face_files.get("light_asd"))
        except weights.MissingWeights as error:
            return str(error)
        return faces.missing(self.settings, self.face_files)

    def protocol(self) -> dict[str, Any]:
        """All conventions; the detector that is in use, not "auto"."""
        detector = faces.detector_name(self.settings, self.face_files)
        needed: dict[str, str | Path | None] = {"syncnet": self.file, detector: self.face_files.get(detector)}
        if self.active_speaker:
            needed["light_asd"] = self.face_files.get("light_asd")
        every = asdict(self.settings) | {"distance": self.distance, "farthest": self.farthest}
        conventions = {key: value for key, value in every.items() if key != "device" and LATER.get(key, ...) != value}
        return conventions | {
            "fps": f"{FPS}, constant, not re-encoded",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling (ffmpeg's upstream), 16 bit, not re-encoded",
            "mfcc": "python_speech_features 0.6",
            "detector": detector,
            "faces": faces.CONVENTIONS[detector],
            "shots": "not told apart"
            if self.settings.follow == "first"
            else "PySceneDetect's ContentDetector, defaults",
            "tracks": "the one that speaks most (Light-ASD)" if self.active_speaker else self.tracks,
            "vshift": VSHIFT,
            "edges": "zero padding, in the means",
            "offset": f"{VSHIFT} - argmin, in pictures of 40 ms",
            "precision": self.precision,
            "weights": {name: weights.sha256(weights.locate(name, given)) for name, given in needed.items()},
        }


def samples(sound: Float[np.ndarray, " s"]) -> Int16[np.ndarray, " s"]:
    """Sound in [-1, 1] as 16-bit samples, rounded and clipped as ffmpeg does."""
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)


def windows(pictures: int, samples: int) -> int:
    """How many windows the reference scores: one fewer than fit, none or less where there are too few pictures."""
    return min(pictures, samples // _TICK) - PICTURES


def starts(lengths: Sequence[int], counts: Sequence[int]) -> Int[Tensor, " l"]:
    """First columns of windows of a sound: of each of several tracks end to end its first `counts`."""
    firsts = accumulate(lengths[:-1], initial=0)
    return torch.cat([first + STEP * torch.arange(n) for first, n in zip(firsts, counts, strict=True)])


def distances(
    video_emb: Float[Tensor, "l d"], audio_emb: Float[Tensor, "l d"], vshift: int = VSHIFT
) -> Float[Tensor, "l k"]:
    """Distance of each window's picture to the sound `k - vshift` windows later; beyond the ends the sound is zeros.

    eps as in torch's pairwise_distance, which the reference calls: added to each difference before it is squared.
    """
    padded = torch.nn.functional.pad(audio_emb, (0, 0, vshift, vshift))
    shifted = (padded[k : k + len(video_emb)] for k in range(2 * vshift + 1))
    return torch.stack([(video_emb - sound + 1e-6).norm(dim=1) for sound in shifted], dim=1)


def confidence(d: Float[Tensor, "l k"], distance: Distance = "least") -> Score:
    """What the distances at all shifts say of a track."""
    mean = d.mean(0)
    least, best = mean.min(0)
    told = least if distance == "least" else mean.mean()
    return Score(float(mean.median() - least), float(told), float(d.shape[1] // 2 - best))


def choose(scores: Sequence[Score], tracks: Tracks) -> Score:
    """One score of a clip's tracks."""
    if tracks == "extremes":
        surest = max(scores, key=lambda score: score.confidence)
        return Score(surest.confidence, min(score.distance for score in scores), surest.offset)
    if tracks == "best":
        return max(scores, key=lambda score: score.confidence - score.distance)
    return Score(*(float(np.mean(part)) for part in zip(*scores, strict=True)))
