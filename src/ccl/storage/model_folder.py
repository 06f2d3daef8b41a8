"""A model on disk, written and built: a folder of config.yaml and model.safetensors, as `ccl.storage.source` reads it.

A checkpoint of a run (runs/x/checkpoints/last.ckpt, with runs/x/config.yaml) is built the same way. Codecs are named
with their identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ccl.codecs.base import Codec
from ccl.files import LOCK, MARK, one_writer, sha256, sweep, sync, write_whole
from ccl.grid import Grid
from ccl.image import ImageEncoder
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.keys import part_of
from ccl.model.lora import baked
from ccl.model.read_lora import read_lora
from ccl.model.save import replacing_tensors
from ccl.sampling import Sampling
from ccl.storage.run import leaf
from ccl.storage.source import CONFIG, NEXT, WEIGHTS, Source, find_source, from_run, read_source
from ccl.storage.trust import Trust, trusted_modules
from ccl.tasks import Task
from ccl.text.base import TextEncoder
from ccl.weights.fill import check_shapes, fill, shapes_of
from ccl.weights.find import missing
from ccl.weights.formats import check_dtype, check_finite

__all__ = [
    "CONFIG",
    "SHIPPED",
    "WEIGHTS",
    "Model",
    "build",
    "export",
    "export_lora",
    "export_video",
    "fill_net",
    "from_run",
    "load_model",
    "read_source",
    "save_model",
]

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "embedded"
PARTS: dict[str, Any] = {
    "net": DualStreamTransformer,
    "text": TextEncoder,
    "codec": Codec,
    "grid": Grid,
    "sampling": Sampling,
    "image": ImageEncoder,
    "tasks": dict[str, Task],
}


@dataclass(frozen=True)
class Model:
    """What `load_model` gives: the parts of a Pipeline."""

    net: DualStreamTransformer
    text: TextEncoder
    codec: Codec
    grid: Grid
    sampling: Sampling
    provenance: dict[str, Any]
    image: ImageEncoder | None = None
    tasks: dict[str, Task] | None = None


def save_model(folder: str | Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write a model folder; a model that is there already is replaced, and what else lies there stays.

    At every instant the folder holds a whole model, the old one or the new: the weights take their place in one step,
    after a config that says of which weights it is, and which is read where it speaks of those that lie there.

    Args:
        folder: to write.
        config: net, text, codec, grid, sampling, tasks, provenance, as YAML would hold them.
        state: weights, named net.* and text.*.

    Raises:
        ValueError: the folder holds something else and no model, or another process writes there.
        OSError: it cannot be written; what was there is as it was.
    """
    folder = Path(folder)
    others = [path for path in folder.iterdir() if not path.name.startswith((MARK, LOCK))] if folder.is_dir() else []
    if others and not any((folder / name).is_file() for name in (WEIGHTS, NEXT)):
        raise ValueError(f"{folder} exists and is no model folder; choose another name")
    with one_writer(folder):
        sweep(folder)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with replacing_tensors(folder / WEIGHTS, tensors) as fresh:
            provenance = {**config.get("provenance", {}), "weights_sha256": sha256(fresh)}
            write_whole(folder / NEXT, yaml.safe_dump({**config, "provenance": provenance}, sort_keys=False))
        (folder / NEXT).replace(folder / CONFIG)
        sync(folder)


def load_model(
    path: str | Path | None = None, *, half: bool = False, trust: Iterable[str] = (), revision: str | None = None
) -> Model:
    """Build and fill a model, on the CPU in float32.

    Args:
        path: a model folder, a run folder (its last checkpoint), a .ckpt in one, or as a text OWNER/NAME[@REVISION] of
            the hub; None is the one that ships with the package.
        half: keep the matrices of the network's blocks in bfloat16: autocast makes the same of them, and they take half
            the memory.
        trust: modules whose classes the config may name beside those of ccl; they may lie in the working directory or
            in the model's folder.
        revision: of a model of the hub, in the place of @REVISION: a branch, tag or commit.

    Raises:
        ValueError: one sentence that names the file, and the key where the weights do not fit.
    """
    if path is None and revision is not None:
        raise ValueError("a revision is of a repository of the hub, OWNER/NAME; name one")
    if path is None:
        if not (SHIPPED / WEIGHTS).is_file():
            raise ValueError(
                "this installation ships no checkpoint; name one with --ckpt, or make it with `make checkpoint`"
            )
        path = SHIPPED
    found = find_source(path, revision)
    trusted = trust_for(path, found, trust)
    check_names(found.config, trusted)
    if lacking := missing({key: found.config[key] for key in PARTS if key in found.config}):
        raise ValueError(lacking)
    state, known = found.read()
    config = {**found.config, "provenance": {**found.config["provenance"], **known}}
    source = str(found.weights)
    with no_larger_than(state, source):
        model = build(config, source, empty=True, trust=trusted)
    if "weights_sha256" not in model.provenance:
        model.provenance["weights_sha256"] = (
            sha256(found.weights) if found.weights.is_file() else of_folder(found.weights)
        )
    model.provenance["config_sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    model.provenance.update(found.origin)  # after the sum, which is that of the same model in a folder
    for name, part in (("net", model.net), ("text", model.text)):
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        kind = f"the {name} of {found.file}"  # the two files may disagree by either's fault
        if name == "net":
            fill_net(model.net, own, source, kind, half=half)
        else:
            fill(part, own, source, kind=kind)
    return model


def fill_net(net: DualStreamTransformer, state: dict[str, Tensor], source: str, kind: str, *, half: bool) -> None:
    """Give a network on the meta device, called `kind` in errors, its weights, one at a time: `state` is emptied.

    Raises:
        ValueError: naming the first key that is missing, unknown, of another shape, no floats or not finite, and
            `source`.
    """
    check_shapes(shapes_of(net.state_dict()), shapes_of(state), source, kind)
    for path, module in net.named_modules():
        matrices = half and path.startswith("blocks.") and isinstance(module, nn.Linear | nn.Conv1d)
        dtype = torch.bfloat16 if matrices else torch.float32
        for name, parameter in list(module.named_parameters(recurse=False)):
            key = f"{path}.{name}" if path else name
            tensor = state.pop(key)
            check_dtype(key, tensor.dtype, source)
            check_finite(key, tensor, source)
            setattr(module, name, nn.Parameter(tensor.to(dtype), parameter.requires_grad))


def export(
    source: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    trust: Iterable[str] = (),
    loras: Iterable[tuple[str | Path, float]] = (),
) -> list[str]:
    """Turn a checkpoint of a run into a model folder: averaged weights, in `dtype`, with LoRA files in them.

    Args:
        source: a model folder, a run folder or a .ckpt in one.
        folder: to write.
        dtype: of the weights on disk.
        trust: as of `load_model`.
        loras: files, and how strong each is to be.

    Returns:
        What of the files has no place in the model, in sentences.
    """
    found = find_source(source)
    trusted = trust_for(source, found, trust)
    check_names(found.config, trusted)
    state, known = found.read()
    state, records, notes = with_loras(state, loras)
    known = {**known, **({"loras": records} if records else {})}
    config = {**found.config, "provenance": {**found.config["provenance"], **known, **found.origin}}
    with no_larger_than(state, str(found.weights)):
        model = build(config, str(source), empty=True, trust=trusted)
    if None not in (known_codecs := model.codec.known):  # else what the run was trained on stays
        config["provenance"]["codec"] = "+".join(map(str, known_codecs))
    save_model(folder, config, {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()})
    return notes


def with_loras(
    state: dict[str, Tensor], loras: Iterable[tuple[str | Path, float]]
) -> tuple[dict[str, Tensor], list[dict[str, Any]], list[str]]:
    """Weights named net.* and text.* with LoRA files in them, a record of each file, and what has no place here."""
    net = {key.removeprefix("net."): tensor for key, tensor in state.items() if key.startswith("net.")}
    read = [(read_lora(path, shapes_of(net)), scale) for path, scale in loras]
    if not read:
        return state, [], []
    state = {**state, **{f"net.{key}": tensor for key, tensor in baked(net, read).items()}}
    return state, [lora.record(scale) for lora, scale in read], [note for lora, _ in read for note in lora.notes]


def export_lora(source: str | Path, out: str | Path, *, layout: str, dtype: torch.dtype = torch.bfloat16) -> str:
    """Write what a run's adapters have learned, averaged, in a file of its own; see `ccl.model.save_lora`.

    Args:
        source: a run folder or a .ckpt in one.
        out: a folder for "peft", a .safetensors file for "comfyui".
        layout: which.
        dtype: of the tensors on disk.

    Returns:
        What of the training is not in it, in words; "" for nothing.

    Raises:
        ValueError: one sentence that names the file.
    """
    from ccl.model.save_lora import save_comfyui, save_peft, untold

    found = find_source(source)
    if found.lora is None:
        raise ValueError(f"{found.file} has no adapters (model.lora) to write alone; --format model writes the weights")
    state, _ = found.read(merged=False)
    net = {key.removeprefix("net."): tensor for key, tensor in state.items() if key.startswith("net.")}
    alone = {key: tensor for key, tensor in net.items() if part_of(key) == "interaction" and found.trained_whole}
    if layout == "peft":
        save_peft(out, net, found.lora, whole=alone, base=found.base, dtype=dtype)
        return ""
    save_comfyui(out, net, found.lora, dtype=dtype)
    return untold(net, alone)


def export_video(
    source: str | Path,
    out: str | Path,
    *,
    layout: str,
    dtype: torch.dtype = torch.bfloat16,
    loras: Iterable[tuple[str | Path, float]] = (),
) -> list[str]:
    """Write the video stream of a checkpoint, averaged weights, as others read it; see `ccl.model.save`.

    Args:
        source: a model folder, a run folder or a .ckpt in one.
        out: a folder for "diffusers", a .safetensors file for "safetensors".
        layout: which.
        dtype: of the weights on disk.
        loras: as of `export`.

    Returns:
        As `export`.

    Raises:
        ValueError: one sentence that names the file.
    """
    from ccl.model.save import save_diffusers, save_file_of_wan

    config, state, _ = read_source(source)
    state, _, notes = with_loras(state, loras)
    net = {key.removeprefix("net."): tensor for key, tensor in state.items() if key.startswith("net.")}
    if layout == "safetensors":
        save_file_of_wan(out, net, dtype=dtype)
        return notes
    head_dim = leaf(config, "net.init_args.video.init_args.head_dim") or leaf(config, "net.init_args.head_dim")
    if not isinstance(head_dim, int):
        raise ValueError(f"{source}: its config does not say net.head_dim, which the layout of diffusers needs")
    save_diffusers(out, net, head_dim=head_dim, dtype=dtype)
    return notes


def trust_for(path: str | Path, found: Source, modules: Iterable[str]) -> Trust:
    """Whose classes a model may name; trusted modules may lie in the working directory or in its folder."""
    home = Path(path) if Path(path).is_dir() else found.file.parent
    return Trust(str(found.file), trusted_modules(modules), (Path(), home))


def check_names(config: dict[str, Any], trust: Trust) -> None:
    """Refuse a config that names what it may not, before anything that it names is imported."""
    for key, kind in PARTS.items():
        if config.get(key):
            trust.check(config[key], kind, key)


@contextmanager
def no_larger_than(state: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Within it, modules that have far more parameters than these weights are not built to their end.

    So a config that asks for 10^9 blocks is refused in a moment. Twice as many may be made, for layers that replace
    what their base made; the shapes are compared afterwards.
    """
    tensors = 2 * len(state) + 1000
    numbers = 2 * sum(tensor.numel() for tensor in state.values()) + 10**8
    made = [0, 0]

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        made[0], made[1] = made[0] + 1, made[1] + (0 if value is None else value.numel())
        if made[0] > tensors or made[1] > numbers:
            raise ValueError(f"it asks for a far larger model than the weights are of, {len(state)} tensors")

    hooks = [
        nn.modules.module.register_module_parameter_registration_hook(count),
        nn.modules.module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def build(config: dict[str, Any], source: str, *, empty: bool = False, trust: Trust | None = None) -> Model:
    """Instantiate the parts that a config names; an `empty` network lies on the meta device.

    Raises:
        ValueError: one sentence that names `source`.
    """
    from jsonargparse import ArgumentParser

    check_names(config, trust or Trust(source))
    parser, nets = ArgumentParser(exit_on_error=False), ArgumentParser(exit_on_error=False)
    for key, kind in PARTS.items():
        one = nets if key == "net" else parser
        if key in ("grid", "sampling"):
            one.add_class_arguments(kind, key)
        elif key == "tasks":
            one.add_argument("--tasks", type=kind)
        else:  # a class of a user's own need not say its types, as in `ccl fit`
            one.add_subclass_arguments(kind, key, required=False, fail_untyped=False)
    given = {key: config.get(key) for key in ("net", "text", "codec", "grid")}
    if lacking := [key for key, value in given.items() if value is None]:
        raise ValueError(f"{source}: its {CONFIG} has no {lacking[0]}")
    given |= {key: config[key] for key in ("sampling", "image", "tasks") if config.get(key)}
    try:
        node = nets.parse_object({"net": given.pop("net")})
        parts = parser.instantiate_classes(parser.parse_object(deepcopy(given)))  # which it changes
        with torch.device("meta" if empty else "cpu"):
            net = nets.instantiate_classes(node).net
        parts.codec.check(parts.grid, net.channels)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a config of somebody else's makes constructors raise nearly anything
        said = " ".join(str(error).split())[:400]
        raise ValueError(f"{source}: its {CONFIG} does not give a model: {said}") from error
    provenance = dict(config.get("provenance") or {})
    identity = provenance.get("codec")
    if identity and None not in parts.codec.known and identity != parts.codec.identity:
        raise ValueError(
            f"{source} was trained with the codec {identity}, as its run.json or {CONFIG} says, but its {CONFIG} gives "
            f"{parts.codec.identity}"
        )
    return Model(net, parts.text, parts.codec, parts.grid, parts.sampling, provenance, parts.image, parts.tasks)


def of_folder(folder: Path) -> str:
    """Hash of all files of a sharded checkpoint."""
    return hashlib.sha256("".join(map(sha256, sorted(folder.iterdir()))).encode()).hexdigest()
