"""Shapes and types of what is called, checked once a call.

jaxtyping's own way checks arguments before a call and after it once more, beside what came back, and binds them to
their names. That took half of the time of making a clip, and of importing CCL. Here beartype checks both around the
call itself. `jaxtyping.config.jaxtyping_disable` turns it off, for tests of what a user sees.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import is_dataclass
from functools import partial, wraps
from inspect import isgeneratorfunction
from types import FunctionType, SimpleNamespace
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, config, jaxtyped

CHECKED = beartype(conf=BeartypeConf(violation_type=TypeCheckError))  # which is a TypeError, as jaxtyping raises it
SHAPES = jaxtyped("context")  # within it an axis has one length; within another, its own


def once(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """In place of `jaxtyping.jaxtyped`, as the import hook calls it; generators are left to that."""
    if function is None:
        return partial(once, typechecker=typechecker)
    if isinstance(function, type):
        if is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = once(function.__init__, typechecker=typechecker)
        return function
    if not isinstance(function, FunctionType) or isgeneratorfunction(function):
        return jaxtyped(function, typechecker=typechecker)
    made: list[tuple[Callable[..., Any], AbstractContextManager[Any] | None]] = []

    @wraps(function)
    def unless_off(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        if not made:  # at the first call: of 4,418 functions a process calls about half
            made.append(check(function))
        checked, around = made[0]
        if around is None:
            return checked(*args, **kwargs)
        with around:
            return checked(*args, **kwargs)

    return unless_off


def check(function: FunctionType) -> tuple[Callable[..., Any], AbstractContextManager[Any] | None]:
    """The function with its checks, and within what it is called where shapes are part of them."""
    written, names = function.__annotations__, function.__globals__
    function.__annotations__ = hints = {key: meant(annotation, names) for key, annotation in written.items()}
    checked = CHECKED(function)
    function.__annotations__ = checked.__annotations__ = written
    return checked, SHAPES if any(map(shaped, hints.values())) else None


def shaped(hint: Any) -> bool:
    """Whether shapes are part of it."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(shaped, hint if isinstance(hint, list) else get_args(hint)))


def meant(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation that is written as a string; Any, as to jaxtyping, where its names are for type checkers alone."""
    try:
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names, include_extras=True)["it"]
    except Exception:
        return Any
