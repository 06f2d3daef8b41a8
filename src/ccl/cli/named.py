"""Parts that `ccl shards encode` names on its command line: `Name`, `Name {key: value}`, or a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccl.cli.errors import UsageError, is_yaml, read_yaml
from ccl.files.yamltext import Loader
from ccl.spelling import did_you_mean

# Short names of the classes.
NAMES = {
    "EmbeddedAudio": "ccl.codecs.EmbeddedAudio",
    "EmbeddedVideo": "ccl.codecs.EmbeddedVideo",
    "LTX2Audio": "ccl.codecs.LTX2Audio",
    "MMAudio": "ccl.codecs.MMAudio",
    "UMT5": "ccl.text.UMT5",
    "WanVideo": "ccl.codecs.WanVideo",
}


def part_named(text: str, where: str) -> Any:
    """Its class_path and init_args; no class is imported.

    Raises:
        UsageError: there is no such short name, or its arguments are no mapping.
    """
    if is_yaml(text):
        return read_yaml(Path(text))
    name, _, arguments = text.partition(" ")
    if name not in NAMES and "." not in name:
        raise UsageError(
            f"{where}: there is no class '{name}'{did_you_mean(name, NAMES)}; there are: {', '.join(NAMES)}"
        )
    try:
        values = yaml.load(arguments, Loader) if arguments.strip() else {}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # dates that are none, keys that are lists
        values = None
    if not isinstance(values, dict):
        raise UsageError(f"{where}: {arguments.strip()} is no mapping such as {{path: wan2.1-t2v-1.3b}}")
    return {"class_path": NAMES.get(name, name), "init_args": values}
