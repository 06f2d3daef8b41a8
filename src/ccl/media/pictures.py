"""The pictures of a stream: upright, at their own times, or brought to a grid. T pictures, H x W pixels."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from statistics import median
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from ccl.grid import Grid
from ccl.media.container import SMALL
from ccl.media.errors import MediaError, check_size

CONSTANT = 25.0  # pictures a second that whoever wants a constant rate may make of a gap
USUAL = 25  # pictures a second of a stream of which nothing is known
WIDEST = 64  # that a pixel may be of its height, or high of its width
_RESIZE = Interpolation.AREA


def pixel_aspect(stream: Any, name: str) -> float:
    """Width of a stream's pixels over their height.

    Raises:
        MediaError: no picture has such pixels: it would be one line, or take all memory.
    """
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / WIDEST <= aspect <= WIDEST:
        claim = f"its pixels claim to be {aspect:.3g} times as wide as high"
        raise MediaError(name, f"{claim}; 1/{WIDEST} to {WIDEST} are read")
    return aspect


class Upright:
    """Turns decoded frames to upright RGB of one size: the largest centred part of their shape, resized.

    Args:
        frame: the first one.
        aspect: of a pixel.
        grid: whose size the pictures take; None keeps the first frame's own.
    """

    def __init__(self, frame: Any, aspect: float, grid: Grid | None) -> None:
        self.aspect, self.grid = aspect, grid
        self.threads: int | None = None
        self.converter = VideoReformatter()  # one for all frames: to set one up takes longer than to use it
        self.height = self.width = self.rows = self.columns = 0
        self._fit(frame)

    def _fit(self, frame: Any) -> None:
        """Learn a frame's shape: once, unless it changes within the file."""
        self.shape = frame.width, frame.height
        self.transposed, self.mirrored, self.flipped = orientation(frame)
        self.turned = self.transposed or self.mirrored or self.flipped
        width, height = max(1, round(frame.width * self.aspect)), frame.height
        if not self.height:
            upright = (width, height) if self.transposed else (height, width)
            self.height, self.width = (self.grid.height, self.grid.width) if self.grid else upright
        # As the frame lies, before it is turned.
        self.rows, self.columns = (self.width, self.height) if self.transposed else (self.height, self.width)
        scale = max(self.rows / height, self.columns / width)
        # Never smaller than wanted, so that a crop remains; a scaled picture is at most one pixel out of shape.
        self.full = max(self.columns, round(width * scale)), max(self.rows, round(height * scale))
        self.left, self.top = (self.full[0] - self.columns) // 2, (self.full[1] - self.rows) // 2
        self.threads = 1 if self.full[0] * self.full[1] < SMALL else None

    def empty(self, count: int) -> np.ndarray:
        """(T, H, W, 3), of which `__call__` fills one picture."""
        return np.empty((count, self.height, self.width, 3), np.uint8)

    @property
    def size(self) -> int:
        """Bytes of a picture."""
        return 3 * self.height * self.width

    def __call__(self, frame: Any, out: np.ndarray) -> None:
        """Write the frame to `out` (H, W, 3), without another copy on the way."""
        if (frame.width, frame.height) != self.shape:
            self._fit(frame)
        frame = self.converter.reformat(frame, *self.full, "rgb24", interpolation=_RESIZE, threads=self.threads)
        plane = frame.planes[0]
        line, at = plane.line_size, self.top * plane.line_size + 3 * self.left
        picture = np.ndarray((self.rows, self.columns, 3), np.uint8, plane, at, (line, 3, 1))
        if self.turned:
            picture = picture.transpose(1, 0, 2) if self.transposed else picture
            picture = picture[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]
        out[:] = picture


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Whether a frame is to be transposed, then mirrored left to right, then flipped top to bottom, to stand upright.

    A display matrix sends (x, y) to (a x + c y, b x + d y); turns between the quarters are read as the nearest one.
    """
    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            transposed = abs(b) + abs(c) > abs(a) + abs(d)
            return (transposed, c < 0, b < 0) if transposed else (transposed, a < 0, d < 0)
    return False, False, False


class Pictures:
    """Collects the pictures of a stream, at their own times or brought to the grid's rate, and all of one size."""

    def __init__(self, stream: Any, grid: Grid | None, name: str) -> None:
        self.stream, self.grid, self.name = stream, grid, name
        # All that is asked of the stream later, when its container may be closed.
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(USUAL)  # where a picture has no time
        self._unit = stream.time_base
        self._seconds = float(self._unit)
        self._guessed = None if stream.base_rate == stream.average_rate else stream.base_rate
        self._aspect = pixel_aspect(stream, name)
        tabled = "mp4" in stream.container.format.name.split(",") and stream.duration
        self._ends = ((stream.start_time or 0) + stream.duration) * stream.time_base if tabled else None
        self.count, self.decoded, self.done = 0, 0, False
        self._upright: Upright | None = None
        self._video: list[np.ndarray] = []  # one array of all pictures with a grid, else an array for each
        self._ticks: list[
            int
        ] = []  # times of the pictures as the file has them; fractions would cost as much as pixels
        self._timed: tuple[int, int] | None = None  # the newest picture with a time of its own: its number, its tick
        self._last: Any = None  # the newest frame; with a grid not yet known to be the nearest to anything

    @property
    def start(self) -> float | None:
        """Time of the first picture in the file, seconds; None before it came."""
        return self._ticks[0] * self._seconds if self._ticks else None

    @property
    def times(self) -> np.ndarray:
        """(T,) float64 seconds from the first picture, never falling."""
        ticks = np.maximum.accumulate(np.array(self._ticks, np.int64)) - self._ticks[0]
        return ticks * self._unit.numerator / self._unit.denominator

    @property
    def fps(self) -> float:
        """Pictures a second: their count over their duration."""
        return self.grid.fps if self.grid else float(self.decoded / self._duration)

    @property
    def video(self) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        if self.grid:
            return self._video[0][: self.count]
        video = np.empty((self.count, *self._video[0].shape[1:]), np.uint8)
        for index in range(self.count):  # one by one, so that there are never two of all
            video[index] = self._video[index][0]
            self._video[index] = video[index : index + 1]
        return video

    def add(self, frame: Any) -> None:
        if frame.is_corrupt:
            raise MediaError(self.name, f"its picture {self.decoded} is corrupt")
        tick = self._tick(frame)
        if self._upright is None:
            self._upright = Upright(frame, self._aspect, self.grid)
            self._video = [self._upright.empty(self.grid.frames)] if self.grid else []
        if self.grid is not None and self._last is not None:
            # A frame is the nearest one to all times before the middle between it and the next; but in a long hold
            # the next one is not shown before its tick.
            middle = (self._ticks[-1] + tick) / 2 * self._seconds
            self._emit(until=max(middle, tick * self._seconds - 0.5 / self.grid.fps))
        self.decoded += 1
        self._ticks.append(tick)
        self._last = frame
        if self.grid is None:
            self._check((tick - self._ticks[0]) * self._seconds)
            self._video.append(self._upright.empty(1))
            self._upright(frame, self._video[-1][0])
            self.count += 1

    def _tick(self, frame: Any) -> int:
        """The frame's own time, or where it has none, that of the last one with a time and their usual steps since."""
        if frame.pts is None:
            return self._usual()
        if self._timed is None and self._ticks:  # what came before the first time lies just before it
            moved = frame.pts - self._usual()
            self._ticks = [tick + moved for tick in self._ticks]
        self._timed = self.decoded, frame.pts
        return frame.pts

    def _usual(self) -> int:
        """The tick of a picture that follows the last one with a time at their usual steps."""
        since, at = self._timed or (0, 0)
        return at + round((self.decoded - since) / self.rate / self._unit)

    def finish(self, shorter: bool = False) -> None:
        """At the end of the file the last frame holds for its own duration.

        Args:
            shorter: whether the grid may have room for more.

        Raises:
            MediaError: there is no picture, or not enough for the grid.
        """
        if not self._ticks:
            raise MediaError(self.name, "its video stream holds no picture")
        if self.grid is None:
            self._check(float(self._duration))
            return
        if not self.done:
            available = floor(float(self._duration) * self.grid.fps + 0.01)
            self._emit(until=self._ticks[0] * self._seconds + (available - 0.5) / self.grid.fps)
        if not self.done and not (shorter and self.count):
            have = f"{self.count} of {self.grid.frames} frames at {self.grid.fps:g} fps"
            raise MediaError(self.name, f"too short ({have})")

    @property
    def _duration(self) -> Fraction:
        """Seconds from the first picture to the end of the last."""
        return (max(self._ticks) - self._ticks[0]) * self._unit + self._lasts()

    def _lasts(self) -> Fraction:
        """Seconds of the last picture: as the file says, else as long as a picture usually lasts in it."""
        steps = [later - tick for tick, later in zip(self._ticks, self._ticks[1:], strict=False) if later > tick]
        usually = median(steps) * self._unit if steps else 1 / Fraction(self.rate)
        said = (self._last.duration or 0) * self._unit
        if self._ends is not None:
            # An mp4's table has durations in the order of decoding; their sum, or the edit list, says where all end.
            shown = self._ends - max(self._ticks) * self._unit
            return next(seconds for seconds in (shown, said, usually) if seconds > 0)
        if said <= 0:
            return usually
        # Other containers need not say, and ffmpeg then takes a tick of the rate it guesses (1000 a second in what a
        # browser records), which is believed only where the file's pictures come so fast.
        guessed = self._guessed and abs(said - 1 / self._guessed) <= self._unit
        return usually if guessed and said < usually / 2 else said

    def _check(self, seconds: float) -> None:
        assert self._upright is not None
        check_size(self.name, "pictures", max(self.decoded, seconds * CONSTANT) * self._upright.size)

    def _emit(self, until: float) -> None:
        """Take the newest frame for all times before `until` that have none yet."""
        assert self.grid is not None and self._upright is not None
        first, start = self.count, self._ticks[0] * self._seconds
        while not self.done and start + self.count / self.grid.fps < until:
            if self.count == first:
                self._upright(self._last, self._video[0][first])
            else:
                self._video[0][self.count] = self._video[0][first]
            self.count += 1
            self.done = self.count == self.grid.frames
