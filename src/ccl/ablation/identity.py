"""What a job's result follows from: plain values, their hash, the weights that were begun from."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ccl.files import sha256


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved config a trained run follows from, by dotted key; as in resuming, what is null says no more
    than what is not there, so that runs are not trained again for an argument that came after them."""
    from ccl.storage.run import MAY_CHANGE, leaves, plain

    free = [key for key in MAY_CHANGE if key not in ("trainer.max_steps", "trainer.max_time")]
    return {
        key: value
        for key, value in leaves(plain(config))
        if value is not None and not any(fnmatch.fnmatchcase(key, pattern) for pattern in free)
    }


def digest(value: Any) -> str:
    """A short hash of plain values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sums(source: Any) -> Any:
    """What weights that are begun from hold, as far as they lie here: their name may stay when they change."""
    if isinstance(source, Mapping):
        return {stream: sums(one) for stream, one in source.items()}
    if source is None:
        return None
    from ccl.storage.source import find_source
    from ccl.weights.find import installed

    if not (path := installed(source)).exists():  # a name of published weights, which have a sum of their own
        return source
    found = path if path.is_file() else find_source(path).weights
    return sha256(found) if found.is_file() else str(found)


def shipped() -> str:
    """The model folder that comes with the package."""
    from ccl.cli.evaluate import SHIPPED

    return str(SHIPPED)


def modules(config: Any) -> list[str]:
    """Whose code a run of the user's own YAML names, beside ours: it was trained with it, so it may be loaded."""
    from ccl.storage.run import leaves

    paths = [str(value) for key, value in leaves(config or {}) if key.endswith("class_path")]
    return sorted({path.partition(".")[0] for path in paths if "." in path} - {"ccl", "lightning", "torch"})
