"""Weights on disk: names and shapes at once, tensors one by one, mapped from their files and never held together.

A file of safetensors or of torch.save, an index of shards, or a folder of one network: shards, a pipeline of diffusers
(that is, its transformer/), or what lies there alone. Where there are two, none is taken. Nothing is unpickled but
tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ccl.weights.read import SAFE, named, opened, read_json, weight_map

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
INDEX, PIPELINE = ".safetensors.index.json", "model_index.json"
PART = re.compile(r"-\d{5}-of-(\d{5})(?=\.\w+$)")
# Folders of a backbone: in a pipeline of diffusers, and in Wan2.2's own release. Wan2.2-A14B is two networks, one for
# each half of the times.
EXPERTS = ("high_noise_model", "low_noise_model")
INNER = (("transformer", "transformer_2"), EXPERTS)
# torch's words for safetensors'.
TYPES = {
    **{f"{short}{bits}": f"{long}{bits}" for short, long in (("F", "float"), ("I", "int")) for bits in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"U8": "uint8", "BOOL": "bool", "C64": "complex64"},
}


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
            held = opened(file) if file.suffix == SAFE else named(opened(file), file)
            if twice := self._of.keys() & set(held.keys()):
                raise ValueError(f"{self.path} holds {min(twice)} in two files; name the one that is meant")
            self._of.update(dict.fromkeys(held.keys(), held))

    def __getitem__(self, name: str) -> Tensor:
        held = self._of[name]
        return held[name] if isinstance(held, dict) else held.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, which is not read for it."""
        held = self._of[name]
        return tuple(held[name].shape if isinstance(held, dict) else held.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Of a tensor's numbers, in torch's words as far as it has them; the tensor is not read for it."""
        held = self._of[name]
        if isinstance(held, dict):
            return str(held[name].dtype).removeprefix("torch.")
        kind = held.get_slice(name).get_dtype()
        return TYPES.get(kind, kind)


def files(path: Path) -> list[Path]:
    """The files that make up one network: of a file, an index of shards, or a folder that holds one.

    Raises:
        ValueError: there are none, some are missing, or the folder holds several networks.
    """
    if path.is_file():
        return _shards(path) if path.name.endswith(INDEX) else _parts(path)
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    found = _networks(path)
    if len(found) > 1:
        here = next((name for name in found if (path / name).exists()), found[0])
        raise ValueError(
            f"{path} is of more than one network, {_listed(found)}, and a stream takes one: name it, as {path / here}"
        )
    if found:
        return files(path / found[0])
    below = sorted(folder.name for folder in path.iterdir() if folder.is_dir() and _networks(folder))
    hint = f"; name {_listed([str(path / name) for name in below], 'or')}" if below else ""
    raise ValueError(f"{path} holds no {SAFE} weights{hint}")


def _networks(folder: Path) -> list[str]:
    """What one would name for each network in a folder: a folder in it, an index, or a file."""
    inner = [name for pair in INNER for name in pair if (folder / name).is_dir()]
    if inner and inner[0] in EXPERTS:  # of which one alone is half a model
        inner = list(EXPERTS)
    if (folder / PIPELINE).is_file() and inner:
        named = read_json(folder / PIPELINE)  # [null, null] where a pipeline could have a part and has not
        return inner + [name for name in INNER[0] if name not in inner and named.get(name) not in (None, [None, None])]
    indices = sorted(folder.glob(f"*{INDEX}"))
    held = {file for index in indices for file in _shards(index)}
    for suffixes in ((SAFE,), PICKLED):  # the original releases have other networks' pickles beside
        loose = sorted(file for file in folder.iterdir() if file.suffix in suffixes and file not in held)
        first = {PART.sub("", file.name): file.name for file in reversed(loose)}
        if names := [*inner, *(index.name for index in indices), *sorted(first.values())]:
            return names
    return []


def _parts(file: Path) -> list[Path]:
    """The file, or all that are numbered with it, as model-00001-of-00003.safetensors."""
    numbered = PART.search(file.name)
    if numbered is None:
        return [file]
    count = int(numbered[1])
    names = [PART.sub(f"-{i:05d}-of-{count:05d}", file.name) for i in range(1, count + 1)]
    return _complete([file.with_name(name) for name in names], "whose name counts it")


def _shards(index: Path) -> list[Path]:
    names = sorted(set(weight_map(index).values()))
    return _complete([index.with_name(name) for name in names], f"named by {index.name}")


def _complete(parts: list[Path], how: str) -> list[Path]:
    if lacking := [part for part in parts if not part.is_file()]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ValueError(f"{lacking[0].parent} lacks {lacking[0].name}{more}, {how}: it was not fetched whole")
    return parts


def _listed(names: list[str], word: str = "and") -> str:
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return f" {word} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
