"""Pictures of the talking world: flat shapes with soft edges, drawn by signed distances in numpy.

Lengths are in units of 1/48 of the shorter side, x to the right and y down, the middle of the picture at (24, 24)
whatever its shape, so that any grid shows the same scene. T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ccl.data.world.script import Event, Person
from ccl.grid import Grid

# The inside of the mouth: the only thing in the world with more red and more blue than green (metrics/mouth.py).
MOUTH = (205, 0, 150)

SKIN = (236, 190, 150)
DARK = (40, 36, 44)
TROUSERS = (62, 62, 70)
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 32),
    "brown": (118, 70, 32),
    "blond": (232, 196, 84),
    "white": (240, 240, 236),
    "grey": (140, 144, 142),
    "green": (48, 150, 66),
    "blue": (52, 98, 200),
    "yellow": (238, 208, 50),
    "orange": (238, 122, 24),
}
_PALE = 0.55  # walls are mixed with white by this much, so that a shirt stands out
Colour = Sequence[int] | np.ndarray
# Pixels from inside to outside of a shape. One would do against jagged edges; three spare a codec with 16 numbers a
# block of 8 x 8 x 4 pixels what it cannot keep (24 dB with one, 29 with three).
_EDGE = 3.0
Number = float | int | np.ndarray


def wall(colour: str) -> np.ndarray:
    """A wall's colour, RGB in 0..255: the named colour, paler."""
    return np.asarray(COLOURS[colour], np.float32) * (1 - _PALE) + 255 * _PALE * 0.9


class Canvas:
    """T pictures painted one shape after another.

    A coordinate is a number, the same in all frames, or (T,) numbers. A shape that stands still is painted once and
    only where it lies; shapes painted before the first that moves cost one frame in all.

    Args:
        grid: of the clip.
        background: RGB in 0..255.
    """

    def __init__(self, grid: Grid, background: Colour) -> None:
        self.frames = grid.frames
        self.unit = min(grid.height, grid.width) / 48
        self.x = ((np.arange(grid.width, dtype=np.float32) + 0.5) - grid.width / 2) / self.unit + 24
        self.y = ((np.arange(grid.height, dtype=np.float32) + 0.5) - grid.height / 2) / self.unit + 24
        self.pixels = np.empty((1, grid.height, grid.width, 3), np.float32)
        self.pixels[:] = np.asarray(background, np.float32)

    def ellipse(self, colour: Colour, x: Number, y: Number, rx: Number, ry: Number) -> None:
        """An ellipse with centre (x, y) and half-axes rx, ry."""
        rows, columns, (x, y, rx, ry) = self._window((x, y, rx, ry), reach=(rx, ry))
        px, py = (self.x[columns] - x) / rx, (self.y[rows][:, None] - y) / ry
        near = np.sqrt(px**2 + py**2)
        slope = np.sqrt((px / rx) ** 2 + (py / ry) ** 2)
        self._paint(colour, rows, columns, near * (near - 1) / np.maximum(slope, 1e-6))

    def box(self, colour: Colour, x: Number, y: Number, rx: Number, ry: Number, round_by: float | int = 0) -> None:
        """A box with centre (x, y), half-sides rx, ry and rounded corners."""
        rows, columns, (x, y, rx, ry) = self._window((x, y, rx, ry), reach=(rx, ry))
        dx = np.abs(self.x[columns] - x) - (rx - round_by)
        dy = np.abs(self.y[rows][:, None] - y) - (ry - round_by)
        outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
        self._paint(colour, rows, columns, outside + np.minimum(np.maximum(dx, dy), 0) - round_by)

    def line(self, colour: Colour, start: tuple[Number, Number], end: tuple[Number, Number], r: float | int) -> None:
        """A stroke from start to end, of half-width r."""
        (x0, y0), (x1, y1) = start, end
        middle = ((x0 + x1) / 2, (y0 + y1) / 2)
        reach = (np.abs(np.subtract(x1, x0)) / 2 + r, np.abs(np.subtract(y1, y0)) / 2 + r)
        rows, columns, _ = self._window((*middle, 1.0, 1.0), reach=reach)
        x0, y0, x1, y1 = (_column(value) for value in (x0, y0, x1, y1))
        ux, uy = x1 - x0, y1 - y0
        px, py = self.x[columns] - x0, self.y[rows][:, None] - y0
        along = np.clip((px * ux + py * uy) / np.maximum(ux**2 + uy**2, 1e-6), 0, 1)
        self._paint(colour, rows, columns, np.sqrt((px - along * ux) ** 2 + (py - along * uy) ** 2) - r)

    def result(self) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        pixels = np.clip(self.pixels + 0.5, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(pixels, (self.frames, *pixels.shape[1:])))

    def _window(self, box: Sequence[Number], reach: tuple[Number, Number]) -> tuple[slice, slice, list[np.ndarray]]:
        """The rows and columns a shape ever touches, and its numbers shaped (T or 1, 1, 1)."""
        margin = _EDGE / self.unit
        columns, rows = (
            slice(
                int(np.searchsorted(axis, np.min(np.subtract(centre, half)) - margin)),
                int(np.searchsorted(axis, np.max(np.add(centre, half)) + margin)),
            )
            for axis, centre, half in ((self.x, box[0], reach[0]), (self.y, box[1], reach[1]))
        )
        return rows, columns, [_column(value) for value in box]

    def _paint(self, colour: Colour, rows: slice, columns: slice, distance: np.ndarray) -> None:
        if len(distance) > len(self.pixels):
            self.pixels = np.repeat(self.pixels, self.frames, axis=0)
        cover = np.clip(0.5 - distance * self.unit / _EDGE, 0, 1).astype(np.float32)[..., None]
        region = self.pixels[:, rows, columns]
        region += cover * (np.asarray(colour, np.float32) - region)


def _column(value: Number) -> np.ndarray:
    return np.asarray(value, np.float32).reshape(-1, 1, 1)


def portrait(person: Person, mouth: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A head and shoulders that keep still, (T, H, W, 3) uint8. `mouth` is (T, 2): how open and how wide, in 0..1."""
    canvas = Canvas(grid, wall(person.wall))
    x, y = 24 + rng.uniform(-0.5, 0.5), 22 + rng.uniform(-0.5, 0.5)
    hair, shirt = COLOURS[person.hair], COLOURS[person.shirt]
    if person.gender == "woman":
        canvas.box(hair, x, y + 5, 15.5, 15.5, 7)
    canvas.box(shirt, x, y + 31, 20, 12, 9)
    canvas.box(SKIN, x, y + 17, 4.5, 6)
    canvas.ellipse(hair, x, y - 4, 15.5, 15.5)
    canvas.ellipse(SKIN, x, y + 1, 12.5, 15)
    canvas.box(hair, x, y - 12.5, 10.5, 3.6, 3.5)
    for side in (-1, 1):
        canvas.ellipse(DARK, x + side * 5.2, y - 2.5, 1.7, 2.0)
    _mouth(canvas, x, y + 8.2, mouth, half_width=7.0, half_height=4.6)
    return canvas.result()


def figure(person: Person, mouth: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A large-headed whole figure that moves through a room, (T, H, W, 3) uint8. `mouth` as for `portrait`."""
    background = wall(person.wall)
    canvas = Canvas(grid, background)
    canvas.box(background * 0.72, 24, 62, 400, 20)  # the floor
    seconds = np.arange(grid.frames) / grid.fps
    x, lift, step = _motion(person.motion, seconds, rng)
    hair, shirt = COLOURS[person.hair], COLOURS[person.shirt]
    y = 17.5 + rng.uniform(-1, 1) - lift
    hip, foot = y + 21.5, y + 27.5
    for side in (-1, 1):
        canvas.line(TROUSERS, (x + side * 2.6, hip), (x + side * (2.6 + 2.2 * step * side), foot), 1.9)
        canvas.line(shirt, (x + side * 5, y + 14), (x + side * 8.5 - 1.5 * step, y + 19), 1.6)
    if person.gender == "woman":
        canvas.box(hair, x, y + 3, 11.5, 10.5, 5)
    canvas.box(shirt, x, y + 17, 6, 6, 2.5)
    canvas.ellipse(hair, x, y - 2.5, 11.5, 11.0)
    canvas.ellipse(SKIN, x, y + 1, 9.6, 11)
    canvas.box(hair, x, y - 8.8, 7.8, 2.6, 2.5)
    for side in (-1, 1):
        canvas.ellipse(DARK, x + side * 4, y - 1.8, 1.3, 1.6)
    _mouth(canvas, x, y + 6, mouth, half_width=5.4, half_height=4.2)
    return canvas.result()


def _mouth(canvas: Canvas, x: Number, y: Number, mouth: np.ndarray, half_width: float, half_height: float) -> None:
    """An ellipse that is a thin line where the lips meet."""
    is_open, width = mouth[:, 0], mouth[:, 1]
    canvas.ellipse(MOUTH, x, y, half_width * (0.7 + 0.3 * width), 0.55 + (half_height - 0.55) * is_open)


def _motion(motion: str, t: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a figure is: x (T,), height above the floor (T,) and the swing of its steps (T,) in -1..1."""
    turn = 2 * np.pi * (rng.uniform(0.9, 1.1) * t + rng.uniform())
    still = np.zeros_like(t)
    if motion.startswith("walks"):
        distance, start = rng.uniform(12, 18), rng.uniform(0, 1)
        path = 24 - distance / 2 + (start - 0.5) * (20 - distance) + distance * t / max(t[-1], 1e-6)
        x = 48 - path if motion.endswith("left") else path
        return x, 0.5 * np.abs(np.sin(turn)), np.sin(turn)
    centre = rng.uniform(16, 32)
    if motion.startswith("sways"):
        return centre + 4 * np.sin(turn / 1.6), still, still
    return centre + still, 4 * np.abs(np.sin(turn)), still


def happening(event: Event, times: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A ball that lands, a drum that is struck or a bell that rings at `times` in seconds, (T, H, W, 3) uint8."""
    background = wall(event.wall)
    canvas = Canvas(grid, background)
    canvas.box(background * 0.72, 24, 62, 400, 20)
    t = np.arange(grid.frames) / grid.fps + 0.5 / grid.fps
    x, colour = rng.uniform(18, 30), COLOURS[event.colour]
    if event.kind == "ball":
        canvas.ellipse(colour, x, 38 - bounce(t, times), 6.5, 6.5)
        return canvas.result()
    since = t[:, None] - times[None]
    if event.kind == "drum":
        # The stick falls within 0.24 s, meets the skin at the stroke and rises again.
        height = 1 - np.exp(-((since / 0.12) ** 2)).max(1)
        canvas.box(colour, x, 36, 12, 8, 3)
        canvas.ellipse(DARK, x, 29, 12, 3)
        canvas.ellipse((214, 190, 150), x, 29, 11, 2.4)
        canvas.line(COLOURS["brown"], (x + 16, 14 - 2 * height), (x + 2, 28 - 14 * height), 1.2)
        return canvas.result()
    # The clapper of a bell meets its side at each stroke, left and right in turn.
    side = np.where(np.arange(len(times)) % 2, -1.0, 1.0)
    swing = (side * np.exp(-((since / 0.16) ** 2))).sum(1)
    canvas.line(DARK, (x, 4), (x, 12), 0.9)
    canvas.line(DARK, (x, 16), (x + 7 * swing, 37), 2.0)
    shift = -2.0 * swing
    canvas.ellipse(colour, x + shift, 20, 9, 9)
    canvas.box(colour, x + shift, 27, 9, 7, 1)
    canvas.box(colour, x + shift, 33, 12, 1.8, 1.5)
    canvas.ellipse(DARK, x + 8 * swing, 38, 2.4, 2.4)
    return canvas.result()


def bounce(t: np.ndarray, times: np.ndarray, top: float = 28.0, gravity: float = 260.0) -> np.ndarray:
    """Height of a ball that is held at `top`, let go, lands at `times` and rests after the last of them."""
    height = np.minimum(0.5 * gravity * np.maximum(times[0] - t, 0) ** 2, top)
    for start, end in pairwise(times):
        flight = np.clip(t, start, end)
        height = height + 0.5 * gravity * (flight - start) * (end - flight)
    return height
