"""Published weights that a model is made of, with their licences, and what a config names that only this disk has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl.weights.catalogue import is_folder
from ccl.weights.find import classes, entry_of, on_hub, repository

ABSOLUTE = re.compile(r"[/\\]|~(?!\d)|file:|[A-Za-z]:[/\\]")  # a text that begins so is a path
URL = re.compile(r"\b(?!file:)[a-z][\w+.-]*://\S*", re.IGNORECASE)
WITHIN = re.compile(  # a path in a text; what follows a word, as in and/or, is none, nor is /a alone
    r"""(?:
      (?<![\w/.~])/[\w.@+-]+/            # /a/b
    | (?<==)/                            # =/a
    | (?<![\w/.~])~(?:[A-Za-z_][\w-]*)?/ # ~/a, ~ann/a
    | (?<!\w)[A-Za-z]:[/\\]              # C:\a
    | (?<![\w\\])\\\\[\w.-]+\\           # \\box\a
    | (?<!\w)file:/+                     # file:/a
    )[\w.][^\s'"`,;()<>]*""",
    re.VERBOSE,
)
OWN = "ccl/checkpoints/"  # weights that ship with the package
TELLS_NOTHING = ("class_path", "words")  # keys whose texts are no paths: classes, and the words of captions


@dataclass(frozen=True)
class Part:
    """Published weights that a model needs, or began with.

    Args:
        name: as a config has it.
        use: dotted keys that name it.
        licence: of it, in words.
        link: where it is published; "" for what ships with ccl.
        repository: OWNER/NAME of the hub; "" where it is elsewhere.
    """

    name: str
    use: tuple[str, ...]
    licence: str
    link: str
    repository: str = ""


def needed(config: Mapping[str, Any]) -> dict[str, str]:
    """The weights that a model's config names, by dotted key."""
    found = {}
    for key, cls, given in classes(dict(config)):
        for name in getattr(cls, "sources", ()):
            if given.get(name) is not None:
                found[f"{key}.{name}".replace(".init_args", "")] = str(given[name])
    return found


def begun_with(training: Mapping[str, Any]) -> dict[str, str]:
    """The weights that a run's config begins with, by dotted key."""
    found = training.get("pretrained")
    streams = found if isinstance(found, dict) else {"": found}
    lora = training.get("lora")
    start = lora.get("start") if isinstance(lora, dict) else None
    given = {**{f"pretrained.{k}".rstrip("."): v for k, v in streams.items()}, "lora.start": start}
    return {key: str(value) for key, value in given.items() if value is not None}


def published(name: str) -> bool:
    """Whether others find these weights by that name."""
    return entry_of(name) is not None or name.startswith(OWN) or on_hub(name) is not None


def parts_of(named: Mapping[str, str]) -> list[Part]:
    """Published weights among those that are named, each once."""
    keys: dict[str, list[str]] = {}
    for key, name in named.items():
        if published(name):
            keys.setdefault(name, []).append(key)
    return [part_of(name, tuple(use)) for name, use in keys.items()]


def part_of(name: str, use: tuple[str, ...]) -> Part:
    if name.startswith(OWN):
        return Part(name, use, "Apache-2.0, with `ccl`", "")
    entry = entry_of(name)
    if entry is None:
        there = repository(name)
        assert there is not None, f"{name} is not published"
        return Part(name, use, "as its page says", page(there.name), there.name)
    home = entry.source[0].removeprefix("hf:") if is_folder(entry) else ""
    return Part(name, use, entry.licence, page(home) if home else entry.source[0], home)


def page(name: str) -> str:
    return f"https://huggingface.co/{name}"


def on_this_disk(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Dotted key and path of the first thing in a model's config that nobody else has; None where there is none."""
    own = next(((key, name) for key, name in needed(config).items() if not published(name)), None)
    return own or next(((key, path) for key, text in texts(config) if (path := path_in(key, text))), None)


def path_in(key: str, text: str) -> str:
    """A path of this machine in a text, which is absolute or of a file that is here; "" where it has none."""
    if ABSOLUTE.match(text):
        return text
    if found := WITHIN.search(URL.sub("", text)):
        return found[0]
    if key.startswith("provenance.") or published(text) or not ("/" in text or Path(text).suffix):
        return ""
    try:
        return text if Path(text).exists() else ""
    except (OSError, ValueError):  # no name that a file can have
        return ""


def texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config that may be a path, with its dotted key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name not in TELLS_NOTHING:
                yield from texts(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from texts(value, f"{key}.{place}")
    elif isinstance(node, str):
        yield key, node
