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
    """The message of an error on one line."""
    if isinstance(error, KeyError):
        return f"missing key {error}"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return plain_words(text)


def plain_words(text: str) -> str:
    """jsonargparse's messages in fewer words: of a union's complaints the one that was meant, without reprs."""
    text = " ".join(text.split())
    while (start := text.rfind("Does not validate against any of the Union subtypes")) >= 0:
        meant = re.search(r"Errors: - (.*?)(?: - |$)", text[start:])
        given = re.search(r"Given value: (.*)$", text[start:])
        value = f". Got value: {given[1]}" if meant and given and meant[1].startswith("Expected a") else ""
        text = text[:start] + (meant[1] + value if meant else "it does not fit")
    text = re.sub(r"\. Got value: (?:Namespace\(|[{\[]).*", "", text)
    text = re.sub(r"^- (.*?) - Type .*", r"\1", text)
    text = re.sub(r"Type \S*(?:Callable|Union|Optional)\[.*?\] expects a function or a callable class: ", "", text)
    text = re.sub(r"Problem with given class_path (\S+?):? - ", r"class_path \1: ", text)
    text = re.sub(r"Expected a path but (\S+) either not accessible or invalid", r"there is no file \1", text)
    text = re.sub(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\])", _kind, text)
    text = re.sub(r"(it must be .*?)\. Got value: (.*)", r"\1, not '\2'", text)
    return text


def _kind(match: re.Match[str]) -> str:
    return f"it must be {match[1]}" if match[1] else f"it must be one of {match[2]}"


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
            yield from nodes(compose(part), part, here)
        else:
            yield from nodes(value, file, here)


def compose(file: Path) -> yaml.Node:
    """The YAML tree of a file.

    Raises:
        UsageError: the file is missing, or is not YAML; with the line.
    """
    if not file.is_file():
        beside = [p.name for p in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise UsageError(f"there is no config file {file}{did_you_mean(file.name, beside)}")
    try:
        tree = yaml.compose(file.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{line} is not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(tree, yaml.MappingNode):
        raise UsageError(f"{file} holds no keys")
    return tree


def locate(key: str, files: Iterable[Path], argv: Iterable[str]) -> tuple[str, str]:
    """Where a key that ends in `key` was written: (its dotted path, ` in FILE, line N`).

    The command line wins over the files and the last file over the first, as they override one another.
    """
    for flag in (arg.split("=")[0] for arg in argv if arg.startswith("--")):
        if flag == f"--{key}" or flag.endswith(f".{key}"):
            return flag.removeprefix("--"), " on the command line"
    parts = tuple(key.split("."))
    for file in reversed(list(files)):
        for path, part, line in nodes(compose(file), file):
            if path[-len(parts) :] == parts:
                return ".".join(path), f" in {part}, line {line}"
    return key, ""


def explain(message: str, options: Iterable[str], files: Iterable[Path], argv: Iterable[str]) -> str:
    """A parser's complaint in one sentence that names the key, the file and, where one is near, the right key.

    Args:
        message: what jsonargparse says; parsers nest, so an inner one may have passed through here already.
        options: the keys that the innermost parser would have taken.
        files: the `--config` files, in order.
        argv: the command line.
    """
    inner = re.search(
        r"there is no key '(?P<key>[^']+)'(?P<hint>, did you mean '[^']+'\?|; there are: [\w, ]+)?", message
    )
    if inner:
        whole, place = locate(inner["key"], files, argv)
        return f"there is no key '{whole}'{place}{inner['hint'] or ''}"
    wrong = re.match(r"(?:Group '(?P<group>[^']+)' does not accept option|Option) '(?P<key>[^']+)'", message)
    if wrong:
        key = ".".join(filter(None, wrong.group("group", "key")))
        whole, place = locate(key, files, argv)
        if not place:
            whole, place = locate(wrong["key"], files, argv)
        leaves = sorted({option.rsplit(".", 1)[-1] for option in options} - {"help", "config", "print_config"})
        hint = did_you_mean(key.rsplit(".", 1)[-1], leaves)
        return f"there is no key '{whole}'{place}{hint or others(leaves)}"
    value = re.match(r'Parser key "(?P<key>[^"]+)":\s*(?P<what>.*)', message, flags=re.S)
    if value:
        *path, what = re.split(r"(?<=\w): (?=it must be|there is|\w+:)", plain_words(value["what"]))
        key, place = locate(path[-1] if path else value["key"], files, argv)
        if not place:  # an inner parser's word, which the outermost places
            return f"{value['key']}: {': '.join([*path, what])}"
        return f"{key}{place}: {what}"
    unknown = re.match(r"unrecognized arguments: (?P<flag>\S+)", message, flags=re.I)
    if unknown:
        flag = unknown["flag"].split("=")[0]
        return f"there is no option '{flag}'{did_you_mean(flag, [f'--{option}' for option in options])}"
    missing = re.match(r"the following arguments are required: (?P<keys>.*)", message)
    if missing:
        return (
            f"the config lacks {missing['keys']}; an overlay follows a whole one, such as --config configs/joint.yaml"
        )
    return plain_words(message)


def others(options: list[str]) -> str:
    """`; there are: x, y`, where they are few enough to read."""
    return f"; there are: {', '.join(options)}" if 0 < len(options) <= 12 else ""


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
