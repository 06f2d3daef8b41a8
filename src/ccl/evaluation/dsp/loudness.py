"""Loudness and true peak of a sound as ITU-R BS.1770-5 defines them (EBU R 128, ffmpeg's ebur128).

Each channel goes through a filter that hears like a head (K-weighting), its power is taken in blocks of 400 ms every
100 ms, and blocks of silence are left out of the mean. Own code, for the filters of the pyloudnorm package are made by
other formulas (0.04 LU lower at 48 kHz, 0.13 at 16), and its last block may reach beyond the end.
C channels, S samples, N blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.signal import sosfilt

from ccl.media import resample

BLOCK, HOP = 0.4, 0.1  # seconds
LEAST_RATE = 8_000  # Hz: below, the shelf's corner comes near the highest frequency there is
ABSOLUTE, RELATIVE = -70.0, -10.0  # LUFS, and LU below the mean: the gates
OVERSAMPLED = 4
QUIETEST = -120.0  # dB full scale, for a peak of nothing
# What a channel counts in the sum, by ffmpeg's names: what stands behind the listener more, the subwoofer not at all.
BEHIND = frozenset({"BL", "BR", "BC", "SL", "SR", "TBL", "TBC", "TBR"})
_OFFSET = -0.691  # dB: that a sine of 997 Hz at full scale, in one channel, has -3.01 LUFS


def integrated(sound: Float[np.ndarray, "c s"], rate: int, names: Sequence[str] = ()) -> float:
    """LUFS of a whole sound; ABSOLUTE where no block is louder, as ffmpeg says of silence.

    Args:
        sound: full scale is 1.
        rate: Hz.
        names: of the channels, as ffmpeg has them; without them all count alike.

    Raises:
        ValueError: it is shorter than a block, or its rate lower than LEAST_RATE.
    """
    if rate < LEAST_RATE:
        raise ValueError(f"the sound has {rate:,} samples a second; loudness needs {LEAST_RATE:,}")
    if sound.shape[1] < round(BLOCK * rate):
        raise ValueError(f"the sound lasts {sound.shape[1] / rate:.2f} s; loudness needs {BLOCK} s")
    gains = np.array([gain(name) for name in names or ("M",) * len(sound)])
    power = gains @ block_powers(sosfilt(k_weighting(rate), sound.astype(np.float64)), rate)
    loud = power[power > power_of(ABSOLUTE)]
    if not len(loud):
        return ABSOLUTE
    loud = loud[loud > loud.mean() * 10 ** (RELATIVE / 10)]
    return _OFFSET + 10 * float(np.log10(loud.mean()))


def gain(channel: str) -> float:
    """Weight of a channel's power, by its name in ffmpeg."""
    return 0.0 if channel.startswith("LFE") else 1.41 if channel in BEHIND else 1.0


def power_of(lufs: float) -> float:
    """Weighted power of a loudness."""
    return 10 ** ((lufs - _OFFSET) / 10)


def block_powers(sound: Float[np.ndarray, "c s"], rate: int) -> Float[np.ndarray, "c n"]:
    """Mean square of each block that lies whole within the sound."""
    size = round(BLOCK * rate)
    starts = np.arange(0, sound.shape[1] - size + 1, round(HOP * rate))
    total = np.pad(np.cumsum(sound**2, axis=1), ((0, 0), (1, 0)))
    return (total[:, starts + size] - total[:, starts]) / size


def k_weighting(rate: int) -> Float[np.ndarray, "2 6"]:
    """The two filters as second-order sections: a shelf for the head, then a high pass.

    The standard prints coefficients for 48 kHz alone. These are of the analogue filters that give them (De Man,
    "Evaluation of Implementations of the EBU R128 Loudness Measurement", AES 2018), for any rate.
    """
    k, q = np.tan(np.pi * 1681.974450955533 / rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    below = 1 + k / q + k * k
    poles = [1.0, 2 * (k * k - 1) / below, (1 - k / q + k * k) / below]
    zeros = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]) / below
    shelf = [*zeros, *poles]
    k, q = np.tan(np.pi * 38.13547087602444 / rate), 0.5003270373238773
    below = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / below, (1 - k / q + k * k) / below]
    return np.array([shelf, high_pass])


def true_peak(sound: Float[np.ndarray, "c s"], rate: int) -> float:
    """dB full scale of the highest value between the samples, of any channel: at four times the rate (Annex 2)."""
    finer = (resample(channel, rate, OVERSAMPLED * rate) for channel in sound.astype(np.float32))
    peak = max(max(np.abs(channel).max() for channel in finer), np.abs(sound).max())
    return float(max(20 * np.log10(max(peak, 1e-20)), QUIETEST))
