"""Films and sounds as other programs leave them, built here, and what is asked of what was read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ccl.grid import Grid
from ccl.media import MediaError, read_natural

DATA = Path(os.environ.get("CCL_TEST_DATA", "none"))
CASES = DATA / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="CCL_TEST_DATA names no folder with cases")
GRID = Grid(frames=81, fps=16.0, height=96, width=128, sample_rate=16_000)


def film(
    path: Path,
    *,
    times: Sequence[int] | None = range(0, 400, 40),
    lasts: Sequence[int] | None = None,
    codec: str = "ffv1",
) -> Path:
    """Pictures of 32 x 24 that get brighter, by 10 each, at times in ms; `lasts` is how long each one is shown."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "bgr0" if codec == "ffv1" else "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 10 * index % 256, np.uint8), format="rgb24")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            for packet in video.encode(frame):
                if lasts:
                    packet.duration = round(lasts[index] / 1000 / packet.time_base)
                container.mux(packet)
        container.mux(video.encode(None))
    return path


def sound(path: Path, samples: np.ndarray, layout: str = "mono", rate: int = 48_000, codec: str = "pcm_s16le") -> Path:
    """A file of one sound, (S, C) float."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        kind = stream.codec_context.format.name
        data = np.round(samples * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in av.AudioResampler(format=kind, layout=layout, rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def tone(hertz: float, seconds: float = 1.0, rate: int = 48_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def pitch(audio: np.ndarray, rate: int, at: float) -> float:
    part = audio[int(at * rate) : int((at + 0.1) * rate)]
    return float(np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part)), 65_536))) * rate / 65_536)


def beeps(audio: np.ndarray, rate: int) -> list[float]:
    """Seconds at which it becomes loud."""
    width = int(rate * 0.004)
    level = np.convolve(np.abs(audio), np.ones(width) / width, "same")
    loud = level > 0.25 * max(level.max(), 1e-3)
    found: list[float] = []
    for i in np.flatnonzero(loud[1:] & ~loud[:-1]) / rate:
        if not found or i - found[-1] > 0.5:
            found.append(round(float(i), 2))
    return found


def refusal(path: Path) -> str:
    with pytest.raises(MediaError) as error:
        read_natural(path)
    assert str(error.value).startswith(f"{path}: ")
    return error.value.reason
