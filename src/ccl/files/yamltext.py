"""YAML files of configs, a user's or somebody else's: read within bounds, or refused with the line.

One reader for all, so that a file means the same wherever it is read: plain values alone, what looks like a date is a
text, and 1e-3 a number, as they are to jsonargparse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ccl.files import FileError, reading
from ccl.files.plaintext import unreadable

# Bounds of a config: ours are 3 kB of about 100 values.
BYTES, VALUES, DEPTH = 200_000, 10_000, 40


# What YAML 1.1 takes for a text, since it has no dot, or no sign after its e: 1e-3, 1e5, 1.5e3.
EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


class Loader(yaml.SafeLoader):
    """YAML of plain values alone."""

    yaml_implicit_resolvers: ClassVar[Any] = {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def read_yaml(path: Path) -> dict[Any, Any]:
    """What a YAML file holds.

    Raises:
        FileError: as `compose`; or a value is not what its tag says, or a key is no plain value.
    """
    with told(path) as raw:
        return deepcopy(values_of(raw, path))


@lru_cache(maxsize=64)
def values_of(raw: bytes, path: Path) -> dict[Any, Any]:
    """A matrix's configs begin with the same files."""
    with loading(raw) as loader:
        return loader.construct_document(checked(loader, path))


def compose(path: Path) -> yaml.MappingNode:
    """The tree of a YAML file, whose nodes know their lines; it is for reading alone.

    Raises:
        FileError: the file is absent, no YAML or no UTF-8, with the line; holds no keys, or what no text has; is larger
            than any config, or grows beyond that by its aliases.
    """
    with told(path) as raw:
        return tree_of(raw, path)


@lru_cache(maxsize=32)
def tree_of(raw: bytes, path: Path) -> yaml.MappingNode:
    """A command asks for the tree of each of its files several times."""
    with loading(raw) as loader:
        return checked(loader, path)


@contextmanager
def loading(raw: bytes) -> Iterator[Loader]:
    loader = Loader(raw.decode())
    try:
        yield loader
    finally:
        loader.dispose()


def checked(loader: Loader, path: Path) -> yaml.MappingNode:
    """The tree that a loader finds, within bounds."""
    tree = loader.get_single_node()
    if not isinstance(tree, yaml.MappingNode):
        raise FileError(f"{path} holds no keys")
    values, depth = written_out(tree, VALUES)
    if values > VALUES or depth > DEPTH:
        raise FileError(
            f"{path} holds more than any config, {VALUES:,} values or {DEPTH} levels, once its aliases are written out"
        )
    for line, fault in unreadable_in(tree):
        raise FileError(f"{path}, line {line} {fault}")
    return tree


@contextmanager
def told(path: Path) -> Iterator[bytes]:
    """The bytes of a YAML file; what is wrong with them is told as by `read_yaml` and `compose`."""
    if not path.is_file():
        raise FileError(f"there is no {path}")
    with reading(path, "a config"):
        if path.stat().st_size > BYTES:
            raise FileError(f"{path} is larger than any config, {path.stat().st_size} bytes")
        raw = path.read_bytes()
        try:
            yield raw
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise FileError(f"{path}, line {line} is not UTF-8 text") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark else ""
            why = getattr(error, "problem", None) or " ".join(str(error).split())
            raise FileError(f"{path}{place} is not YAML: {why[:160]}") from error
        except RecursionError as error:
            raise FileError(f"{path} is nested too deeply") from error


def unreadable_in(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Lines of a tree whose values no text can have, which an escape such as "\\ud800" may bring in, and why."""
    if isinstance(node, yaml.ScalarNode):
        if fault := unreadable(node.value):
            yield node.start_mark.line + 1, fault
        return
    for child in node.value:
        for inner in child if isinstance(child, tuple) else (child,):
            yield from unreadable_in(inner)


def written_out(node: yaml.Node, most: int) -> tuple[int, int]:
    """How many values a tree holds, and how many levels, when its aliases are written out; endless is above `most`."""
    known: dict[int, tuple[int, int]] = {}

    def size(node: yaml.Node) -> tuple[int, int]:
        if id(node) not in known:
            known[id(node)] = most + 1, 0  # what holds itself has no end
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            inner = [one for child in children for one in (child if isinstance(child, tuple) else (child,))]
            sizes = [size(one) for one in inner]
            known[id(node)] = 1 + sum(values for values, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        return known[id(node)]

    return size(node)
