"""Parts of the user's own, named by class_path in YAML or on the command line: found, and told in words where not.

A run on this machine looks for their modules as Python does, then in the working directory and beside each YAML file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ccl.cli.errors import UsageError, compose, flags_of, is_file, is_yaml, nodes
from ccl.spelling import did_you_mean
from ccl.storage.moved import told


@contextmanager
def reachable(files: Sequence[Path], argv: Sequence[str] = (), also: Sequence[tuple[str, str]] = ()) -> Iterator[None]:
    """Look for modules in the working directory and beside these files too, and check that each class is there.

    For every verb that builds what its user's YAML names. No module that Python finds already is hidden.

    Args:
        files: of YAML, which may name part files.
        argv: the command line, which may name classes and YAML files too.
        also: more names of classes, each with words for where it stands.

    Raises:
        UsageError: a class_path names what is not there or cannot be imported; with its file and line.
    """
    named = [*classes(files, argv), *((name, None, place) for name, place in also)]
    before = list(sys.path)
    folders = [Path.cwd(), *(file.parent.absolute() for _, file, _ in named if file is not None)]
    sys.path += [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in before]
    importlib.invalidate_caches()
    try:
        for name, file, place in named:
            check(name, file, place)
        yield
    finally:
        sys.path[:] = before


def classes(files: Sequence[Path], argv: Sequence[str]) -> Iterator[tuple[str, Path | None, str]]:
    """Every dotted class_path: (name, the file that it stands in, words for where that is)."""
    values = flags_of(argv)
    for flag, value in values:
        if flag.endswith("class_path") and "." in value:
            yield value, None, f"--{flag}"
    parts = [Path(value) for flag, value in values if is_yaml(value) and is_file(Path(value))]
    for file in dict.fromkeys((*files, *parts)):
        for path, part, line, text in nodes(compose(file), file):
            if path[-1] == "class_path" and text and "." in text:
                yield text, part, f"{part}, line {line}"


def check(name: str, file: Path | None, place: str) -> None:
    """Import a class.

    Raises:
        UsageError: there is no such module or no such name in it, or the module cannot be imported.
    """
    module, _, attribute = name.rpartition(".")
    if not all(word.isidentifier() for word in name.split(".")):
        raise UsageError(f"{place}: '{name}' is no name of a class, as package.module.Class")
    if said := told("class_path", name):
        raise UsageError(f"{place}: {said}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"{place}: {module} needs the module '{error.name}', which is not installed") from error
        looked = [str(Path.cwd()), *([str(file.parent.absolute())] if file else [])]
        raise UsageError(
            f"{place}: there is no module '{error.name}' for {name}; looked for among what is installed and in "
            f"{' and '.join(dict.fromkeys(looked))}"
        ) from error
    except Exception as error:  # whatever a module does when it is imported
        raise UsageError(f"{place}: {module} cannot be imported: {cause(error)}") from error
    if not hasattr(found, attribute):
        where = getattr(found, "__file__", None) or "built in"
        raise UsageError(f"{place}: {module} ({where}) has no '{attribute}'{did_you_mean(attribute, vars(found))}")


def cause(error: Exception) -> str:
    """An error of somebody else's module, with its place there."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '').name}, line {error.lineno}: {error.msg}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}: {type(error).__name__}: {error}"
