"""The guidance rules of the paper and its baselines, each a row of passes (CCL Sec. 4.3).

s is a scale for each stream. "task" is the generation task's own route; closed means gate 0 for gated attention
(Eq. 1) and context tokens alone for CCA (Sec. 4.2). A closed pass gives both streams' unconditional prediction in one
joint forward, and is exactly the training task t/i2v + t2a. A scale of 1 in both streams leaves the conditional alone.
"""

from __future__ import annotations

from ccl import arguments
from ccl.guidance.base import Guidance, table
from ccl.types import ALONE, AV, NEGATIVE, POSITIVE, Pass, Route, Scale, View


def strength(name: str, given: Scale | None, usual: Scale) -> Scale:
    """What is given, or the usual; ValueError where it is no Scale."""
    if given is not None:
        arguments.instance(name, given, Scale, "a ccl.types.Scale(video, audio)")
    return usual if given is None else given


class NoGuidance(Guidance):
    """The conditional prediction alone: one forward a step."""

    name = "none"

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return table((Pass(POSITIVE, View(route)), AV(1.0, 1.0)))


class TextCFG(Guidance):
    """Classifier-free guidance over the text alone (the paper's baseline; Ovi): both passes take the task's route.

    Args:
        scale: strength for each stream.
    """

    name = "text_cfg"

    def __init__(self, scale: Scale | None = None) -> None:
        self.scale = strength("scale", scale, Scale())

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s = self.scale.pair
        return table((Pass(POSITIVE, View(route)), s), (Pass(NEGATIVE, View(route)), s.map(lambda x: 1 - x)))


class UCG2(Guidance):
    """Unconditional Context Guidance, two passes (Eq. 5): text and the other stream are guided together.

    Args:
        scale: strength for each stream.
    """

    name = "ucg2"

    def __init__(self, scale: Scale | None = None) -> None:
        self.scale = strength("scale", scale, Scale())

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s = self.scale.pair
        return table((Pass(POSITIVE, View(route)), s), (Pass(NEGATIVE, ALONE), s.map(lambda x: 1 - x)))


class Apart(Guidance):
    """A rule that guides text and the other stream apart, each with a strength of its own.

    Args:
        text: strength of the text, for each stream.
        modal: strength of the other stream, for each stream.
    """

    def __init__(self, text: Scale | None = None, modal: Scale | None = None) -> None:
        self.text = strength("text", text, Scale())
        self.modal = strength("modal", modal, Scale(2.0, 2.0))


class UCG3(Apart):
    """Unconditional Context Guidance, three passes (Eq. 6): text and the other stream are guided apart.

    U + s_text (T - U) + s_m (M - U), where U is neither, T the text alone and M the other stream alone. No pass sees
    both, so s_text = s_m = 1 gives T + M - U, not the conditional prediction.

    Args:
        text: strength of the text, for each stream.
        modal: strength of the other stream, for each stream.
    """

    name = "ucg3"
    conditional_at_one = False

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s_text, s_m = self.text.pair, self.modal.pair
        return table(
            (Pass(NEGATIVE, ALONE), AV.zip(lambda a, b: 1 - a - b, s_text, s_m)),
            (Pass(POSITIVE, ALONE), s_text),
            (Pass(NEGATIVE, View(route)), s_m),
        )


class MultiModalCFG(UCG3):
    """Eq. 2, the multi-modal guidance of gated models: the table of Eq. 6, where closed means a gate of 0.

    Args:
        text: strength of the text, for each stream.
        modal: strength of the other stream, for each stream.
    """

    name = "multimodal_cfg"
