"""Ovi's rule: guidance over the text, away from a network without one of its blocks (arXiv 2510.01284)."""

from __future__ import annotations

from ccl import arguments
from ccl.guidance.base import table
from ccl.guidance.rules import TextCFG
from ccl.types import AV, NEGATIVE, POSITIVE, Pass, Route, Scale, Skip, View


class OviCFG(TextCFG):
    """Guidance over the text alone, whose negative pass leaves out a block of both streams, its fusion included.

    Rows may give the sound a negative prompt of its own (`negative_audio`), as Ovi's do.

    Args:
        scale: strength for each stream.
        layer: the block that is left out, counted from 0.
    """

    def __init__(self, scale: Scale | None = None, layer: int = 11) -> None:
        super().__init__(scale)
        arguments.number("layer", layer, 0, whole=True)
        self.layer = layer

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s, without = self.scale.pair, frozenset({Skip("block", frozenset({self.layer}))})
        return table(
            (Pass(POSITIVE, View(route)), s),
            (Pass(NEGATIVE, View(route, skip=without)), s.map(lambda x: 1 - x)),
        )
