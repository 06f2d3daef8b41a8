"""Keys and classes of older versions' configs, and what has taken their place: one table for all who read a config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccl.files import FileError

_TERMS = "a task is `prob` and `terms` now, as in configs/tasks/paper.yaml: "
_VIDEO = "now a DualStreamTransformer whose `video` is a ccl.model.WanImageStream, as in configs/model/wan14b_i2v.yaml"
_AUDIO = "now a DualStreamTransformer whose `audio` is a ccl.model.OviAudioStream"

# Dotted key, as it ends -> what is said of it.
KEYS = {
    r"model\.(init_args\.)?image_prob": "a term of model.tasks says now which clips are given their first picture, as "
    "`given: {video: {part: first_frame, prob: 0.5}}`",
    r"tasks\.[^.]+\.reference": f"{_TERMS}a stream that is given is `given: {{audio: {{part: all}}}}` of a term",
    r"tasks\.[^.]+\.(route|shared_time)": f"{_TERMS}it stands in a term",
}
# Class -> what is said of it.
CLASSES = {
    "ccl.model.ImageDualStream": _VIDEO,
    "ccl.model.image.ImageDualStream": _VIDEO,
    "ccl.model.OviDualStream": _AUDIO,
    "ccl.model.ovi.OviDualStream": _AUDIO,
}


def told(key: str, value: Any) -> str:
    """What is said of a dotted key and its value; "" where both are today's."""
    if said := next((said for old, said in KEYS.items() if re.search(rf"(^|\.){old}$", key)), ""):
        return f"the key {key} is of an older version; {said}"
    if key.rpartition(".")[2] == "class_path" and isinstance(value, str) and value in CLASSES:
        return f"{key} names {value}, {CLASSES[value]}"
    return ""


def is_old(task: Any) -> bool:
    """Whether a task, as YAML holds it, has the form of an older version."""
    return isinstance(task, dict) and "terms" not in task


def first_told(config: dict[str, Any]) -> str:
    """What is said of the first key of a config that is of an older version; "" where none is."""
    return next((said for key, value in walked(config) if (said := told(key, value))), "")


def refuse_old(config: dict[str, Any], file: Path) -> None:
    """FileError where a config holds a key or class of an older version."""
    if said := first_told(config):
        raise FileError(f"{file}: {said}")


def walked(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each dotted key of a config, with its value."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        here = f"{path}.{key}" if path else str(key)
        yield here, value
        yield from walked(value, here)
