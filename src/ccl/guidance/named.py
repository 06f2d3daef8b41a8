"""Guidance rules by name, with the model's own strengths; the names are of the rules that ccl.guidance exports."""

from __future__ import annotations

import inspect
from importlib import import_module

from ccl import arguments
from ccl.guidance.base import Guidance
from ccl.spelling import did_you_mean
from ccl.types import Scale

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def rules() -> dict[str, type[Guidance]]:
    """Every exported rule that has a name, in the order of names."""
    public = vars(import_module("ccl.guidance"))
    exported = [public[name] for name in public["__all__"] if inspect.isclass(public.get(name))]
    named = {vars(rule).get("name"): rule for rule in exported if issubclass(rule, Guidance)}
    return dict(sorted((name, rule) for name, rule in named.items() if name))


def known(name: object) -> type[Guidance]:
    """The rule of that name; of a class, itself.

    Raises:
        ValueError: there is none such.
    """
    if isinstance(name, type) and issubclass(name, Guidance):
        return name
    there = rules()
    arguments.instance("guidance", name, str, f"a rule, or the name of one: {', '.join(there)}")
    assert isinstance(name, str)
    if name not in there:
        raise ValueError(f"there is no guidance '{name}'{did_you_mean(name, there)}; there are: {', '.join(there)}")
    return there[name]


def named(
    name: str | type[Guidance] | None, own: Guidance, *, scale: Scale | None = None, modal: Scale | None = None
) -> Guidance:
    """A rule of that name or class. Strengths that are not given are the model's own, as far as its rule has such.

    Args:
        name: of `rules`, or a class; None is the model's own rule.
        own: the model's own rule.
        scale: strength of the text, or of all that a rule guides together, for each stream.
        modal: strength of the other stream, for each stream.

    Raises:
        ValueError: there is no such rule, it has no such strength, or strengths alone do not make it.
    """
    if name is None and scale is None and modal is None:
        return own
    rule = type(own) if name is None else known(name)
    word = name if isinstance(name, str) else rule.__name__
    takes = inspect.signature(rule).parameters
    text = "text" if "text" in takes else "scale"
    given = {text: scale, "modal": modal}
    if lacking := [key for key, value in given.items() if value is not None and key not in takes]:
        flag = {text: "scale"}.get(lacking[0], lacking[0])
        raise ValueError(f"guidance '{word}' has no such strength: --{flag}")
    usual = {text: getattr(own, "text", getattr(own, "scale", None)), "modal": getattr(own, "modal", None)}
    # A rule of the user's own may call other things so.
    own_ones = {key: value for key, value in usual.items() if isinstance(value, Scale)}
    strengths = own_ones | {key: value for key, value in given.items() if value is not None}
    strengths = {key: value for key, value in strengths.items() if key in takes}
    needed = [key for key, one in takes.items() if one.default is one.empty and one.kind not in VARIABLE]
    if more := [key for key in needed if key not in strengths]:
        raise ValueError(f"guidance '{word}' needs {', '.join(more)} too; write a YAML file that says them")
    return rule(**strengths)
