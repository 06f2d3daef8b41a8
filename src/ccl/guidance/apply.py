"""One guided velocity out of a rule's passes, which run as one batch (CCL Sec. 4.3).

B clips, P passes, L text states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ccl.grid import Grid
from ccl.guidance.base import Guidance, used
from ccl.guidance.stepcache import StepCache
from ccl.nn.chunks import chosen, repeated
from ccl.types import AV, Pass, Route, Text

#: (x, times, t) -> velocity. t is the solver's; times are (B,) or, with its own for each latent frame, (B, T), in each
#: stream: t where a frame is generated.
NetVelocity = Callable[[AV[Any], AV[Any], float], AV[Any]]


def guided(
    net: Any,
    rule: Guidance,
    route: Route,
    texts: Mapping[Text, Tensor | AV[Any]],
    *,
    grid: Grid,
    nulls: AV[Any] = AV(None, None),
    null_times: AV[float] = AV(0.0, 0.0),
    generated: AV[bool] = AV(True, True),
    batched: bool = True,
    cached: bool = True,
    extras: dict[str, Any] | None = None,
    steps: StepCache | None = None,
) -> NetVelocity:
    """The velocity that a rule makes of its passes' at each time.

    Args:
        net: a DualStreamTransformer.
        rule: of guidance.
        route: of the generation task.
        texts: states (B, L, D) of what the rule's passes read, for both streams or, as AV, for each.
        grid: lengths of the clips.
        nulls: latents (B, C, T, ...) of a null of each stream, where a pass asks for one.
        null_times: that the network is told of them: 0, clean, or as noisy as they are.
        generated: the streams whose velocity is wanted. A pass that weighs nothing in them is not run, and the velocity
            of the others is 0.
        batched: all passes of a step in one forward of P*B clips; else one after another, which needs less memory.
        cached: compute keys and values of each text, and of context tokens, once and not at every step: where it is
            first read. Needs the network's own parameters at hand, so not under FSDP.
        extras: what the network reads beside latents and text in every pass, of B clips.
        steps: takes predictions of earlier steps again; None runs all passes at every step.
    """
    prepared: dict[Text, Any] = {}

    def read(text: Text) -> Any:
        if not cached:
            return texts[text]
        if text not in prepared:
            prepared[text] = net.prepare(texts[text], extras=extras or {})
        return prepared[text]

    def run(passes: Sequence[Pass], x: AV[Any], times: AV[Any], rows: Sequence[int], of: int) -> dict[Pass, AV[Any]]:
        """Of some clips of a batch."""
        x, times, null = chosen((x, times, nulls), rows, of)
        own_times = AV.zip(torch.full_like, times, null_times)
        xs = stacked([nulled(x, one.null, null) for one in passes])
        ts = stacked([nulled(times, one.null, own_times) for one in passes])
        states = {name: of_clips(read(name), rows, of) for one in passes for name in one.text}
        text = [states[v] if v == a else AV(states[v], states[a]) for v, a in (one.text for one in passes)]
        # What was prepared holds its own.
        brought = None if cached else repeated(chosen(extras or {}, rows, of), len(passes))
        v = net(xs, ts, text, grid=grid, view=[one.view for one in passes], extras=brought).velocity
        each = zip(*([None] * len(passes) if z is None else z.chunk(len(passes)) for z in v), strict=True)
        return {one: AV(*pair) for one, pair in zip(passes, each, strict=True)}

    def velocity(x: AV[Any], times: AV[Any], t: float) -> AV[Any]:
        weights = used(rule.passes(route, t), generated)
        of = len(x.audio if x.video is None else x.video)

        def predicted(passes: Sequence[Pass], rows: Sequence[int]) -> dict[Pass, AV[Any]]:
            v: dict[Pass, AV[Any]] = {}
            for group in [passes] if batched else [[one] for one in passes]:
                v |= {one: only(each, generated) for one, each in run(group, x, times, rows, of).items()}
            return v

        passes = list(weights)
        v = predicted(passes, range(of)) if steps is None else steps(passes, x, predicted)
        combined = rule.combine(v, weights, only(x, generated), t, times)
        zeros = x.map(lambda z: torch.zeros_like(z, dtype=torch.float32))
        return AV.zip(lambda zero, z: zero if z is None else z, zeros, combined)

    return velocity


def nulled(x: AV[Any], null: AV[bool], nulls: AV[Any]) -> AV[Any]:
    """x with the streams replaced that are null in a pass; one that takes no part stays None."""
    return AV.zip(lambda z, is_null, other: other if is_null else z, x, null, nulls)


def of_clips(text: Any, rows: Sequence[int], of: int) -> Any:
    """A text's states, or what a network made of them, of some clips."""
    return text.chosen(rows, of) if hasattr(text, "chosen") else chosen(text, rows, of)


def stacked(each: Sequence[AV[Any]]) -> AV[Any]:
    """A batch of one pass after another."""
    return AV(*(None if z[0] is None else torch.cat(z) for z in zip(*each, strict=True)))


def only(x: AV[Any], generated: AV[bool]) -> AV[Any]:
    """x without the streams that are not generated."""
    return AV(*(z if is_wanted else None for z, is_wanted in zip(x, generated, strict=True)))
