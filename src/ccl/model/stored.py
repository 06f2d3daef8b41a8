"""Weights on disk: names and shapes at once, tensors one by one, mapped from their files and never held together.

A file of safetensors or of torch.save, or a folder: shards with their index, a pipeline of diffusers (that is, its
transformer/), or what lies there alone. Nothing is unpickled but tensors.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAFE, PICKLED = (".safetensors",), (".pth", ".pt", ".bin", ".ckpt")
# Where a file of torch.save holds its tensors, when they are not at the top.
NESTED = ("state_dict", "model", "module", "generator")


class Stored(Mapping[str, Tensor]):
    """The tensors of one network on disk, by name. Each is read when asked for, and is then the caller's alone to hold.

    Args:
        path: a file, or a folder.

    Raises:
        ValueError: one sentence: there is none, it is incomplete or damaged, or it is a pickle that would run code.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._of: dict[str, Any] = {}  # the opened file of each name
        for file in files(self.path):
            opened = _open(file)
            if twice := self._of.keys() & set(opened.keys()):
                raise ValueError(f"{self.path} holds {min(twice)} in two files; name the one that is meant")
            self._of.update(dict.fromkeys(opened.keys(), opened))

    def __getitem__(self, name: str) -> Tensor:
        opened = self._of[name]
        return opened[name] if isinstance(opened, dict) else opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, which is not read for it."""
        opened = self._of[name]
        return tuple(opened[name].shape if isinstance(opened, dict) else opened.get_slice(name).get_shape())


def files(path: Path) -> list[Path]:
    """The files that make up one network.

    Raises:
        ValueError: there are none, or an index names one that is not there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    inner = path / "transformer"
    if inner.is_dir():
        return files(inner)
    indices = sorted(path.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise ValueError(f"{path} holds two networks, {indices[0].name} and {indices[1].name}")
    if indices:
        names = sorted(set(_weight_map(indices[0]).values()))
        if lacking := [name for name in names if not (path / name).is_file()]:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise ValueError(f"{path} lacks {lacking[0]}{more}, named by {indices[0].name}: it was not fetched whole")
        return [path / name for name in names]
    for suffixes in (SAFE, PICKLED):
        if found := sorted(file for file in path.iterdir() if file.suffix in suffixes):
            return found
    raise ValueError(f"{path} holds no {SAFE[0]} weights")


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names = json.loads(index.read_text())["weight_map"]
        if all(Path(name).name == name for name in names.values()):
            return names
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of shards: {' '.join(str(error).split())[:120]}") from error
    raise ValueError(f"{index} names files of other folders")


def _open(file: Path) -> Any:
    """An opened safetensors file, or a dict of tensors that are mapped from theirs."""
    if file.suffix in SAFE:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} cannot be read as weights ({_short(error)}); was it fetched or copied whole?"
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's words about odd pickles; they are read or refused all the same
            # Only torch's zip format can be mapped; the old one is read whole.
            state: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors or is damaged, and no code in a file of weights is ever run"
        ) from error
    except Exception as error:  # torch raises whatever the bytes provoke
        raise ValueError(f"{file} cannot be read as weights ({_short(error)})") from error
    for name in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no table of named tensors")
    return dict(state)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
