"""Networks that judge clips while shards are made, hear or see them: silero-vad, SyncNet, Whisper, YuNet.

They are of the extra `eval`, and are loaded by each process that works, when it meets its first clip.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ccl.cli.errors import UsageError
from ccl.data.filters import Least
from ccl.evaluation import recogniser
from ccl.evaluation.faces.detect import YUNET_CONFIDENCE, by_yunet
from ccl.evaluation.faces.settings import Settings, missing
from ccl.evaluation.metrics.base import Measured
from ccl.evaluation.metrics.sync import SyncNet
from ccl.evaluation.metrics.wer import WER
from ccl.evaluation.speech import saying
from ccl.evaluation.vad import RATE, VAD
from ccl.media import Clip, resample
from ccl.weights.catalogue import locate, sha256

OTHERS = ", or --weights"  # begins the advice that only verbs with this option can follow


class Whisper:
    """Hears what is said in clips.

    Args:
        model: size of Whisper or path of its file.
        language: that is spoken.
        device: where it runs.

    Raises:
        UsageError: it cannot run here; says what is missing.
    """

    def __init__(self, model: str, language: str = "en", device: str = "cpu") -> None:
        self.wer = WER(model, device=device)
        if reason := self.wer.missing():
            raise UsageError(f"--transcribe: {reason.removeprefix('the word error rate ').partition(OTHERS)[0]}")
        try:
            self.language = recogniser.language_of(language, self.wer.dims)
        except ValueError as error:
            raise UsageError(f"--language: {error}") from error

    @property
    def version(self) -> str:
        return f"whisper-{self.language}-{self.wer.precision}-{sha256(self.wer.path)[:12]}"

    def prompt(self, clip: Clip) -> str:
        """`Someone says "..."`: the words in double quotes, as prompts have them."""
        return saying(self.words(clip))

    def words(self, clip: Clip) -> str:
        """What is said, without double quotes; "" where nothing is."""
        sound = sound_of(clip)
        words = recogniser.transcribe(self.network, [sound], self.language, precision=self.wer.precision)[0]
        return " ".join(words.replace('"', "").split())

    @cached_property
    def network(self) -> Any:
        return self.wer.recogniser


class YuNet:
    """Finds the faces in clips.

    Args:
        path: of its file; None is the one that was fetched.

    Raises:
        UsageError: it cannot run here; says what is missing.
    """

    def __init__(self, path: str | None = None) -> None:
        settings = Settings(detector="yunet")
        weights = {"yunet": None if path is None else Path(path)}
        if reason := missing(settings, weights):
            raise UsageError(f"--faces: {reason}")
        self.path = locate("yunet", weights["yunet"])

    @property
    def version(self) -> str:
        return f"yunet-{YUNET_CONFIDENCE:g}-{sha256(self.path)[:12]}"

    def find(self, clip: Clip) -> list[np.ndarray]:
        """Left, top, right and bottom of the faces in each picture, in its pixels."""
        assert clip.video is not None
        return [boxes[:, 1:] for boxes in by_yunet(clip.video, self.path)]


def speech(share: float) -> Least:
    """A filter of clips in which too little is speech."""
    if not 0 <= share <= 1:
        raise UsageError(f"--speech is {share:g}; it is a share, from 0 to 1")
    vad = VAD()
    if reason := vad.missing():
        raise UsageError(f"--speech: {reason}")
    return Least("speech", lambda clip: vad.share(sound_of(clip)), share, vad.protocol()["weights"][:12])


def lips(confidence: float, device: str = "cpu") -> Least:
    """A filter of clips whose lips do not go with the voice, or that show no face."""
    sync = SyncNet(device=device)
    if reason := sync.missing():
        raise UsageError(f"--lips: {reason}")

    def score(clip: Clip) -> float:
        (result,) = sync.score([clip])
        if not isinstance(result, Measured):
            raise ValueError(result.reason)
        return result.values["sync_c"]

    return Least("lips", score, confidence, sha256_of(sync.protocol()))


def sound_of(clip: Clip) -> np.ndarray:
    """Of a clip, at the rate of speech networks."""
    assert clip.audio is not None
    return clip.audio if clip.sample_rate == RATE else resample(clip.audio, clip.sample_rate, RATE)


def sha256_of(protocol: dict[str, Any]) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(protocol, sort_keys=True, default=str).encode()).hexdigest()[:12]
