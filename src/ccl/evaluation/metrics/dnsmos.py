"""DNSMOS: how good the sound of speech is, as listeners would rate it from 1 to 5, without a reference.

Microsoft's DNS-Challenge (MIT): DNSMOS P.835 (Reddy et al., ICASSP 2022) rates speech (SIG), background (BAK) and the
whole (OVRL), DNSMOS P.808 (ICASSP 2021) the whole alone. Windows of 9.01 s every second, a short clip repeated until it
fills one; the mean over windows. The networks are the .onnx files of the speechmos wheel, its Python is not imported.
S samples at 16 kHz, N windows, F frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from ccl.evaluation.dsp.slaney import slaney
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.vad import open_session
from ccl.weights import catalogue as files

RATE = 16_000
SECONDS = 9.01  # of a window
WINDOW = 144_160  # its samples
FFT, HOP, BANDS = 321, 160, 120
# From the P.835 network's outputs, in its order, to ratings: the polynomials of the DNS-Challenge's dnsmos_local.py,
# highest power first.
FITS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


class DNSMOS(Metric):
    """Rating of the sound of speech, 1 to 5.

    Args:
        p835: sig_bak_ovr.onnx; None takes that of the speechmos wheel.
        p808: model_v8.onnx; likewise.
    """

    name = "dnsmos"
    columns = (
        Column("dnsmos_ovrl", "DNSMOS"),
        Column("dnsmos_sig", "DNSMOS SIG"),
        Column("dnsmos_bak", "DNSMOS BAK"),
        Column("dnsmos_p808", "DNSMOS P.808"),
    )

    def __init__(self, p835: str | Path | None = None, p808: str | Path | None = None) -> None:
        super().__init__()
        self.p835, self.p808 = p835, p808

    def load(self) -> None:
        _ = self.sessions

    def missing(self) -> str:
        try:
            import onnxruntime  # noqa: F401

            _ = self.paths
        except ImportError:
            return "DNSMOS needs onnxruntime: pip install 'ccl[eval]'"
        except files.MissingWeights as error:
            return str(error)
        return ""

    def protocol(self) -> dict[str, Any]:
        p835, p808 = (files.sha256(path) for path in self.paths)
        return {
            "sample_rate": RATE,
            "sound": "mono by torchaudio's resampling",
            "window_seconds": SECONDS,
            "hop_seconds": 1.0,
            "windows": "the mean over them; those that begin at 7 to 23 s left out, as the reference's rounding does",
            "short_clips": "doubled until they fill a window",
            "model": "not personalised",
            "weights": {"p835": p835, "p808": p808},
        }

    def prepare(self, film: Film) -> Float32[np.ndarray, " s"]:
        return film.sound(RATE)

    def measure(self, inputs: Sequence[Float32[np.ndarray, " _"]]) -> list[Measured]:
        p835, p808 = self.sessions
        ratings = [rate(p835, p808, windows(sound)) for sound in inputs]
        return [Measured({name: float(values.mean()) for name, values in clip.items()}) for clip in ratings]

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files of the P.835 and the P.808 network."""
        return files.locate("dnsmos_p835", self.p835), files.locate("dnsmos_p808", self.p808)

    @cached_property
    def sessions(self) -> tuple[Any, Any]:
        p835, p808 = self.paths
        return open_session(p835), open_session(p808)


def rate(p835: Any, p808: Any, sounds: Float32[np.ndarray, "n 144160"]) -> dict[str, Float[np.ndarray, " n"]]:
    """The four ratings of each window, from the two networks' onnxruntime sessions."""
    raw: dict[str, list[float]] = {name: [] for name in (*FITS, "dnsmos_p808")}
    for sound in sounds:  # one at a time: a batch is no faster (0.16 s of a core a window), and takes more memory
        mel = log_mel(sound[:-HOP])  # without the last hop, for 900 frames
        rated = [*p835.run(None, {"input_1": sound[None]})[0][0], p808.run(None, {"input_1": mel[None]})[0][0, 0]]
        for name, value in zip(raw, rated, strict=True):
            raw[name].append(float(value))
    return {name: np.polyval(FITS.get(name, (1, 0)), values) for name, values in raw.items()}


def windows(sound: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, "n 144160"]:
    """Windows of 9.01 s, one each second; a short sound is doubled until it fills one.

    The reference counts whole seconds only, so a second window comes with 11.0 s, not with 10.01. Of a sound of 17 s or
    more, repetitions included, it leaves out those that begin at 7 to 23 s: rounding makes them a sample too short.
    """
    sound = np.tile(sound, 2 ** max(0, ceil(log2(WINDOW / len(sound)))))
    count = int(len(sound) // RATE - SECONDS) + 1
    whole = [i for i in range(count) if int((i + SECONDS) * RATE) - i * RATE >= WINDOW]
    return np.stack([sound[i * RATE : i * RATE + WINDOW] for i in whole])


def log_mel(sound: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, "f 120"]:
    """The P.808 network's input: librosa's melspectrogram in decibels below its peak, 0 dB to 1 and -40 dB to 0."""
    padded = np.pad(sound, FFT // 2)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    power = np.abs(np.fft.rfft(pieces * hann)) ** 2
    decibels = 10 * np.log10(np.maximum(power @ slaney(RATE, FFT, BANDS).T, 1e-10))
    decibels -= decibels.max()
    return ((np.maximum(decibels, -80) + 40) / 40).astype(np.float32)
