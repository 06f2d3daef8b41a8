"""The model that is pushed: a model folder as it is, or a run, exported elsewhere; nothing is written into either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from torch import Tensor

from ccl.files.yamltext import read_yaml
from ccl.grid import Grid
from ccl.publish.parts import Part, begun_with, needed, on_this_disk, parts_of, published
from ccl.storage.model_folder import CONFIG, WEIGHTS, build, check_names, export, no_larger_than, trust_for
from ccl.storage.run import starts_of
from ccl.storage.source import Source, find_source
from ccl.weights.fill import fill


@dataclass(frozen=True)
class Outline:
    """What is known before weights are read.

    Args:
        path: that was named.
        home: the model or run folder that it is, or lies in.
        config: in the form of a model folder.
        training: the config of the run; {} of a model folder, which has none.
        data: sums of the clips that it was trained on.
        trust: modules whose classes the config may name.
    """

    path: Path
    home: Path
    config: dict[str, Any]
    training: dict[str, Any]
    data: tuple[str, ...]
    trust: tuple[str, ...]

    @property
    def modules(self) -> list[str]:
        """Modules beside ccl whose classes the config names."""
        found = {str(path).rpartition(".")[0] for path in class_paths(self.config)}
        return sorted(module for module in found if module.partition(".")[0] != "ccl")

    @property
    def parts(self) -> list[Part]:
        """Published weights that the model needs, and those that its run began with."""
        return parts_of({**needed(self.config), **begun_with(self.model)})

    @property
    def fetched(self) -> list[str]:
        """Names of the weights that whoever loads it must have."""
        return list(dict.fromkeys(needed(self.config).values()))

    @property
    def unpublished(self) -> bool:
        """Whether its run began with weights that nobody else can name."""
        return any(not published(name) for name in begun_with(self.model).values())

    @property
    def model(self) -> dict[str, Any]:
        """The part `model` of the run's config."""
        given = self.training.get("model") or {}
        return given.get("init_args") or given


@dataclass(frozen=True)
class Pushed:
    """A model whose weights were read and fit.

    Args:
        outline: what its config says.
        text: its config.yaml.
        weights: its model.safetensors.
        grid: of its clips.
        numbers: how many of them the network and the text encoder have, by "net" and "text".
        dtype: of the network's weights in the file.
    """

    outline: Outline
    text: str
    weights: Path
    grid: Grid
    numbers: dict[str, int]
    dtype: str

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.text)

    @property
    def config_sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def outline(path: str | Path, trust: Iterable[str] = ()) -> Outline:
    """What a model folder, run folder or .ckpt says of itself; no weights are read.

    Raises:
        ValueError: it is no model; its config names a class that is not trusted, or a file that nobody else has.
    """
    path, trust = Path(path), tuple(trust)
    found = find_source(path)
    check_names(found.config, trust_for(path, found, trust))
    if own := on_this_disk(found.config):
        key, name = own
        raise ValueError(
            f"{found.file} names {name} as {key}, which only this machine has; a model on the hub names published "
            "weights alone (those of `ccl weights list`, or OWNER/NAME): `ccl export` it, write such a name, or no "
            f"path, into the new folder's {CONFIG}, and push that"
        )
    run = read_yaml(found.file) if is_run(found) else {}
    starts = starts_of(found.file.with_name("run.json")) if run else []
    data = tuple(dict.fromkeys(starts[-1].get("data", {}).values())) if starts else ()
    return Outline(path, found.file.parent, found.config, run, data, trust)


def is_run(found: Source) -> bool:
    return found.weights.name != WEIGHTS


def ready(outline: Outline, spare: str | Path) -> Pushed:
    """The model with its weights read and held against its config.

    Args:
        outline: of it.
        spare: an empty folder, in which a run's model is written.

    Raises:
        ValueError: one sentence that names the file, and the key where the two do not fit.
    """
    path: str | Path = outline.path
    if outline.training:
        export(path, spare, trust=outline.trust)
        path = spare
    found = find_source(path)
    state, _ = found.read()
    check_alone(found.weights)
    with no_larger_than(state, str(found.weights)):
        model = build(found.config, str(found.file), empty=True, trust=trust_for(outline.home, found, outline.trust))
    kinds = {tensor.dtype for name, tensor in state.items() if name.startswith("net.")}
    numbers = {}
    for name, part in (("net", model.net), ("text", model.text)):
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        fill(part, own, found.weights, kind=f"the {name} of {found.file}", assign=True)
        numbers[name] = count(own.values())
    dtype = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    # Written anew, so that no comment of a user's goes with it.
    return Pushed(outline, yaml.safe_dump(found.config, sort_keys=False), found.weights, model.grid, numbers, dtype)


def check_alone(weights: Path) -> None:
    """Refuse a file with more than a model's tensors: it goes up as it is, and nobody would see what else does."""
    with safe_open(weights, "pt") as file:
        texts = set(file.metadata() or ()) - {"format"}
        others = [f"the tensor {name}" for name in file.keys() if not name.startswith(("net.", "text."))]  # noqa: SIM118
    others += [f"a text, {name}," for name in sorted(texts)]
    if others:
        raise ValueError(f"{weights} holds {others[0]} that is no part of the model; `ccl export` writes one without")


def count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def class_paths(node: Any) -> Iterator[Any]:
    """Every class_path of a config."""
    if isinstance(node, dict):
        if "class_path" in node:
            yield node["class_path"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from class_paths(value)
