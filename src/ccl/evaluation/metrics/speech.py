"""Word error rate of the speech, as a recogniser hears it, against the sentence that was to be spoken.

OpenAI's Whisper with its English normaliser on both sides, jiwer's counting. The mean over clips of errors / words; a
clip without sound counts as 1. Weights are a file given by name or path: nothing is downloaded in silence.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from ccl.evaluation.metrics.base import Metric
from ccl.types import Clip


class Speech(Metric):
    """Word error rate by Whisper (0 is perfect, 1 and more is lost).

    Args:
        model: a file of Whisper's weights, or a name such as "tiny.en" that Whisper has downloaded before.
        device: where the recogniser runs.
    """

    name = "speech"
    columns = ("wer",)
    worst = 1.0

    def __init__(self, model: str = "tiny.en", device: str = "cpu") -> None:
        self.model, self.device = model, device

    def missing(self) -> str:
        try:
            import jiwer  # noqa: F401
            import whisper  # noqa: F401
        except ImportError as error:
            return f"the word error rate needs {error.name}: pip install 'ccl[eval]'"
        if self.weights.is_file():
            return ""
        download = f"""python -c 'import whisper; whisper.load_model("{self.model}")'"""
        return (
            f"the word error rate needs Whisper's weights, and {self.weights} is not there: "
            f"run {download}, or give the path of a file"
        )

    def score(self, clip: Clip) -> dict[str, float]:
        """Score one clip, whose meta holds the sentence, or whose prompt holds it in double quotes.

        Raises:
            ValueError: it has no sound, or nothing was to be said.
        """
        if clip.audio is None:
            raise ValueError(f"clip {clip.id} has no sound")
        sentence = clip.meta.get("sentence") or " ".join(re.findall(r'"([^"]+)"', clip.prompt))
        if not sentence:
            raise ValueError(f"clip {clip.id} has no sentence that was to be spoken")
        return {"wer": self.error_rate(sentence, self.transcribe(clip))}

    def transcribe(self, clip: Clip) -> str:
        """What the recogniser hears; greedy, so always the same."""
        from ccl.media import resample

        assert clip.audio is not None
        audio = resample(clip.audio, clip.sample_rate, 16_000)
        # Without the threshold a quiet clip would come back empty, and without temperatures nothing is drawn by chance.
        heard = self.recogniser.transcribe(
            audio, language="en", temperature=0.0, condition_on_previous_text=False, fp16=self.device != "cpu"
        )
        return str(heard["text"])

    def error_rate(self, sentence: str, heard: str) -> float:
        """Substitutions, insertions and deletions over the words of the sentence."""
        import jiwer

        return float(jiwer.wer(self.normal(sentence), self.normal(heard)))

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        if self.model.endswith(".pt") or "/" in self.model:
            return Path(self.model)
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        return cache / "whisper" / f"{self.model}.pt"

    @cached_property
    def recogniser(self) -> Any:
        import whisper

        return whisper.load_model(str(self.weights), device=self.device)

    @cached_property
    def normal(self) -> Any:
        """Case, punctuation, contractions and numerals to one form."""
        from whisper.normalizers import EnglishTextNormalizer

        return EnglishTextNormalizer()
