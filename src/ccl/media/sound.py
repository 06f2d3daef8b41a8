"""The sound of a stream: mono samples at their own times. S samples, C channels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float32

from ccl.media.errors import MediaError, check_size
from ccl.media.resampling import resample

RATES = (1_000, 768_000)  # samples a second that a sound may have
JITTER = 0.01  # seconds: timestamps that are so far off are coarse, and no gap
MADE_UP = 1.0  # seconds: the most by which timestamps between those in the file are wrong after a change of rate
STRETCHED = 0.05  # of its length: a block that claims to last so much more or less does so at another rate
# Of the power that channels would have if they had nothing in common, what a mix must keep: stereo with a correlation
# below -0.9 is antiphase, which no recording means to be.
LEAST_KEPT = 0.1
QUIET = 0.1  # of the mean power of a sound: what is below may be noise of any phase
_TYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


class _Run:
    """Samples of one rate without a gap.

    Args:
        rate: Hz.
        at: place of the first, in samples of this rate from time 0 of the file.
    """

    def __init__(self, rate: int, at: int) -> None:
        self.rate, self.at = rate, at
        self.chunks: list[np.ndarray] = []
        self.end = at

    def add(self, samples: np.ndarray) -> None:
        self.chunks.append(samples)
        self.end += len(samples)


class Sound:
    """Collects mono samples by timestamp, each block at its own rate.

    Args:
        stream: to decode.
        name: of the file.
        to: Hz at which the sound will be wanted; None is its own.
    """

    def __init__(self, stream: Any, name: str, to: int | None = None) -> None:
        self.stream, self.name, self.to = stream, name, to
        self.rate = self._began = int(stream.codec_context.sample_rate or 0)
        self._unit = float(stream.time_base)
        self.runs: list[_Run] = []
        self.done = False
        # Where blocks of a later rate are timed as if they had the first one: by how much timestamps are ahead of the
        # samples, and at which one the newest block ends by its own claim (None: as its samples do).
        self._ahead = 0.0
        self._claimed: float | None = None
        self._powers: list[
            tuple[int, float, float]
        ] = []  # of each block: its samples, power of the mix, of all channels
        if self.rate:
            self._check_rate(self.rate)

    @property
    def end(self) -> float:
        """Seconds at which the newest sample ends."""
        return self.runs[-1].end / self.runs[-1].rate if self.runs else 0.0

    def add(self, frame: Any) -> None:
        rate = frame.sample_rate
        self._check_rate(rate)
        time = self.end + self._ahead if frame.pts is None else frame.pts * self._unit
        lasts, said = frame.samples / rate, (frame.duration or 0) * self._unit
        off = abs(said - lasts) > max(STRETCHED * lasts, 1.5 * self._unit)
        made_up = said > 0 and off and rate != self._began
        follows = bool(self.runs) and self._follows(time, made_up)
        run = self.runs[-1] if self.runs else None
        if run is None or rate != run.rate or not follows:
            run = _Run(rate, round((self.end if follows else time) * rate))
            self.runs.append(run)
            self.rate = max(rate, self.rate if len(self.runs) > 1 else 0)
        self._claimed = time + said if made_up else None
        run.add(self._mono(frame))
        self._check_length(self.runs[0].at / self.runs[0].rate)

    def _follows(self, time: float, made_up: bool) -> bool:
        """Whether a block of that timestamp follows the newest one without a gap.

        A demuxer of bare blocks, or that of a broadcast between its own timestamps, makes times up at the rate with
        which the sound began.
        """
        for ahead in (self._ahead, 0.0):
            if abs(time - ahead - self.end) <= JITTER:
                self._ahead = ahead
                return True
        claimed = self._claimed is not None and abs(time - self._claimed) <= JITTER
        follows = claimed or (made_up and abs(time - self.end) <= MADE_UP)
        self._ahead = time - self.end if follows else 0.0
        return follows

    def finish(self) -> None:
        """MediaError where there was no sound, or its channels cancel each other out."""
        if not self.runs:
            raise MediaError(self.name, "its audio stream holds no sound")
        if self._cancels():
            raise MediaError(self.name, "its channels cancel each other out in mono (antiphase)")

    def from_time(self, start: float | None, sample_rate: int | None = None) -> Float32[np.ndarray, " s"]:
        """Samples at `sample_rate`, or the highest of its own, the first one at `start` (None: where the sound begins).

        Args:
            start: seconds, in the file's time.
            sample_rate: Hz.
        """
        begin = self.runs[0].at / self.runs[0].rate if start is None else start
        self._check_length(begin)  # a late beginning is silence, and counts
        first = round(begin * self.rate)
        out = np.zeros(max(0, round(max(run.end / run.rate for run in self.runs) * self.rate) - first), np.float32)
        for run in self.runs:
            samples = resample(np.concatenate(run.chunks), run.rate, self.rate)
            at = round(run.at / run.rate * self.rate) - first
            samples = samples[max(0, -at) : max(0, len(out) - at)]
            out[max(0, at) : max(0, at) + len(samples)] = samples
        # A lossy codec overshoots what it was given.
        return np.clip(resample(out, self.rate, sample_rate or self.rate), -1, 1)

    def _check_rate(self, rate: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            low, high = (f"{limit:,}" for limit in RATES)
            raise MediaError(self.name, f"its sound claims {rate:,} samples a second; {low} to {high} are read")

    def _check_length(self, begin: float) -> None:
        # Whoever wants it at a rate of his own gets up to 48 kHz.
        most = max(self.rate, self.to or 48_000)
        check_size(self.name, "sound", 4 * (self.end - begin) * most)

    def _mono(self, frame: Any) -> Float32[np.ndarray, " s"]:
        data = channels(frame)
        if len(data) == 1:
            return data[0]
        mix = weights(frame.layout.name, len(data))
        if mix is None:
            raise MediaError(self.name, f"its {len(data)} channels have no known mix to mono ({frame.layout.name})")
        mono = mix @ data
        apart = sum(float(w**2 * np.vdot(one, one)) for w, one in zip(mix, data, strict=True))
        self._powers.append((frame.samples, float(np.vdot(mono, mono)), apart))
        return mono

    def _cancels(self) -> bool:
        """Whether of some second that is not much quieter than the rest, or of a shorter sound, too little is kept."""
        if not self._powers:
            return False
        samples, kept, apart = np.array(self._powers).T
        middle = np.cumsum(samples) - samples / 2
        last = max(samples.sum() // self.rate - 1, 0)  # which may be longer
        second = np.minimum(middle // self.rate, last).astype(int)
        length, kept, apart = (np.bincount(second, one) for one in (samples, kept, apart))
        loud = apart * length.sum() > QUIET * apart.sum() * length
        return bool((loud & (kept < LEAST_KEPT * apart)).any())


def channels(frame: Any) -> Float32[np.ndarray, "c s"]:
    """A frame's samples in [-1, 1]."""
    count = frame.layout.nb_channels
    kind: Any = _TYPES[frame.format.name.removesuffix("p")]
    # Not by `to_ndarray`, which reads one plane too many of eight.
    if frame.format.is_planar and count == 1:  # as we write it, without detours
        data = np.frombuffer(frame.planes[0], kind, frame.samples)[None]
    elif frame.format.is_planar:
        data = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in frame.planes[:count]])
    else:
        data = np.frombuffer(frame.planes[0], kind, frame.samples * count).reshape(-1, count).T
    if kind is np.float32:  # of most codecs
        return data
    if kind is np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if np.issubdtype(kind, np.integer):
        return data.astype(np.float32) / -float(np.iinfo(kind).min)
    return data.astype(np.float32, copy=False)


@lru_cache(maxsize=64)
def weights(layout: str, count: int) -> Float32[np.ndarray, " c"] | None:
    """Of each channel in the mono mix, as ffmpeg's `-ac 1` has them; None where it has none.

    Read off libswresample itself: it mixes a sound in which each channel has one sample to itself.
    """
    alone = av.AudioFrame.from_ndarray(np.eye(count, dtype=np.float32).reshape(1, -1), format="flt", layout=layout)
    alone.sample_rate = 48_000
    mixer: Any = av.AudioResampler(format="flt", layout="mono")
    try:
        mixed = [
            np.frombuffer(f.planes[0], np.float32, f.samples) for f in mixer.resample(alone) + mixer.resample(None)
        ]
    except av.error.FFmpegError:
        return None
    mix = np.concatenate(mixed)
    return mix / max(np.float32(1), np.abs(mix).sum())
