"""What a rule is on a model of another kind, in words: refused, another rule under its name, or itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ccl.guidance.base import Guidance, used
from ccl.guidance.rules import UCG2, UCG3, MultiModalCFG, NoGuidance, TextCFG
from ccl.types import ALONE, AV, NEGATIVE, POSITIVE, STREAMS, Closed, Pass, Route, View


def occurring(rule: Guidance, route: Route, times: Iterable[float], generated: AV[bool]) -> list[Pass]:
    """Every pass that a sampling runs, once.

    Args:
        rule: of guidance.
        route: of the generation task.
        times: at which the solver asks for a velocity.
        generated: the streams whose velocity is wanted.

    Raises:
        ValueError: a stream weighs something in a pass in which it is null, so that it has no velocity.
    """
    found: dict[Pass, None] = {}
    for t in times:
        weights = used(rule.passes(route, t), generated)
        for one, weight in weights.items():
            for stream, is_null, share in zip(STREAMS, one.null, weight, strict=True):
                if is_null and share:
                    raise ValueError(
                        f"guidance {rule.called} gives {stream} the weight {share:g} in a pass in which {stream} is "
                        "null; it has no velocity there, so its weight must be 0"
                    )
        found |= dict.fromkeys(weights)
    return list(found)


def check_passes(rule: Guidance, passes: Collection[Pass], net: Any) -> None:
    """Refuse a rule that a network cannot be sampled with.

    Args:
        rule: of guidance.
        passes: of it, as `occurring` gives them.
        net: a DualStreamTransformer.

    Raises:
        ValueError: a pass skips a layer that there is not, or the network's interaction refuses it.
    """
    layers = len(net.blocks)
    for one in passes:
        beyond = sorted(layer for skip in one.view.skip for layer in skip.layers if not 0 <= layer < layers)
        if beyond:
            raise ValueError(
                f"guidance {rule.called} skips layer {beyond[0]}; this network has {layers}, counted from 0"
            )
        if said := net.interaction.refuses(one):
            raise ValueError(f"guidance {rule.called}: {said}")


def remark(rule: Guidance, route: Route, closed: Closed, times: Collection[float] = (1.0,)) -> str:
    """In a sentence, what a rule is here, where it is another one than its name says; "" where it is itself.

    Args:
        rule: of guidance.
        route: of the generation task.
        closed: what a closed route of the model's interaction leaves.
        times: of the sampling.

    Raises:
        ValueError: the rule belongs to another kind of model.
    """
    if rule.parts:
        said = [remark(part, route, closed, times) for part in rule.parts]
        return "; ".join(dict.fromkeys(filter(None, said)))
    if isinstance(rule, MultiModalCFG) and closed == "context":
        raise ValueError(
            "multimodal_cfg (Eq. 2) is for gated models; a closed route of this one leaves context tokens, so that "
            "it would be ucg3 under another name: take ucg3"
        )
    weighed = [(one, weight) for t in times for one, weight in rule.passes(route, t).items()]
    passes = {one for one, _ in weighed}
    if closed == "same":  # neither stream reads the other, null or not
        passes = {Pass(one.text, View(ALONE.route, skip=one.view.skip)) for one in passes}
    if passes == {Pass(POSITIVE, ALONE if closed == "same" else View(route))} and not isinstance(rule, NoGuidance):
        return f"nothing is left out in any pass of {rule.called} here, so it is none"
    alike = len({(one.view, one.null) for one in passes}) == 1 and {one.text for one in passes} == {POSITIVE, NEGATIVE}
    summed = type(rule).combine is Guidance.combine
    if alike and summed and not isinstance(rule, TextCFG):
        kind = rule.called
        return f"nothing of the other stream is left out in any pass of {kind} here, so it is text_cfg of that strength"
    if closed == "own" and any(closes(one, weight, route) for one, weight in weighed):
        return (
            f"this model has no context tokens: where {rule.called} closes a route, a stream has its own tokens alone"
        )
    if closed == "nothing" and isinstance(rule, UCG3) and not isinstance(rule, MultiModalCFG):
        return "this model has no context tokens, so ucg3 is multimodal_cfg (Eq. 2) here"
    if closed == "nothing" and isinstance(rule, UCG2):
        return "this model has no context tokens: the unconditional pass of ucg2 closes its gates"
    return ""


def closes(one: Pass, weight: AV[float], route: Route) -> bool:
    """Whether a stream that weighs something in a pass does not see the other there, and does on the task's route."""
    seen, usual = one.view.route, route
    return bool((weight.video and usual.a2v > seen.a2v) or (weight.audio and usual.v2a > seen.v2a))
