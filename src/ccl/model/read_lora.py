"""A LoRA file, read for a network: PEFT's, diffusers', ComfyUI's, musubi-tuner's, DiffSynth's and lightx2v's alike.

r rank. Nothing of a file is left out in silence: what has no place is an error, or, where the file's network is shown a
picture and ours is not, a note.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ccl.files import FileError, reading, sha256
from ccl.model.keys import called
from ccl.model.lora import LoRAFile, LowRank
from ccl.model.lora_names import PEFT, PICTURE, Names, foreign
from ccl.weights.find import find
from ccl.weights.formats import check_dtype, check_finite, foreign_file
from ccl.weights.read import SAFE, read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names in a folder
DIFFUSERS = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's config in a file

Shape = tuple[int, ...]


def read_lora(path: str | Path, shapes: Mapping[str, Shape]) -> LoRAFile:
    """A LoRA file for a network of these parameters.

    Args:
        path: a .safetensors file, a folder of PEFT's or diffusers', or a repository of the hub that is here. In the
            names of Wan2.1 or diffusers it is of the video stream; in ours of any part.
        shapes: of the network's parameters, by our names.

    Raises:
        ValueError: one sentence that names the file and the key: it is no LoRA, changes what the network has not, is
            of another size, damaged, or no safetensors.
    """
    file = file_of(find(path, "a LoRA"))
    tensors, metadata = _read(file)
    if what := foreign(tensors):
        raise FileError(f"{file} is {what}, which is not read")
    names = Names(shapes)
    places = {key: names.place(key) for key in tensors}
    if not any(place.role != "whole" for place in places.values()):
        first = f"; its first key is {next(iter(tensors))}" if tensors else ""
        raise FileError(f"{file} holds no LoRA{first}")
    found: dict[tuple[str, str], str] = {}
    for key, place in places.items():
        if other := found.get(place):
            raise FileError(f"{file} changes {_called(place.name)} twice, as {other} and as {key}")
        found[place] = key
    notes = _strangers(file, {key: place.name for key, place in places.items() if place.name not in shapes}, shapes)
    parts = {place: tensors[key] for place, key in found.items() if place[0] in shapes}
    scale_of = _scaling(file, metadata, tensors)
    low: dict[str, LowRank] = {}
    added: dict[str, Tensor] = {}
    for (name, role), tensor in parts.items():
        key = found[name, role]
        if role == "down":
            low[name] = _low_rank(file, name, found, parts, shapes[name], scale_of)
        elif role == "up" and (name, "down") not in parts:
            raise FileError(f"{file} holds {key} without what goes before it, A or lora_down")
        elif role in ("diff", "whole") and tuple(tensor.shape) != tuple(shapes[name]):
            raise FileError(f"{file}: {key} is {tuple(tensor.shape)}, and {_called(name)} {tuple(shapes[name])}")
        elif role == "diff":
            added[name] = tensor
    for (name, role), tensor in parts.items():
        if role == "up_bias":  # PEFT adds it before it scales
            weight = name.removesuffix("bias") + "weight"
            if weight not in low or tuple(tensor.shape) != tuple(shapes[name]):
                raise FileError(f"{file}: {found[name, role]} has no adapter of its shape beside it")
            added[name] = low[weight].scale * tensor.float()
    whole = {name: tensor for (name, role), tensor in parts.items() if role == "whole"}
    return LoRAFile(str(file), sha256(file), low, added, whole, notes)


def file_of(path: Path) -> Path:
    """The file of a LoRA: itself, or the one that a folder is of.

    Raises:
        FileError: it is no .safetensors, or the folder holds none or several.
    """
    if path.is_dir():
        usual = [path / name for name in (WEIGHTS, DIFFUSERS) if (path / name).is_file()]
        files = usual or sorted(path.glob(f"*{SAFE}"))
        if len(files) != 1:
            what = f"{len(files)} files of {SAFE}, and a LoRA is one: name it" if files else f"no {SAFE} file of a LoRA"
            raise FileError(f"{path} holds {what}")
        return files[0]
    if path.suffix != SAFE:
        raise FileError(f"{path} is no {SAFE} file; a LoRA is read from those alone, since others may hold code")
    return path


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file."""
    with reading(file, "weights"):
        if what := foreign_file(file):
            raise FileError(f"{file} is {what}")
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            metadata = opened.metadata() or {}
    for name, tensor in tensors.items():
        check_dtype(name, tensor.dtype, file)
        check_finite(name, tensor, file)
    return tensors, metadata


def _low_rank(
    file: Path,
    name: str,
    keys: Mapping[tuple[str, str], str],
    parts: Mapping[tuple[str, str], Tensor],
    shape: Shape,
    scale_of: Callable[[str, int], float],
) -> LowRank:
    """The product that is added to a weight of this shape."""
    key, down = keys[name, "down"], parts[name, "down"].flatten(1)
    if (name, "up") not in parts:
        raise FileError(f"{file} holds {key} without what goes behind it, B or lora_up")
    up = parts[name, "up"].flatten(1)
    product = (len(up), down.shape[1])
    if up.shape[1] != len(down) or not len(down):
        raise FileError(f"{file}: {key} is of rank {len(down)}, and {keys[name, 'up']} of rank {up.shape[1]}")
    if product != (shape[0], math.prod(shape[1:])):
        own = (shape[0], math.prod(shape[1:]))
        raise FileError(
            f"{file} is of another network: {key} is for a weight of {product}, and {_called(name)} is {own}"
        )
    alpha = parts.get((name, "alpha"))
    if alpha is not None and alpha.numel() != 1:
        raise FileError(f"{file}: {keys[name, 'alpha']} is {tuple(alpha.shape)}; it must be one number")
    return LowRank(down, up, scale_of(key, len(down)) if alpha is None else float(alpha) / len(down))


def _scaling(file: Path, metadata: Mapping[str, str], keys: Mapping[str, Any]) -> Callable[[str, int], float]:
    """What scales an adapter of some key and rank that has no alpha of its own: as PEFT's config says, else 1."""
    beside, where = file.with_name(CONFIG), file.name
    if beside.is_file() and (file.name == WEIGHTS or any(key.startswith(PEFT) for key in keys)):
        config, where = read_json(beside), str(beside)
    elif METADATA in metadata:
        with reading(file, "a LoRA"):
            given = json.loads(metadata[METADATA])
            config = {key.removeprefix("transformer."): value for key, value in given.items()}
    elif file.name == WEIGHTS:
        raise FileError(f"{file} has no {CONFIG} beside it, which says how its adapters are scaled")
    else:
        return lambda key, rank: 1.0
    alphas = config.get("alpha_pattern") or {}
    root = bool(config.get("use_rslora"))
    usual = config.get("lora_alpha")
    for value in (usual, *(alphas.values() if isinstance(alphas, dict) else [None])):
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise FileError(f"{where}: an alpha of its adapters is {str(value)[:40]!r}; it must be a number")
    assert isinstance(usual, int | float)

    def scale(key: str, rank: int) -> float:
        module = re.sub(rf"^({re.escape(PEFT)}|transformer\.)|\.lora_A(\.default)?\.weight$", "", key)
        special = (alpha for pattern, alpha in alphas.items() if re.match(rf"(.*\.)?({pattern})$", module))
        return next(special, usual) / (math.sqrt(rank) if root else rank)

    return scale


def _strangers(file: Path, keys: Mapping[str, str], shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """A note of keys that the network has no place for, where that is because it is shown no picture.

    Raises:
        FileError: it is for any other reason.
    """
    for key, name in keys.items():
        if PICTURE.search(name):
            continue
        count = sum(not PICTURE.search(other) for other in keys.values())
        why = ""
        if not any(".video." in f".{own}" for own in shapes):
            why = ", which has no video stream"
        elif (block := re.match(r"blocks\.(\d+)\.", name)) and not any(own.startswith(block[0]) for own in shapes):
            why = f", which has {len({own.split('.')[1] for own in shapes if own.startswith('blocks.')})} blocks"
        raise FileError(f"{file} has {count} keys that have no place in this network{why}; the first is {key}")
    if not keys:
        return ()
    first = next(iter(keys))
    return (
        f"{file.name} is of a network that is shown a first picture: {len(keys)} of its keys, the first {first}, have "
        "no place in this one and are left out",
    )


def _called(name: str) -> str:
    return called(name) if re.search(r"(^|\.)(video|audio)\.", name) else name
