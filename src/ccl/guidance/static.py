"""Rules that lead away from a partner that says nothing: silence, a picture that stands still (Harmony's SyncCFG).

The unconditional prediction of a stream comes from its driven task: the other stream is given, clean at t = 0, and is
null; its own passes do not see the stream that it drives. So each stream has an unconditional pass of its own, three
passes in all, on routes that were trained (a2v, v2a). A scale of 1 in both streams leaves the conditional alone.
"""

from __future__ import annotations

from typing import ClassVar

from ccl.guidance.base import Guidance, table
from ccl.guidance.rules import strength
from ccl.types import AV, NEGATIVE, POSITIVE, Pass, Route, Scale, Text, View


class SyncCFG(Guidance):
    """Harmony's rule: v_driven(null) + s (v_joint - v_driven(null)), the same prompt in all passes.

    The text is not guided: what is led away from differs in the other stream alone.

    Args:
        scale: strength of the other stream, for each stream.
    """

    name = "synccfg"
    away_from: ClassVar[AV[Text]] = POSITIVE

    def __init__(self, scale: Scale | None = None) -> None:
        self.scale = strength("scale", scale, Scale())

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        s, rest = self.scale.pair, self.scale.pair.map(lambda x: 1 - x)
        beside_silence = Pass(self.away_from, View(Route(a2v=route.a2v, v2a=False)), null=AV(False, route.a2v))
        beside_a_still = Pass(self.away_from, View(Route(a2v=False, v2a=route.v2a)), null=AV(route.v2a, False))
        return table(
            (Pass(POSITIVE, View(route)), s),
            (beside_silence, AV(rest.video, 0.0)),
            (beside_a_still, AV(0.0, rest.audio)),
        )


class UCGStatic(SyncCFG):
    """UCG in two passes (Eq. 5), whose unconditional is SyncCFG's instead of context tokens alone (CCL Table 2).

    Text and the other stream are guided together: the driven passes read the negative prompt.

    Args:
        scale: strength for each stream.
    """

    name = "ucg_static"
    away_from = NEGATIVE
