"""MOVA's dual-condition rule: towards what the other stream says, then towards the text (arXiv 2602.08794, Eq. 6).

v(0, 0) + s_B [v(0, c_B) - v(0, 0)] + s_T [v(c_T, c_B) - v(0, c_B)]: c_T is the text, c_B what the bridge brings.
It is the paper's; the published code guides over the text alone and refuses this one.
"""

from __future__ import annotations

from ccl.guidance.base import table
from ccl.guidance.rules import Apart
from ccl.types import ALONE, AV, NEGATIVE, POSITIVE, Pass, Route, View


class DualCFG(Apart):
    """Text and the other stream are guided apart, one upon the other: three passes, of which one sees both.

    c_B is switched off by the route, so this is for every interaction whose routes can be closed; what is then left
    (nothing, context tokens) is the interaction's own. Unlike UCG3, strengths of 1 leave the conditional alone, and
    equal strengths are UCG2: the pass without text falls out.

    Args:
        text: strength of the text, for each stream.
        modal: strength of the other stream, for each stream.
    """

    name = "dual_cfg"

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s_text, s_m = self.text.pair, self.modal.pair
        return table(
            (Pass(POSITIVE, View(route)), s_text),
            (Pass(NEGATIVE, View(route)), AV.zip(lambda text, modal: modal - text, s_text, s_m)),
            (Pass(NEGATIVE, ALONE), s_m.map(lambda modal: 1 - modal)),
        )
