"""Configs of somebody else's, checked before anything that they name is imported.

A model's or run's config may name classes of ccl, each of the kind that stands at its place, and of modules that the
user trusts; no function, no file, no name in a plain value. What a user writes on a command line is not read here.
"""

from __future__ import annotations

import collections.abc
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ccl.files import FileError

OWN = "ccl"
NODE = {"class_path", "init_args"}
PLAIN = (str, int, float, bool, types.NoneType, Path)
LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
MAPPINGS = (dict, collections.abc.Mapping)
ANYTHING = (Any, object)
REST = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class Trust(NamedTuple):
    """Whose classes a config may name.

    Args:
        file: the config, for messages.
        modules: trusted beside ccl, with what lies below them.
        folders: where those modules may lie, if they are in none of the usual places.
    """

    file: str
    modules: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def check(self, node: Any, kind: Any, place: str) -> None:
        """Refuse a part of a config that names anything else than classes of the kinds that stand there.

        Args:
            node: the part, as YAML gives it.
            kind: type of the part.
            place: dotted key of the part.

        Raises:
            FileError: one sentence that names the file, the key and the name.
        """
        kinds = list(_flat(kind))
        # Where anything may stand, the parser reads a text as YAML, and a class_path in that as a class.
        anything = kind in ANYTHING and "class_path" not in str(node)
        if isinstance(node, str) and not anything and not all(map(_inert, kinds)):
            raise FileError(f"{self.file}: {place} is {node[:80]!r}, and {_words(kinds)}")
        if isinstance(node, list) and (inner := [one for kind in kinds for one in _items(kind)]):
            for index, value in enumerate(node):
                self.check(value, Union[tuple(inner)], f"{place}.{index}")  # noqa: UP007 - of types known only here
        elif isinstance(node, dict) and (classes := [cls for kind in kinds for cls in _classes(kind)]):
            self._check_class(node, classes, place)
        elif isinstance(node, dict) and (inner := [one for kind in kinds for one in _values(kind)]):
            self._refuse_class_path(node, place)
            for key, value in node.items():
                self.check(value, Union[tuple(inner)], f"{place}.{key}")  # noqa: UP007
        else:
            self._refuse_class_path(node, place)

    def _check_class(self, node: dict[Any, Any], bases: list[type], place: str) -> None:
        cls, where = bases[0], place
        given: Any = node
        if "class_path" in node or "init_args" in node:
            if unknown := [key for key in node if key not in NODE]:
                raise FileError(f"{self.file}: {place} has {str(unknown[0])[:80]!r} beside class_path and init_args")
            cls = self._find(node["class_path"], bases, place) if "class_path" in node else cls
            given, where = node.get("init_args"), f"{place}.init_args"
        if given is None:
            return
        if not isinstance(given, dict):
            raise FileError(f"{self.file}: {where} is {str(given)[:80]!r}; the arguments of {cls.__name__} are needed")
        takes = _arguments(cls)
        for key, value in given.items():
            if key not in takes:
                raise FileError(
                    f"{self.file} does not give a model: {where} has {str(key)[:80]!r}, which {cls.__name__} does not "
                    "take"
                )
            self.check(value, takes[key], f"{where}.{key}")

    def _find(self, name: Any, bases: list[type], place: str) -> type:
        """The class of that name: of ccl or of a trusted module, and below one of `bases`."""
        names = f"{self.file}: {place} names {str(name)[:80]!r}"
        kind = _words(bases)
        parts = name.split(".") if isinstance(name, str) else []
        if len(parts) < 2 or not all(part.isidentifier() and part.isascii() for part in parts):
            raise FileError(f"{names}, and it must be MODULE.CLASS; {kind}")
        module, attribute = ".".join(parts[:-1]), parts[-1]
        own = parts[0] == OWN
        if not own and not any(f"{module}.".startswith(f"{known}.") for known in self.modules):
            raise FileError(
                f"{names}, which is no class of ccl; a model may name no other unless you trust the module, whose code "
                f"then runs: --trust {module}"
            )
        # What begins with "_" is nobody's to name: ccl.__main__ would run as it is imported.
        found = None if own and any(part.startswith("_") for part in parts) else self._load(module, attribute, names)
        if not isinstance(found, type) or (own and found.__module__.split(".")[0] != OWN):
            raise FileError(f"{names}, and {module} has no class of that name")
        if not any(issubclass(found, base) for base in bases):
            raise FileError(f"{names}, and {kind}")
        return found

    def _load(self, module: str, attribute: str, names: str) -> Any:
        try:
            # What ccl or an installed module could use and does not find must not be taken from a model's folder.
            with on_path(() if _installed(module.partition(".")[0]) else self.folders):
                return getattr(importlib.import_module(module), attribute, None)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                raise FileError(f"{names}, and there is no module {error.name}") from error
            raise FileError(f"{names}, and {module} needs the package {error.name}") from error
        except Exception as error:
            raise FileError(
                f"{names}, and {module} cannot be imported: {' '.join(str(error).split())[:160]}"
            ) from error

    def _refuse_class_path(self, node: Any, place: str) -> None:
        """No class may stand where a plain value does, however deep: the parser would make it of any type."""
        if isinstance(node, dict):
            if "class_path" in node:
                raise FileError(
                    f"{self.file}: {place} names {str(node['class_path'])[:80]!r}, and takes no class, or says no type"
                )
            for key, value in node.items():
                self._refuse_class_path(value, f"{place}.{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                self._refuse_class_path(value, f"{place}.{index}")


def trusted_modules(names: Iterable[str]) -> tuple[str, ...]:
    """Names of modules that a user trusts.

    Raises:
        ValueError: one is no dotted name.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is trusted, which is no name of a module")
    return tuple(names)


@contextmanager
def on_path(folders: Sequence[Path]) -> Iterator[None]:
    """Modules of these folders can be imported; behind all others, so that they take nobody's place."""
    added = [name for folder in folders if (name := str(folder.resolve())) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _installed(package: str) -> bool:
    """Whether Python finds a package in the usual places, or has it already."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


# Types of arguments -------------------------------------------------------------------------------------------------


def _flat(kind: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        for one in get_args(kind):
            yield from _flat(one)
    elif origin is Annotated:
        yield from _flat(get_args(kind)[0])
    else:
        yield kind


def _inert(kind: Any) -> bool:
    """Whether no value of that type names anything."""
    if get_origin(kind) in (Union, types.UnionType, Annotated):
        return all(map(_inert, _flat(kind)))
    inner = [*_items(kind), *_values(kind)]
    return kind in PLAIN or get_origin(kind) is Literal or (bool(inner) and all(map(_inert, inner)))


def _items(kind: Any) -> tuple[Any, ...]:
    """Types of the items of a list or tuple type."""
    found = get_args(kind) if get_origin(kind) in LISTS else ()
    return tuple(one for one in found if one is not Ellipsis)


def _values(kind: Any) -> tuple[Any, ...]:
    """Type of the values of a mapping type."""
    return get_args(kind)[1:] if get_origin(kind) in MAPPINGS else ()


def _classes(kind: Any) -> Iterator[type]:
    """The class of which an object stands here, itself or as what a factory makes."""
    if get_origin(kind) is collections.abc.Callable:
        for one in _flat(get_args(kind)[1]):
            yield from _classes(one)
        return
    kind = get_origin(kind) or kind
    known = (*PLAIN, *LISTS, *MAPPINGS, *ANYTHING, type)
    if isinstance(kind, type) and kind not in known and kind.__module__ not in ("builtins", "types"):
        yield kind


def _arguments(cls: type) -> dict[str, Any]:
    """Types of the arguments that a class takes, those that it hands on included; its base's where it says none."""
    found: dict[str, Any] = {}
    hands_on = True
    for owner in cls.__mro__[:-1]:
        if "__init__" not in vars(owner) and not is_dataclass(owner):
            continue
        hints = get_type_hints(owner if is_dataclass(owner) else owner.__init__)  # type: ignore[misc]
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]
        for name in [parameter.name for parameter in parameters if parameter.kind not in REST]:
            if (hands_on and name not in found) or found.get(name) is Any:
                found[name] = hints.get(name, Any)
        hands_on = hands_on and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return found


def _words(kinds: Sequence[Any]) -> str:
    """What is needed, for a message."""
    names = [cls.__name__ for kind in kinds for cls in _classes(kind)]
    return f"a class below {' or '.join(names)} is needed" if names else "no name may stand there"
