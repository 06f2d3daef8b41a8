"""Weights on disk, as files hold them: named tensors on the CPU, memory-mapped, one at a time.

A network in its file's precision so costs its size once. Nothing is unpickled but tensors and plain values.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccl.files import FileError, plain_name, reading
from ccl.weights.formats import check_dtype, foreign_file, mappable

SAFE = ".safetensors"
STEMS = ("diffusion_pytorch_model", "model")  # as diffusers and transformers call their weights
# Where a file of torch.save holds its tensors, when they are not at the top.
NESTED = ("state_dict", "model", "module", "generator")


def opened(file: Path) -> Any:
    """What a file of weights holds: a file of safetensors, opened, or the value in one of torch.save, mapped from it.

    Raises:
        FileError: it is damaged, of another kind, or a pickle that would run code.
        OSError: the machine's, as where there is no file.
    """
    with reading(file, "weights"):
        if foreign := foreign_file(file):
            raise FileError(f"{file} is {foreign}")
        if file.suffix == SAFE:
            from safetensors import safe_open

            return safe_open(file, framework="pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickles than torch's, which are refused or read all the same
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mappable(file))


def named(held: Any, file: Path) -> dict[str, Tensor]:
    """The tensors of one network in a value of torch.save, at its top or below a name of NESTED.

    Args:
        held: as `opened` gives it.
        file: names it in errors.

    Raises:
        FileError: it holds two networks, or anything else.
    """
    for _ in NESTED:  # one may lie within another; a table that holds itself has no end
        inner = [name for name in NESTED if isinstance(held, Mapping) and isinstance(held.get(name), Mapping)]
        if len(inner) > 1:
            raise FileError(f"{file} holds two networks, {' and '.join(sorted(inner))}, and only one of them is meant")
        held = held[inner[0]] if inner else held
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise FileError(f"{file} holds no table of named tensors")
    return dict(held)


def tensors(path: Path, keep: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one network, one at a time, on the CPU and memory-mapped.

    Args:
        path: a .safetensors file, a file of torch.save, or a folder of safetensors.
        keep: which names; the others are not read.

    Raises:
        ValueError: a file is damaged, of another kind, or a pickle that would run code; or its numbers are no floats.
    """
    for file in weight_files(path):
        held = opened(file)
        if file.suffix != SAFE:
            state = named(held, file)
            for name in filter(keep, state):
                check_dtype(name, state[name].dtype, file)
                yield name, state[name]
            continue
        with reading(file, "weights"), held:
            for name in filter(keep, held.keys()):
                tensor = held.get_tensor(name)
                check_dtype(name, tensor.dtype, file)
                yield name, tensor


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds an object.

    Raises:
        ValueError: it is absent or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    with reading(path, "JSON"):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no object")
    return value


def weight_map(index: Path) -> dict[str, str]:
    """Which file beside an index of safetensors holds each tensor.

    Raises:
        ValueError: it is no such index, or names a file elsewhere.
    """
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} is no index of shards: it has no weight_map")
    return {key: plain_name(name, index) for key, name in names.items()}


def weight_files(path: Path) -> list[Path]:
    """The files of one network: a file itself, or those of a folder as diffusers or transformers save it.

    Raises:
        ValueError: a folder holds none, or its index names one that is not there.
    """
    if path.is_file():
        return [path]
    ends = (".safetensors.index.json", ".safetensors")
    found = [file for stem in STEMS for end in ends if (file := path / f"{stem}{end}").is_file()]
    if len(found) > 1:
        raise ValueError(f"{path} holds {found[0].name} and {found[1].name}, and only one of them is meant; remove one")
    if found and found[0].suffix == ".safetensors":
        return found
    if found:
        names = sorted(set(weight_map(found[0]).values()))
        if lacking := [name for name in names if not (path / name).is_file()]:
            raise ValueError(f"{path} lacks {lacking[0]}, which {found[0].name} names")
        return [path / name for name in names]
    raise ValueError(f"{path} holds no weights ({' or '.join(f'{stem}.safetensors' for stem in STEMS)})")


def digest(state: Mapping[str, Tensor], *settings: Any) -> str:
    """Twelve letters that name weights, whatever their order and precision on disk: each is rounded to bfloat16."""
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(state):
        sha.update(f"{name}{tuple(state[name].shape)}".encode())
        sha.update(state[name].bfloat16().contiguous().view(torch.int16).numpy().tobytes())
    return sha.hexdigest()[:12]


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a network's files: while they are as they were, so is what was read of them."""
    files = [(file, file.stat()) for file in weight_files(path)]
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in files)
