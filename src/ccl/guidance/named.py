"""Guidance rules by name, with the model's own strengths; and in words what a rule is on a model of another kind."""

from __future__ import annotations

import difflib
import inspect

from ccl import arguments
from ccl.guidance.base import Guidance
from ccl.guidance.rules import UCG2, UCG3, MultiModalCFG, NoGuidance, TextCFG
from ccl.types import ALONE, NEGATIVE, POSITIVE, Closed, Pass, Route, Scale

RULES: dict[str, type[Guidance]] = {
    "none": NoGuidance,
    "text_cfg": TextCFG,
    "ucg2": UCG2,
    "ucg3": UCG3,
    "multimodal_cfg": MultiModalCFG,
}


def known(name: str) -> type[Guidance]:
    """The rule of that name.

    Raises:
        ValueError: there is none such.
    """
    arguments.instance("guidance", name, str, f"a rule, or the name of one: {', '.join(RULES)}")
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"there is no guidance '{name}'{hint}; there are: {', '.join(RULES)}")
    return RULES[name]


def named(name: str | None, own: Guidance, *, scale: Scale | None = None, modal: Scale | None = None) -> Guidance:
    """A rule of that name. Strengths that are not given are the model's own, as far as its rule has such.

    Args:
        name: of RULES; None is the model's own rule.
        own: the model's own rule.
        scale: strength of the text, or of all that a rule guides together, for each stream.
        modal: strength of the other stream, for each stream.

    Raises:
        ValueError: there is no such rule, or it has no such strength.
    """
    if name is None and scale is None and modal is None:
        return own
    rule = type(own) if name is None else known(name)
    takes = inspect.signature(rule).parameters
    text = "text" if "text" in takes else "scale"
    given = {text: scale, "modal": modal}
    if lacking := [key for key, value in given.items() if value is not None and key not in takes]:
        word = {text: "scale"}.get(lacking[0], lacking[0])
        raise ValueError(f"guidance '{name or rule.__name__}' has no such strength: --{word}")
    usual = {text: getattr(own, "text", getattr(own, "scale", None)), "modal": getattr(own, "modal", None)}
    # A rule of the user's own may call other things so.
    own_ones = {key: value for key, value in usual.items() if isinstance(value, Scale)}
    strengths = own_ones | {key: value for key, value in given.items() if value is not None}
    return rule(**{key: value for key, value in strengths.items() if key in takes})


def remark(rule: Guidance, route: Route, closed: Closed) -> str:
    """In a sentence, what a rule is here, where it is another one than its name says; "" where it is itself.

    Args:
        rule: of guidance.
        route: of the generation task.
        closed: what a closed route of the model's interaction leaves.

    Raises:
        ValueError: the rule belongs to another kind of model.
    """
    kind = next((name for name, cls in RULES.items() if cls is type(rule)), type(rule).__name__)
    if isinstance(rule, MultiModalCFG) and closed == "context":
        raise ValueError(
            "multimodal_cfg (Eq. 2) is for gated models; a closed route of this one leaves context tokens, so that "
            "it would be ucg3 under another name: take ucg3"
        )
    passes = [Pass(key.text, ALONE) if closed == "same" else key for key in rule.weights(route)]
    alone = len({key.view for key in passes}) == 1 and {key.text for key in passes} == {POSITIVE, NEGATIVE}
    if alone and not isinstance(rule, TextCFG):
        return f"nothing of the other stream is left out in any pass of {kind} here, so it is text_cfg of that strength"
    if closed == "own" and len({key.view for key in passes}) > 1:
        return (
            f"this model has no context tokens: a stream attends to its own tokens alone where {kind} closes its route"
        )
    if closed == "nothing" and isinstance(rule, UCG3) and not isinstance(rule, MultiModalCFG):
        return "this model has no context tokens, so ucg3 is multimodal_cfg (Eq. 2) here"
    if closed == "nothing" and isinstance(rule, UCG2):
        return "this model has no context tokens: the unconditional pass of ucg2 closes its gates"
    return ""
