"""One clear sentence for each thing that can be wrong with a command line or a config.

jsonargparse names neither the YAML file nor, inside class_path/init_args, the parent of a wrong key: both are looked up
here in the files themselves, and the nearest right key is added.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml


class UsageError(ValueError):
    """The command line or a config is at fault, not the work: exit 2."""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no word is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def one_sentence(error: BaseException) -> str:
    """The message of an error on one line: a union's complaint shortened to the part that was meant."""
    if isinstance(error, KeyError):
        return f"missing key {error}"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    # A wrong class_path, or an error raised while a class was built, is told once for each member of a union.
    told = [line.strip(" -") for line in text.splitlines() if line.startswith(("  - ", "- "))]
    told = [line for line in told if "NoneType" not in line]
    if told and "\n" in text:
        text = text.splitlines()[0] + " " + told[0] if text.startswith("Parser key") else told[0]
    text = re.sub(r"Type \S*(?:Callable|Union|Optional)\[.*?\] expects a function or a callable class: ", "", text)
    text = re.sub(r"\. Got value: Namespace\(.*", "", text, flags=re.S)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    return " ".join(text.split())


def nodes(node: yaml.Node, file: Path, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Path, int]]:
    """Every key of a YAML tree, part files included: (path, file, line)."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from nodes(item, file, (*path, str(index)))
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*path, str(key.value))
        yield here, file, key.start_mark.line + 1
        part = file.parent / value.value if isinstance(value, yaml.ScalarNode) and _is_yaml(value.value) else None
        if part and part.is_file():
            inner = compose(part)
            if inner is not None:
                yield from nodes(inner, part, here)
        else:
            yield from nodes(value, file, here)


def compose(file: Path) -> yaml.Node | None:
    """The YAML tree of a file.

    Raises:
        UsageError: the file is missing, or is not YAML; with the line.
    """
    if not file.is_file():
        beside = [str(p) for p in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise UsageError(f"there is no config file {file}{did_you_mean(str(file), beside)}")
    try:
        return yaml.compose(file.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{line} is not YAML: {getattr(error, 'problem', None) or error}") from error


def locate(key: str, files: Iterable[Path], argv: Iterable[str]) -> tuple[str, str]:
    """Where a key that ends in `key` was written: (its whole dotted path, ` in FILE, line N` or ` on the command line`).

    The command line wins over the files and the last file over the first, as they override one another.
    """
    for flag in (arg.split("=")[0] for arg in argv if arg.startswith("--")):
        if flag == f"--{key}" or flag.endswith(f".{key}"):
            return flag.removeprefix("--"), " on the command line"
    parts = tuple(key.split("."))
    for file in reversed(list(files)):
        tree = compose(file)
        for path, part, line in [] if tree is None else nodes(tree, file):
            if path[-len(parts) :] == parts:
                return ".".join(path), f" in {part}, line {line}"
    return key, ""


def explain(message: str, options: Iterable[str], files: Iterable[Path], argv: Iterable[str]) -> str:
    """A parser's complaint in one sentence that names the key, the file and, where one is near, the right key.

    Args:
        message: what jsonargparse says.
        options: the keys that the innermost parser would have taken.
        files: the `--config` files, in order.
        argv: the command line.
    """
    wrong = re.match(r"(?:Group '(?P<group>[^']+)' does not accept option|Option) '(?P<key>[^']+)'", message)
    if wrong:
        key = ".".join(filter(None, wrong.group("group", "key")))
        whole, place = locate(key, files, argv)
        if not place:
            whole, place = locate(wrong["key"], files, argv)
        word, leaves = key.rsplit(".", 1)[-1], [option.rsplit(".", 1)[-1] for option in options]
        return f"there is no key '{whole}'{place}{did_you_mean(word, leaves)}"
    value = re.match(r'Parser key "(?P<key>[^"]+)":\s*(?P<what>.*)', message, flags=re.S)
    if value:
        whole, place = locate(value["key"], files, argv)
        return f"{whole}{place}: {one_sentence(ValueError(value['what']))}"
    unknown = re.match(r"unrecognized arguments: (?P<flag>\S+)", message, flags=re.I)
    if unknown:
        flag = unknown["flag"].split("=")[0]
        return f"there is no option '{flag}'{did_you_mean(flag.removeprefix('--'), options)}"
    return one_sentence(ValueError(message))


def innermost_options(error: BaseException | None) -> list[str]:
    """Keys of the innermost parser that an error passed through: the only place that knows the parent's keys."""
    import jsonargparse

    found: list[str] = []
    trace: Any = error.__traceback__ if error else None
    while trace is not None:
        parser = trace.tb_frame.f_locals.get("self")
        if isinstance(parser, jsonargparse.ArgumentParser):
            found = [action.dest for action in parser._actions]
        trace = trace.tb_next
    return found


def _is_yaml(value: Any) -> bool:
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))
