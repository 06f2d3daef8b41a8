"""Whether the first picture has the colours that the prompt asks for: the talking world's own measure of obedience.

The wall is what the top corners show; the shirt is the colour, of those a shirt can have, that the lower half shows
most of. Each counts as 1 where the nearest colour is the one named in the prompt, else 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.rows import Row

# The world's paints, as data/world/scene.py has them (evaluation imports nothing of data; a test compares them).
PAINTS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 32),
    "white": (240, 240, 236),
    "grey": (140, 144, 142),
    "green": (48, 150, 66),
    "blue": (52, 98, 200),
    "yellow": (238, 208, 50),
}
SHIRTS = ("green", "blue", "yellow", "white", "black")
WALLS = ("blue", "green", "yellow", "grey")
_ASKED = re.compile(r"\b(?P<colour>\w+) (?P<thing>hair|shirt|wall|room)\b")
NONE_ASKED = "the prompt asks for no colour of a shirt or a wall"
_NEAR = 70.0  # distance in RGB at which a pixel still counts as painted so


class Colours(Metric):
    """Share of the asked-for colours, of wall and shirt, that the first picture shows (0 to 1)."""

    name = "colours"
    columns = (Column("colours", "Colours"),)

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "" if set(asked(row.prompt).values()) & PAINTS.keys() else NONE_ASKED

    def prepare(self, film: Film) -> float:
        """The share; all there is to it needs the first picture alone."""
        return kept(film.video[0], film.row.prompt)

    def measure(self, inputs: Sequence[float]) -> list[Measured]:
        return [Measured({"colours": share}) for share in inputs]

    def protocol(self) -> dict[str, Any]:
        return {"picture": "the first", "colours": "of wall and shirt, as the prompt names them; the nearest paint"}


def kept(picture: UInt8[np.ndarray, "h w 3"], prompt: str) -> float:
    """Share of the colours the prompt asks for that the picture shows.

    Raises:
        Unscorable: it asks for none that is known.
    """
    wanted, hair = asked(prompt), asked(prompt, "hair").get("hair", "")
    # Long hair reaches the shirt and must not be taken for it.
    shown = {"wall": wall(picture), "shirt": shirt(picture, but=() if hair == wanted.get("shirt") else (hair,))}
    right = [shown[thing] == colour for thing, colour in wanted.items() if colour in PAINTS]
    if not right:
        raise Unscorable(NONE_ASKED)
    return float(np.mean(right))


def asked(prompt: str, *things: str) -> dict[str, str]:
    """The colours a prompt asks for, by thing: those of wall and shirt, or of these things."""
    found = {("wall" if m["thing"] == "room" else m["thing"]): m["colour"] for m in _ASKED.finditer(prompt)}
    return {thing: colour for thing, colour in found.items() if thing in (things or ("wall", "shirt"))}


def wall(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """The wall colour nearest to the top corners."""
    height, width = max(1, picture.shape[0] // 6), max(1, picture.shape[1] // 8)
    corners = np.concatenate([picture[:height, :width].reshape(-1, 3), picture[:height, -width:].reshape(-1, 3)])
    shown = np.median(corners.astype(np.float32), axis=0)
    return min(WALLS, key=lambda name: float(np.linalg.norm(shown - pale(name))))


def shirt(picture: UInt8[np.ndarray, "h w 3"], but: tuple[str, ...] = ()) -> str:
    """The shirt colour that the lower half shows most of, those of `but` left out."""
    lower = picture[picture.shape[0] // 2 :].reshape(-1, 3).astype(np.float32)
    choices = [name for name in SHIRTS if name not in but]
    return max(choices, key=lambda name: int((np.linalg.norm(lower - PAINTS[name], axis=1) < _NEAR).sum()))


def pale(name: str) -> Float[np.ndarray, " 3"]:
    """A wall is painted in a paler shade of its colour."""
    return np.asarray(PAINTS[name], np.float64) * 0.45 + 255 * 0.55 * 0.9
