"""LTX-2's rule: four terms on predictions of the clean clip, whose spread is then drawn back (arXiv 2601.03233).

p = c + (s - 1) (c - without text) + p_s (c - perturbed) + (m - 1) (c - without the other stream), and what comes out is
p (phi std(c) / std(p) + 1 - phi). The perturbed pass leaves out the self-attention of one block, where each token keeps
its own value o(v). Clean is x - t v; the rule on velocities would be another one, as only the sum is linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccl import arguments
from ccl.guidance.base import Guidance, conditional, table
from ccl.guidance.rules import strength
from ccl.types import ALONE, AV, NEGATIVE, POSITIVE, STREAMS, Pass, Route, Scale, Skip, View


class LTX2Guidance(Guidance):
    """Text, self-attention and the other stream are each led away from, from the conditional prediction.

    std is taken of each clip, as diffusers has it; ltx-core takes it over the whole batch, where a clip would depend on
    its neighbours. Frames that are given are among what it is taken of, as they are.

    Args:
        text: strength of the text, for each stream, at least 1, which is none.
        perturbed: strength of the self-attention that is left out, for each stream, at least 0, which is none.
        modal: strength of the other stream, for each stream, at least 1, which is none.
        rescale: phi, for each stream: 0 leaves the spread as it comes, 1 makes it that of the conditional prediction.
        layer: the block of which self-attention is left out, counted from 0; 29 of LTX-2's 48, 28 in LTX-2.3.

    Raises:
        ValueError: a strength is below the one that is none, where the conditional prediction might weigh nothing.
    """

    conditional_at_one = False

    def __init__(
        self,
        text: Scale | None = None,
        perturbed: Scale | None = None,
        modal: Scale | None = None,
        rescale: Scale | None = None,
        layer: int = 29,
    ) -> None:
        self.text = strength("text", text, Scale(3.0, 7.0))
        self.perturbed = strength("perturbed", perturbed, Scale(1.0, 1.0))
        self.modal = strength("modal", modal, Scale(3.0, 3.0))
        self.rescale = strength("rescale", rescale, Scale(0.7, 0.7))
        self.layer = layer
        for stream in STREAMS:
            for name, *bounds in (("text", 1), ("perturbed", 0), ("modal", 1), ("rescale", 0, 1)):
                arguments.number(f"{name}.{stream}", getattr(getattr(self, name), stream), *bounds)
        arguments.number("layer", layer, 0, whole=True)

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        without = View(route, skip=frozenset({Skip("self_attention", frozenset({self.layer}))}))
        away = (
            (Pass(NEGATIVE, View(route)), self.text.pair.map(lambda s: 1 - s)),
            (Pass(POSITIVE, without), self.perturbed.pair.map(lambda s: -s)),
            (Pass(POSITIVE, ALONE), self.modal.pair.map(lambda s: 1 - s)),
        )
        whole = AV.zip(lambda *weights: 1 - sum(weights), *(weights for _, weights in away))
        return table((Pass(POSITIVE, View(route)), whole), *away)

    def combine(
        self, v: Mapping[Pass, AV[Any]], weights: Mapping[Pass, AV[float]], x: AV[Any], t: float, times: AV[Any]
    ) -> AV[Any]:
        from ccl.guidance.clean import rescaled  # which needs torch; the command line knows rules without

        guided = super().combine(v, weights, x, t, times)
        return AV.zip(rescaled, x, times, guided, v[conditional(v)], self.rescale.pair)
