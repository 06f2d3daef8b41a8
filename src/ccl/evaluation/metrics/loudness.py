"""How loud a sound is, how near to distortion, and how much of it is silence: what a mixing desk would show.

Loudness and true peak by ITU-R BS.1770 (`ccl.evaluation.dsp.loudness`), of a file's own channels. No weights.
C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ccl.evaluation.dsp.loudness import BLOCK, OVERSAMPLED, integrated, true_peak
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.media import MediaError, read_channels

WINDOW = 0.1  # seconds, that are silent or are not


class LUFS(Metric):
    """Loudness in LUFS, true peak in dB full scale, and the shares of clipped samples and of silent tenths of a second.

    None of them is quality: two systems whose loudness differs are not to be compared by ear, a true peak above 0 dBTP
    distorts where it is played, and a model that is silent does well at measures that only look for faults.

    Args:
        full_scale: a sample of at least this counts as clipped. Below 1, for a lossy codec moves samples that were cut.
        silence: a window of 0.1 s whose root mean square lies below this many dB full scale is silent.
        dual_mono: one channel counts twice, as it is played; 3.01 LU louder. ffmpeg's option of this name.
    """

    name = "lufs"
    usual = False
    columns = (
        Column("lufs", "LUFS", "", digits=1),
        Column("true_peak", "dBTP", "", digits=1),
        Column("clipped", "Clipped", "lower", percent=True),
        Column("silent", "Silent", "", digits=1, percent=True),
    )

    def __init__(self, full_scale: float = 0.99, silence: float = -60.0, dual_mono: bool = False) -> None:
        super().__init__()
        if not 0 < full_scale <= 1:
            raise ValueError(f"full_scale is {full_scale}; it must be above 0, and 1 at most")
        self.full_scale, self.silence, self.dual_mono = full_scale, silence, dual_mono

    def prepare(self, film: Film) -> dict[str, float]:
        """The numbers themselves; of a clip that is no file, of its one channel."""
        heard = film.audio
        try:
            sound, rate, names = read_channels(film.path) if film.path else (heard[None], film.clip.sample_rate, ())
        except MediaError as error:
            raise Unscorable(error.reason) from error
        if self.dual_mono and len(sound) == 1:
            sound, names = np.repeat(sound, 2, axis=0), ()
        try:
            lufs = integrated(sound, rate, names)
        except ValueError as error:
            raise Unscorable(str(error)) from error
        clipped = float((np.abs(sound) >= self.full_scale).mean())
        silent = silent_share(heard, film.clip.sample_rate, self.silence)
        return {"lufs": lufs, "true_peak": true_peak(sound, rate), "clipped": clipped, "silent": silent}

    def measure(self, inputs: Sequence[dict[str, float]]) -> list[Measured]:
        return [Measured(values) for values in inputs]

    def protocol(self) -> dict[str, Any]:
        return {
            "loudness": f"ITU-R BS.1770, blocks of {BLOCK:g} s, both gates; silence is -70 LUFS, as ffmpeg has it",
            "channels": "the file's own; one channel counts twice" if self.dual_mono else "the file's own",
            "true_peak": f"at {OVERSAMPLED} times the rate",
            "clipped": f"samples of any channel of {self.full_scale:g} or more",
            "silent": f"windows of {WINDOW:g} s of the mono mix below {self.silence:g} dB",
        }


def silent_share(sound: Float[np.ndarray, " s"], rate: int, threshold: float) -> float:
    """Share of the windows, the last one perhaps shorter, whose root mean square is below so many dB full scale."""
    size = round(WINDOW * rate)
    starts = np.arange(0, len(sound), size)
    power = np.add.reduceat(sound.astype(np.float64) ** 2, starts) / np.diff(np.append(starts, len(sound)))
    return float((power < 10 ** (threshold / 10)).mean())
