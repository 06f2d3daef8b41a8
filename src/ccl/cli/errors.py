"""One clear sentence for each thing that can be wrong with a command line or a config.

jsonargparse names neither the YAML file nor, inside class_path/init_args, the parent of a wrong key: both are looked up
here in the files themselves, and the nearest right key is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ccl.files import FileError, yamltext
from ccl.files.shipped import ships
from ccl.spelling import did_you_mean, meant, nearest
from ccl.storage.moved import told

CLASS = ("class_path", "init_args")  # the keys of a node that names a class


class UsageError(ValueError):
    """The command line or a config is at fault, not the work: exit 2."""


def one_sentence(error: BaseException) -> str:
    """The message of an error on one line."""
    if isinstance(error, KeyError):
        return f"missing key {error}"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    # A word longer than any path is a slip, of which the ends say enough.
    return re.sub(r"\S{500,}", lambda word: f"{word[0][:100]}...{word[0][-100:]}", plain_words(text))


def plain_words(text: str) -> str:
    """jsonargparse's messages in fewer words: of a union's complaints the one that was meant, without reprs."""
    text = " ".join(text.split())
    while (start := text.rfind("Does not validate against any of the Union subtypes")) >= 0:
        meant = re.search(r"Errors: - (.*?)(?: - |$)", text[start:])
        given = re.search(r"Given value: (.*)$", text[start:])
        value = f". Got value: {given[1]}" if meant and given and meant[1].startswith("Expected a") else ""
        text = text[:start] + (meant[1] + value if meant else "it does not fit")
    text = re.sub(r"\. Got value: (?:Namespace\(|[{\[]).*", "", text)
    text = re.sub(
        r"-? ?Expected a path but (\S+) either not accessible or invalid - .*No module named '([^']+)'.*",
        r"there is neither a file \1 nor a module '\2'",
        text,
    )
    text = re.sub(
        r"-? ?Expected a path but (\S+) either not accessible or invalid - .*Expected a dot import path string: \1.*",
        r"'\1' is neither a file nor a class",
        text,
    )
    text = re.sub(r"^- (.*?) - Type .*", r"\1", text)
    text = re.sub(r"Type \S*(?:Callable|Union|Optional)\[.*?\] expects a function or a callable class: ", "", text)
    text = re.sub(r"Problem with given class_path (\S+?)(?::? -|:) ", r"class_path \1: ", text)
    text = re.sub(r"Option '(\S+)' is not accepted", r"there is no key '\1'", text)
    # Where a word of a few was meant, it is no file; only what is called like one.
    text = re.sub(
        r"- Expected a path but (?!\S*\.ya?ml ).*? either not .* invalid - (?=Expected a typing\.Literal)", "", text
    )
    text = re.sub(r"- (Expected a path but \S+ either not .* invalid) - Expected a typing\.Literal.*", r"\1", text)
    text = re.sub(r"Expected a path but (\S+) either not accessible or invalid", r"there is no file \1", text)
    text = re.sub(r"Expected an? (?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\])", _kind, text)
    text = re.sub(r"(it must be .*?)\. Got value: (.*)", r"\1, not '\2'", text)
    return text


def _kind(match: re.Match[str]) -> str:
    return f"it must be {match[1]}" if match[1] else f"it must be one of {match[2]}"


class Key(NamedTuple):
    """A key of a YAML file: its path, file and line, and the text that it holds, if it is one."""

    path: tuple[str, ...]
    file: Path
    line: int
    text: str | None


def nodes(node: yaml.Node, file: Path, path: tuple[str, ...] = (), above: tuple[Path, ...] = ()) -> Iterator[Key]:
    """Every key of a YAML tree, part files included; `a.b` is b in a, as jsonargparse reads it.

    Args:
        node: of the tree.
        file: that holds it.
        path: of the node.
        above: files on the way here.

    Raises:
        UsageError: a part file cannot be read, or leads to itself.
    """
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from nodes(item, file, (*path, str(index)), above)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        words, line = str(key.value).split("."), key.start_mark.line + 1
        yield from (Key((*path, *words[:count]), file, line, None) for count in range(1, len(words)))
        here = (*path, *words)
        text = value.value if isinstance(value, yaml.ScalarNode) else None
        yield Key(here, file, line, text)
        part = file.parent / text if text is not None and is_yaml(text) else None
        if part and part.is_file():
            if part.resolve() in (files := (*above, file.resolve())):
                raise UsageError(f"{file}, line {line}: {text} leads to itself")
            yield from nodes(compose(part), part, here, files)
        else:
            yield from nodes(value, file, here, above)


def compose(file: Path) -> yaml.MappingNode:
    """The tree of a YAML file of the user's.

    Raises:
        UsageError: as `ccl.files.yamltext.compose`, and the nearest name beside it where there is no such file.
    """
    with of_the_user(file):
        return yamltext.compose(file)


def read_yaml(file: Path) -> dict[Any, Any]:
    """What a YAML file of the user's holds; raises as `compose`."""
    with of_the_user(file):
        return yamltext.read_yaml(file)


@contextmanager
def of_the_user(file: Path) -> Iterator[None]:
    """UsageError instead of FileError: what is wrong with a file that was named is the command line's fault."""
    if not is_file(file):
        beside = [p.name for p in file.parent.glob("*.y*ml")] if is_dir(file.parent) else []
        hint = "; `ccl init` writes those that ship" if ships(file, "configs") else did_you_mean(file.name, beside)
        raise UsageError(f"there is no config file {file}{hint}")
    try:
        yield
    except FileError as error:
        raise UsageError(str(error)) from error


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long; with a zero byte
        return False


def is_dir(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def flags_of(argv: Iterable[str]) -> list[tuple[str, str]]:
    """Flags of a command line, without their dashes, each with the value beside it or after its `=`."""
    words = list(argv)
    found = []
    for word, after in zip(words, [*words[1:], ""], strict=False):
        flag, sign, value = word.partition("=")
        if flag.startswith("--"):
            found.append((flag.removeprefix("--"), value if sign else after))
    return found


def locate(key: str, files: Iterable[Path], argv: Iterable[str]) -> tuple[str, str]:
    """Where a key that ends in `key` was written: (its dotted path, ` in FILE, line N`).

    The command line, and part files that it names, win over the files and the last file over the first, as they
    override one another. A key that stands in a text, such as `data: "{init_args: {shards: x}}"`, is where the text is.
    """
    parts = tuple(key.split("."))
    flags = flags_of(argv)
    for flag, _ in flags:
        if flag == key or flag.endswith(f".{key}"):
            return flag, " on the command line"
    for path, part, line, text in written(files, flags):
        if path[-len(parts) :] == parts:
            return ".".join(path), f" in {part}, line {line}"
        if text and path == parts[: len(path)]:
            return key, f" in {part}, line {line}"
    return key, ""


def written(files: Iterable[Path], flags: Iterable[tuple[str, str]]) -> Iterator[Key]:
    """Every key of the files of a command line: of part files that its flags name, and then of the last file first."""
    given = [(tuple(flag.split(".")), Path(value)) for flag, value in flags if is_yaml(value) and is_file(Path(value))]
    whole = [((), file) for file in files]
    for above, file in (*((path, file) for path, file in given if path != ("config",)), *reversed(whole)):
        yield from nodes(compose(file), file, above)


def of_older_version(files: Iterable[Path], argv: Iterable[str]) -> str:
    """What is said of a key or class that an older version had; "" where there is none."""
    flags = flags_of(argv)
    for flag, value in flags:
        if said := told(flag, value):
            return f"{said} (on the command line)"
    for path, part, line, text in written(files, flags):
        if said := told(".".join(path), text):
            return f"{said} (in {part}, line {line})"
    return ""


def no_keys(groups: Iterable[str], files: Iterable[Path], argv: Iterable[str]) -> str:
    """What is said of the first of some groups of keys where something else was written last, as a list; "" of none."""
    trees = [(file, read_yaml(file)) for file in reversed(list(files))]
    flags = dict(flags_of(argv))
    for group in groups:
        if (given := flags.get(group, "")) in ("[]", "null"):
            return f"{group} on the command line is {given}; leave it out, or give it keys"
        file, tree = next((pair for pair in trees if group in pair[1]), (Path(), {}))
        if not isinstance(given := tree.get(group, {}), dict | str):  # a text may be a part file
            _, place = locate(group, [file], [])
            return f"{group}{place} is {'null' if given is None else given}; leave it out, or give it keys"
    return ""


def explain(message: str, options: Iterable[str], files: Iterable[Path], argv: Iterable[str]) -> str:
    """A parser's complaint in one sentence that names the key, the file and, where one is near, the right key.

    Args:
        message: what jsonargparse says; parsers nest, so an inner one may have passed through here already.
        options: the keys that the innermost parser would have taken.
        files: the `--config` files, in order.
        argv: the command line.
    """
    inner = re.search(
        r"there is no key '(?P<key>[^']+)'(?P<hint> \(did you mean '[^']+'\?\)|; there are: [\w, ]+)?", message
    )
    if inner:
        whole, place = locate(inner["key"], files, argv)
        return f"there is no key '{whole}'{place}{inner['hint'] or ''}"
    empty = re.match(r'Empty nested key: "(?P<key>[^"]*)"', message)
    if empty:
        return f"the key '{empty['key']}'{locate(empty['key'], files, argv)[1]} has an empty word"
    option = re.search(r"there is no option '--(?P<flag>[^']+)'(?: \(did you mean '--(?P<right>[^']+)'\?\))?", message)
    if option:
        return no_option(option["flag"], option["right"] or "", argv)
    wrong = re.match(r"(?:Group '(?P<group>[^']+)' does not accept option|Option) '(?P<key>[^']+)'", message)
    if wrong:
        key, siblings = first_unknown(".".join(filter(None, wrong.group("group", "key"))), options)
        whole, place = locate(key, files, argv)
        hint = did_you_mean(key.rpartition(".")[2], [*siblings, *CLASS])
        return f"there is no key '{whole}'{place}{hint or others(siblings)}"
    value = re.match(r'Parser key "(?P<key>[^"]+)":\s*(?P<what>.*)', message, flags=re.S)
    if value:
        said = plain_words(value["what"])
        what = re.sub(r"^(?:[a-z_]\w*: )+", "", said)
        path = said.removesuffix(what).split(": ")[:-1]
        key, place = locate(path[-1] if path else value["key"], files, argv)
        if not place:  # an inner parser's word, which the outermost places
            return f"{value['key']}: {': '.join([*path, what])}"
        return f"{key}{place}: {what}"
    unknown = re.match(r"unrecognized arguments: (?P<flag>\S+)", message, flags=re.I)
    if unknown:
        flag = unknown["flag"].split("=")[0].removeprefix("--")
        if flag.startswith("-"):
            return f"there is no option '{flag}'"
        key, siblings = first_unknown(flag, options)
        right = nearest(key.rpartition(".")[2], [*siblings, *CLASS])
        return no_option(
            flag, f"{key.rpartition('.')[0]}.{right}{flag.removeprefix(key)}".lstrip(".") if right else "", argv
        )
    missing = re.match(r"the following arguments are required: (?P<keys>.*)", message)
    if missing:
        return (
            f"the config lacks {missing['keys']}; an overlay follows a whole one, such as --config configs/joint.yaml"
        )
    return plain_words(message)


def first_unknown(key: str, options: Iterable[str]) -> tuple[str, list[str]]:
    """A dotted key up to its first word that does not exist, and the words that exist in that place."""
    words, options = key.split("."), list(options)
    for count in range(len(words)):
        above = "".join(f"{word}." for word in words[:count])
        under = {option.removeprefix(above).split(".")[0] for option in options if option.startswith(above)}
        if words[count] not in under:
            break
    return ".".join(words[: count + 1]), sorted(under - {"help", "config", "print_config", "print_shtab"})


def no_option(flag: str, right: str, argv: Iterable[str]) -> str:
    """The sentence for a flag that does not exist, written out as it was typed, and the right one where it is known."""
    whole, _ = locate(flag, [], argv)
    above = whole.removesuffix(flag)
    return f"there is no option '--{whole}'{meant(f'--{above}{right}' if right else '')}"


def others(options: list[str]) -> str:
    """`; there are: x, y`, where they are few enough to read."""
    return f"; there are: {', '.join(options)}" if 0 < len(options) <= 12 else ""


LOOP = re.compile(r"Config file loop detected: [^\n]*")


def first_complaint(message: str, error: Exception | None) -> tuple[str, Exception | None]:
    """What jsonargparse did not like of a part file, where it says that it met the file twice.

    It reads a file again that it did not like, takes that for a loop, and says so instead. Real loops were told before,
    by `nodes`.
    """
    trace: BaseException | None = error
    while trace is not None and not LOOP.match(str(trace)):
        trace = trace.__cause__ or trace.__context__
    first = trace.__context__ if trace is not None else None
    if not isinstance(first, Exception):
        return message, error
    return LOOP.sub(lambda _: str(first), message), first


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


def is_yaml(value: object) -> bool:
    """Whether a value is the name of a YAML file."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))
