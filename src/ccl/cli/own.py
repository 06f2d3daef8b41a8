"""Parts of the user's own, named by class_path in YAML: found in the working directory and beside the file too."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ccl.cli.errors import UsageError, compose, did_you_mean


@contextmanager
def reachable(files: Sequence[Path]) -> Iterator[None]:
    """Look for modules in the working directory and beside these files too, and check that each class is there.

    For every verb that builds what a YAML file of its user names. No module that Python finds already is hidden.

    Args:
        files: of YAML.

    Raises:
        UsageError: a class_path names what is not there or cannot be imported; with its file and line.
    """
    before = list(sys.path)
    folders = [Path.cwd(), *(file.parent.absolute() for file in files)]
    sys.path += [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in before]
    importlib.invalidate_caches()
    try:
        for file in files:
            for node in class_paths(compose(file)):
                check(node.value, file, f"{file}, line {node.start_mark.line + 1}")
        yield
    finally:
        sys.path[:] = before


def class_paths(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Every dotted class_path of a tree."""
    inner: list[Any] = node.value if isinstance(node, yaml.SequenceNode) else []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if key.value == "class_path" and isinstance(value, yaml.ScalarNode) and "." in value.value:
            yield value
        inner.append(value)
    for one in inner:
        yield from class_paths(one)


def check(name: str, file: Path, place: str) -> None:
    """Import what a class_path names.

    Raises:
        UsageError: there is no such module or no such name in it, or the module cannot be imported.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"{place}: {module} needs the module '{error.name}', which is not installed") from error
        looked = dict.fromkeys((str(Path.cwd()), str(file.parent.absolute())))
        raise UsageError(
            f"{place}: there is no module '{error.name}' for {name}; looked for among what is installed and in "
            f"{' and '.join(looked)}"
        ) from error
    except Exception as error:  # whatever a module does when it is imported
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{Path(frame.filename).name}, line {frame.lineno}: {type(error).__name__}: {error}"
        raise UsageError(f"{place}: {module} cannot be imported: {said}") from error
    if not hasattr(found, attribute):
        where = getattr(found, "__file__", None) or "built in"
        raise UsageError(f"{place}: {module} ({where}) has no '{attribute}'{did_you_mean(attribute, vars(found))}")
