"""Speaker similarity: whether a clip speaks in the voice that was given, the row's `voice` (Resemblyzer).

Both sounds are cut into pieces of 1.6 s, each becomes a point on a sphere, and the cosine of the two means is the
value. The mel spectrogram and the cutting are those of Resemblyzer's audio.py and voice_encoder.py; its webrtcvad,
which shortens pauses first, is left out. S samples at 16 kHz, F frames of 10 ms, B pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from ccl.evaluation.dsp.slaney import slaney
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.nets.voice import BANDS, VoiceEncoder
from ccl.media import MediaError, read_audio
from ccl.rows import Row
from ccl.weights import catalogue as weights

RATE = 16_000
FFT, HOP = 400, 160  # samples
PIECE = 160  # frames
STEP = 77  # frames from one piece to the next: 1.3 a second
COVERED = 0.75  # of the last piece, that must be sound; a shorter rest is left out
LEVEL = -30.0  # dB full scale, to which quieter sounds are raised
NONE_GIVEN = "no voice was given to compare its own with"


class Speaker(Metric):
    """Cosine of the voices' embeddings, 0 to 1.

    Of real clips, halves of one recording lie at 0.77 to 0.90, two speakers at 0.49 to 0.61. Where nobody speaks it
    compares noises, and means nothing: read it beside WER.

    Args:
        weights: file of Resemblyzer's pretrained.pt; None looks it up.
        device: where the network runs.
    """

    name = "speaker"
    usual = False
    columns = (Column("speaker_sim", "Speaker"),)
    batch_size, gpu_batch_size = 8, 64

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        super().__init__()
        self.batch_for(device)
        self.file, self.place = weights, torch.device(device)

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return NONE_GIVEN if row.voice is None else ""

    def prepare(self, film: Film) -> tuple[np.ndarray, np.ndarray]:
        """Pieces of the clip's sound, and of the voice's."""
        if film.row.voice is None:
            raise Unscorable(NONE_GIVEN)
        own = pieces(film.sound(RATE))
        try:
            return own, pieces(voice(film.row.voice))
        except (MediaError, Unscorable) as error:
            raise Unscorable(f"its voice: {getattr(error, 'reason', error)}") from error

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Measured]:
        """The pieces of all clips and voices together."""
        sounds = [sound for pair in inputs for sound in pair]
        embedded = self.net(torch.from_numpy(np.concatenate(sounds)).to(self.place)).double().cpu()
        means = [part.mean(0) for part in embedded.split([len(sound) for sound in sounds])]
        return [
            Measured({"speaker_sim": float(torch.cosine_similarity(own, given, dim=0))})
            for own, given in zip(means[::2], means[1::2], strict=True)
        ]

    @cached_property
    def net(self) -> VoiceEncoder:
        """The network with its published weights, read once."""
        path = weights.locate("resemblyzer", self.file)
        with torch.inference_mode(False):
            try:
                return VoiceEncoder.of(weights.read(path)).to(self.place)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error

    def load(self) -> None:
        _ = self.net

    def find(self) -> object:
        return weights.locate("resemblyzer", self.file)

    def protocol(self) -> dict[str, Any]:
        return {
            "model": "Resemblyzer's voice encoder",
            "sound": f"mono, {RATE} Hz by torchaudio's resampling, a voice's file by ffmpeg's; raised to {LEVEL:g} dB",
            "pauses": "kept, where Resemblyzer shortens them with webrtcvad",
            "pieces": "1.6 s, 1.3 a second; cosine of the means",
            "weights": weights.sha256(weights.locate("resemblyzer", self.file)),
        }


def voice(given: Any) -> Float32[np.ndarray, " s"]:
    """The sound of a row's voice: of a file, whose pictures stay undecoded, or of a ccl.media.Clip."""
    return read_audio(given, RATE) if isinstance(given, str | Path) else Film.of(given).sound(RATE)


def pieces(sound: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, "b 160 40"]:
    """Mel spectrograms of the pieces of a sound; the last one may be padded with silence.

    Raises:
        Unscorable: it is silence, which is nobody's voice.
    """
    level = np.sqrt(np.mean(sound.astype(np.float64) ** 2))
    if not level > 0:
        raise Unscorable("the sound is silence, which is nobody's voice")
    sound = sound * np.float32(max(1.0, 10 ** (LEVEL / 20) / level))
    starts = range(0, max(1, -(-(len(sound) + 1) // HOP) - PIECE + STEP + 1), STEP)
    if len(starts) > 1 and len(sound) / HOP - starts[-1] < COVERED * PIECE:
        starts = starts[:-1]
    spectrogram = mel(np.pad(sound, (0, max(0, (starts[-1] + PIECE) * HOP - len(sound)))))
    return np.stack([spectrogram[start : start + PIECE] for start in starts])


def mel(sound: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, "f 40"]:
    """Power in 40 bands, not its logarithm: librosa's melspectrogram with windows of 25 ms every 10 ms."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(sound, FFT // 2), FFT)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    power = np.abs(np.fft.rfft(windows * hann)) ** 2
    return (power @ slaney(RATE, FFT, BANDS).T).astype(np.float32)
