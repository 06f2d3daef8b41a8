"""Parts of configs, read and written once a process.

jsonargparse reads a part of a config anew for every level above it, and at each for its defaults, for what is given and
to check that: each of the thirty of `configs/joint.yaml` seven times. Here it is remembered what the arguments of a
class become. What is wrong with some is not, nor what follows from more than these: a file, or a class of one's own,
which a test may write anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from jsonargparse import ArgumentParser, _common, _typehints
from jsonargparse._namespace import recreate_branches as copied

AMID = (
    *(_common.lenient_check, _common.load_value_mode, _common.parsing_defaults, _common.validating_defaults),
    *(_typehints.allow_default_instance, _typehints.sub_defaults),
)
MORE = re.compile(r"/|\.ya?ml|\.json| at 0x|class_path'?[=:] ?'(?!ccl\.|lightning\.|torch\.)")


def remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of parsers that does the same once for the same arguments of a class."""
    known: dict[tuple[Any, ...], Any] = {}

    @wraps(method)
    def once(self: ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        # The parser of a class's arguments is kept by jsonargparse for as long as the process lives.
        if not getattr(self, "_inner_parser", False) or MORE.search(given := repr((args, kwargs))):
            return method(self, *args, **kwargs)
        key = (id(self), given, *(amid.get() for amid in AMID))
        if key not in known:
            known[key] = copied(method(self, *args, **kwargs))
        return copied(known[key])

    return once


def remember() -> None:
    """From now on, in this process."""
    for name in ("parse_object", "dump"):
        setattr(ArgumentParser, name, remembered(getattr(ArgumentParser, name)))
