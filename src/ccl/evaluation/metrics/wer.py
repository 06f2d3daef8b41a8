"""Word error rate of the speech, as Whisper hears it, against the words that were to be spoken.

Greedy, as `whisper.transcribe(temperature=0, condition_on_previous_text=False)` decodes, but many clips together; the
texts are the same. Both sides go through Whisper's own normaliser, jiwer counts. The table's WER is that of the corpus,
errors over words of all clips; the mean over clips stands beside it. Openly: the hypothesis comes from a network that
writes down what is likely, so it corrects bad speech a little, and invents words for silence unless `gate` is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.recogniser import (
    LIKELY,
    NO_SPEECH,
    RATE,
    Precision,
    dimensions,
    language_of,
    locate,
    transcribe,
)
from ccl.evaluation.speech import SILENT, spoken, unclear
from ccl.evaluation.vad import VAD
from ccl.evaluation.words import NORMALISERS, UNSPACED, Normaliser, compared
from ccl.media import Clip
from ccl.rows import Row
from ccl.weights import catalogue as files


@dataclass(frozen=True)
class Utterance:
    """What one clip gives the metric.

    Args:
        speech: that was to be spoken.
        lang: Whisper's code of its language.
        sound: (S,) at 16 kHz; None where the gate found nobody speaking.
    """

    speech: str
    lang: str
    sound: Float32[np.ndarray, " s"] | None


class WER(Metric):
    """Word error rate by Whisper: 0 is perfect; 1 nothing right, and inserted words take it above.

    Args:
        model: size of Whisper ("large-v3", "tiny.en", ...) or the path of its file.
        weights: the file, whatever `model` says; None looks `model` up in Whisper's cache and in that of `ccl weights`.
        device: where the recogniser runs.
        precision: of the recogniser. None is Whisper's own: fp16 on a GPU, fp32 on a CPU. bf16 is the encoder's alone.
        normaliser: what both texts become before they are compared; "verse-bench" and "fastvideo" are theirs.
        gate: a clip in which silero-vad finds no speech counts as if nothing were heard.
        gate_weights: silero_vad.onnx; None looks it up.
    """

    name = "wer"
    columns = (
        Column("wer", "WER", "lower", percent=True, over=("wer_errors", "wer_words")),
        Column("wer_mean", "WER mean", "lower", percent=True),
        Column("wer_errors", "Word errors", "lower", digits=0, shown=False),
        Column("wer_words", "Words", "", digits=0, shown=False),
    )
    batch_size = 8

    def __init__(
        self,
        model: str = "large-v3",
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        normaliser: Normaliser = "whisper",
        gate: bool = False,
        gate_weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.batch_for(device)
        cpu = torch.device(device).type == "cpu"
        if cpu and precision == "fp16":
            raise ValueError("Whisper runs in fp16 on a GPU only; on a CPU choose fp32 or bf16")
        self.model, self.weights, self.where = model, weights, device
        self.precision: Precision = precision or ("fp32" if cpu else "fp16")
        self.normaliser: Normaliser = normaliser
        self.gate = VAD(gate_weights) if gate else None

    def update(self, sources: Iterable[Film | Clip | str | Path]) -> None:
        """As `Metric.update`.

        Raises:
            ValueError: also where no clip can say what was to be spoken: all are paths.
        """
        sources = sources if isinstance(sources, str | Path | Clip | Film) else list(sources)
        if isinstance(sources, list) and sources and all(isinstance(source, str | Path) for source in sources):
            raise ValueError(
                "the word error rate needs the words that were to be spoken, and a path alone has none: "
                'give ccl.evaluation.Film.read(path, ccl.evaluation.Row(id, speech="..."))'
            )
        super().update(sources)

    def load(self) -> None:
        _ = self.recogniser

    def missing(self) -> str:
        try:
            import jiwer  # noqa: F401
            import whisper  # noqa: F401

            _ = self.path
        except ImportError as error:
            return f"the word error rate needs {error.name}: pip install 'ccl[eval]'"
        except ValueError as error:
            return str(error)
        return self.gate.missing() if self.gate is not None else ""

    def protocol(self) -> dict[str, Any]:
        import whisper

        return {
            "recogniser": f"openai-whisper {whisper.__version__}, {self.path.stem}",
            "decoding": "greedy, temperature 0, the row's language, windows of 30 s without text of the one before",
            "silence": f"windows of no-speech above {NO_SPEECH} and mean log-probability up to {LIKELY} are dropped",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling (ffmpeg's upstream)",
            "precision": self.precision,
            "normaliser": NORMALISERS[self.normaliser],
            "counted": "words"
            + (f"; letters with their marks in {', '.join(sorted(UNSPACED))}" if self.normaliser == "whisper" else ""),
            "over_clips": "errors / words of all clips; wer_mean: mean over clips",
            "gate": self.gate.protocol() if self.gate is not None else None,
            "weights": files.sha256(self.path),
        }

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "" if spoken(row.speech, row.prompt) or unclear(row.prompt) else SILENT

    def prepare(self, film: Film) -> Utterance:
        speech = spoken(film.row.speech, film.row.prompt)
        if not speech:
            raise Unscorable(unclear(film.row.prompt) or SILENT)
        lang = language_of(film.row.lang, self.dims)
        if not compared(speech, "", lang, self.normaliser)[0]:
            raise Unscorable(f"nothing is left of '{speech}' after normalising")
        sound = film.sound(RATE)
        silent = self.gate is not None and self.gate.share(sound) == 0
        return Utterance(speech, lang, None if silent else sound)

    def measure(self, inputs: Sequence[Utterance]) -> list[Measured]:
        heard = [""] * len(inputs)
        for lang in dict.fromkeys(clip.lang for clip in inputs):  # one call decodes one language
            sounds = {i: clip.sound for i, clip in enumerate(inputs) if clip.lang == lang and clip.sound is not None}
            texts = transcribe(self.recogniser, list(sounds.values()), lang, precision=self.precision)
            heard = [dict(zip(sounds, texts, strict=True)).get(i, text) for i, text in enumerate(heard)]
        return [measured(clip, text, self.normaliser) for clip, text in zip(inputs, heard, strict=True)]

    @property
    def path(self) -> Path:
        """The file of the recogniser. MissingWeights, or ValueError where `model` is no size of Whisper."""
        return locate(self.model, self.weights)

    @property
    def dims(self) -> dict[str, int]:
        """Sizes of the network, without reading its weights."""
        return dimensions(self.path)

    @cached_property
    def recogniser(self) -> Any:
        import whisper

        return whisper.load_model(str(self.path), device=self.where).eval()  # reads with weights_only=True


def measured(clip: Utterance, text: str, normaliser: Normaliser = "whisper") -> Measured:
    errors, words = word_errors(clip.speech, text, clip.lang, normaliser)
    rate = errors / words
    return Measured({"wer": rate, "wer_mean": rate, "wer_errors": errors, "wer_words": words}, text=text)


def word_errors(
    reference: str, hypothesis: str, lang: str = "en", normaliser: Normaliser = "whisper"
) -> tuple[int, int]:
    """Words to substitute, delete and insert to make the hypothesis of the reference, and words of the reference.

    Both texts are normalised first; letters take the place of words in languages written without spaces.

    Raises:
        ValueError: the reference has no words.
    """
    import jiwer

    words, heard = compared(reference, hypothesis, lang, normaliser)
    if not words:
        raise ValueError("the reference has no words")
    found = jiwer.process_words(" ".join(words), " ".join(heard))
    return found.substitutions + found.deletions + found.insertions, len(words)
