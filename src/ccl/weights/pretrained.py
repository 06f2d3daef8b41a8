"""Published weights on disk: where they lie, how they are read, and how a network holds them outside a module tree.

Nothing is fetched and nothing is unpickled but tensors. Files are memory-mapped, so a network in its file's precision
costs its size once. A network that is only used, never trained, lives in a `Frozen`: it is loaded when first called
for, and is neither saved, averaged, sharded nor handed to an optimizer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from ccl.files import plain_name, reading
from ccl.weights.formats import check_dtype, foreign_file, mappable

Precision = Literal["float32", "bfloat16"]
Net = TypeVar("Net", bound=nn.Module)

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
NESTED = ("generator", "state_dict")  # where a file of torch.save may hold its tensors, when not at the top
STEMS = ("diffusion_pytorch_model", "model")  # as diffusers and transformers call their weights


class Absent(ValueError):  # noqa: N818 - a fact more than an error
    """Weights that a config names are not on this machine; the message is one sentence."""


class Frozen(Generic[Net]):
    """A network that is loaded when it is first called for.

    Args:
        load: makes the network on a device; raises ValueError in one sentence.
    """

    def __init__(self, load: Callable[[torch.device], Net]) -> None:
        self.load = load
        self.net: Net | None = None

    def on(self, device: torch.device) -> Net:
        """The network on this device, ready to be used."""
        if self.net is None:
            self.net = self.load(device).eval().requires_grad_(False)
        return self.net.to(device)

    def unload(self) -> None:
        """Forget the network. It comes back from its file, which the system still holds in memory where it can."""
        self.net = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def find(path: str | Path, what: str) -> Path:
    """A file or folder, or where weights that were fetched lie on this machine.

    Args:
        path: as a config gives it: a path, a name of `ccl weights list`, or OWNER/REPO of the hub.
        what: for the message, as "Wan's VAE".

    Raises:
        Absent: there is none; weights of a known name are to be fetched first.
    """
    found = search(path)
    if found is not None:
        return found
    fetch = command([str(path)])
    if not fetch:
        raise Absent(f"there is no file or folder {path}, given as {what}{_nearest(str(path))}")
    raise Absent(f"{what} is {path}, which is not on this machine: `{fetch}`, or name a folder")


def search(path: str | Path) -> Path | None:
    """As `find`; None where there is none."""
    given = Path(path).expanduser()
    if given.exists():
        return given
    from ccl.weights.catalogue import cache

    name = str(path)
    if (entry := _entry(name)) is not None:
        if (place := cache() / entry.file).exists():
            return place
        name = entry.source[0].removeprefix("hf:") if entry.source else ""
    if not HUB_NAME.fullmatch(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def missing(config: Any) -> str:
    """One sentence that names all published weights that a config asks for and this machine does not have; "" for none.

    Args:
        config: plain values. A class says in its attribute `sources` which of its arguments name weights, and a key
            `pretrained` names some or, in an object, one for each stream.
    """
    lacking: dict[str, list[str]] = {}
    for key, path in _sources(config):
        if search(path) is None:
            lacking.setdefault(str(path), []).append(key)
    if not lacking:
        return ""
    listed = ", ".join(f"{path} ({' and '.join(keys)})" for path, keys in lacking.items())
    fetch = command(lacking)
    how = f"; `{fetch}` fetches them, or name files of your own" if fetch else ""
    return f"the config names weights that are not on this machine: {listed}{how}"


def command(names: Iterable[str]) -> str:
    """The line that fetches what can be fetched of these; "" for paths."""
    known = list(dict.fromkeys(entry.name for name in names if (entry := _entry(name)) is not None))
    # runs/x reads like a repository of the hub; where there is a folder runs, it is none.
    hub = [
        name for name in names if _entry(name) is None and HUB_NAME.fullmatch(name) and not Path(name).parent.is_dir()
    ]
    others = [f"hf download {name}" for name in hub]
    return " && ".join(([f"ccl weights fetch {' '.join(known)}"] if known else []) + others)


def classes(config: Any, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every class_path of a config: (dotted path, the class, its init_args)."""
    if isinstance(config, dict):
        if isinstance(config.get("class_path"), str):
            yield path, pkgutil.resolve_name(config["class_path"]), config.get("init_args") or {}
        for key, value in config.items():
            yield from classes(value, f"{path}.{key}".strip("."))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from classes(value, f"{path}.{index}")


def _sources(config: Any) -> Iterator[tuple[str, str]]:
    """(dotted key, path) of all weights that a config names."""
    for path, cls, args in classes(config):
        given = ((f"{path}.init_args.{name}", args.get(name)) for name in getattr(cls, "sources", ()))
        yield from ((key, value) for key, value in given if value is not None)
    model = config.get("model") or {}
    pretrained = model.get("pretrained")
    for stream, value in (pretrained if isinstance(pretrained, dict) else {"": pretrained}).items():
        if value is not None:
            yield f"model.pretrained.{stream}".rstrip("."), value


def _entry(name: str) -> Any:
    """The line of the table of weights that a name, or a repository of the hub, stands for."""
    from ccl.weights.catalogue import TABLE

    found = TABLE.get(name)
    return found or next((entry for entry in TABLE.values() if f"hf:{name}" in entry.source), None)


def _nearest(name: str) -> str:
    from ccl.weights.catalogue import TABLE

    near = difflib.get_close_matches(name, TABLE, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


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


def tensors(path: Path, keep: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one network, one at a time, on the CPU and memory-mapped.

    Args:
        path: a .safetensors file, a file of torch.save, or a folder of safetensors.
        keep: which names; the others are not read.

    Raises:
        ValueError: a file is damaged, of another kind, or a pickle that would run code; or its numbers are no floats.
    """
    for file in weight_files(path):
        if foreign := foreign_file(file):
            raise ValueError(f"{file} is {foreign}")
        with reading(file, "weights"):
            if file.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(file, framework="pt") as opened:
                    names = [name for name in opened.keys() if keep(name)]  # noqa: SIM118 - no mapping, though it has keys
                    for name in names:
                        tensor = opened.get_tensor(name)
                        check_dtype(name, tensor.dtype, file)
                        yield name, tensor
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other pickles than torch's, which are refused or read all the same
                state = torch.load(file, map_location="cpu", weights_only=True, mmap=mappable(file))
        if isinstance(state, Mapping):
            nested = [name for name in NESTED if isinstance(state.get(name), Mapping)]
            if len(nested) > 1:
                raise ValueError(f"{file} holds two networks, {' and '.join(nested)}, and only one of them is meant")
            state = state[nested[0]] if nested else state
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{file} holds no table of named tensors")
        for name in filter(keep, state):
            check_dtype(name, state[name].dtype, file)
            yield name, state[name]


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
