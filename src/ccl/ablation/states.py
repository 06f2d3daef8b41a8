"""What is known of a job's result: NAME.json beside its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ccl.files import MARK, FileError, reading, sha256, write_whole

WEIGHTS = "model.safetensors"


def read_state(result: Path) -> dict[str, Any]:
    """What is known of the result in a folder; empty where it was never begun.

    Raises:
        FileError: the file is none of its kind.
    """
    path = result.with_name(f"{result.name}.json")
    if not path.is_file():
        return {}
    with reading(path, "the state of a job"):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def write_state(result: Path, **facts: Any) -> None:
    """Say what is known of the result in a folder."""
    write_whole(result.with_name(f"{result.name}.json"), json.dumps(facts, indent=1) + "\n")


def holds_weights(run: Path, state: Mapping[str, Any]) -> bool:
    """Whether a run's folder has the weights that its state tells of."""
    weights = run / "model" / WEIGHTS
    return weights.is_file() and sha256(weights) == state.get("weights")


def made_beside(matrix: Path, kind: str, hash: str, holds: Callable[[Path, Mapping[str, Any]], bool]) -> Path | None:
    """The folder of a result that another matrix has brought to its end.

    Args:
        matrix: the folder of this one; others lie beside it.
        kind: of the job, "runs" or "rows".
        hash: of everything that the result follows from.
        holds: whether its folder has what its state tells of.
    """
    for path in sorted(matrix.parent.glob(f"*/{kind}/*.json")):
        result = path.with_suffix("")
        try:
            state = read_state(result)
        except FileError:  # the other matrix will say so when it is gone on with
            continue
        if path.parents[1] != matrix and state.get("hash") == hash and state.get("whole") and holds(result, state):
            return result
    return None


def copy_whole(folder: Path, to: Path) -> None:
    """Copy a folder to where there is none, whole or not at all; for the one writer of `to`.

    A copy and no link: a longer training writes on in its folder.
    """
    partial = to.with_name(f"{MARK}{to.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
    shutil.copytree(folder, partial)
    partial.rename(to)
