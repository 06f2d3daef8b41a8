"""A model on disk: a folder of config.yaml (net, text, codec, grid, sampling, provenance) and model.safetensors.

A network that is shown a first picture has an `image` in its config too, the encoder of it.

A checkpoint of a run (runs/x/checkpoints/last.ckpt, with runs/x/config.yaml) is read the same way, its averaged
weights first. Nothing is unpickled but tensors. Keys are net.* and text.*; codecs are named with their identity.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ccl.codecs.base import Codec
from ccl.files import MARK, write_whole
from ccl.formats import check_dtype, check_finite
from ccl.grid import Grid
from ccl.image import ImageEncoder
from ccl.model.adapter import LoRA, merge
from ccl.model.dual_stream import DualStreamTransformer
from ccl.pretrained import missing
from ccl.sampling import Sampling
from ccl.sharding import check_shapes, load_whole, shapes_of
from ccl.text.base import TextEncoder

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
SHIPPED = Path(__file__).parent / "checkpoints" / "embedded"


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


def save_model(folder: str | Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write a model folder, whole or not at all; a model that is there already is replaced.

    Args:
        folder: to write.
        config: net, text, codec, grid, sampling, provenance, as YAML would hold them.
        state: weights, named net.* and text.*.

    Raises:
        ValueError: the folder exists and holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} exists and is no model folder; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.parent / f"{MARK}{os.getpid()}-{name}-{folder.name}" for name in ("new", "old"))
    try:
        fresh.mkdir()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, fresh / WEIGHTS)
        provenance = {**config.get("provenance", {}), "weights_sha256": sha256(fresh / WEIGHTS)}
        write_whole(fresh / CONFIG, yaml.safe_dump({**config, "provenance": provenance}, sort_keys=False))
        shutil.copymode(fresh / CONFIG, fresh / WEIGHTS)  # safetensors leaves it to its owner alone
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load_model(path: str | Path | None = None, *, half: bool = False) -> Model:
    """Build and fill a model, on the CPU in float32.

    Args:
        path: a model folder, a run folder (its last checkpoint) or a .ckpt in one; None is the one
            that ships with the package.
        half: keep the matrices of the network's blocks in bfloat16: autocast makes the same of them, and they take half
            the memory.

    Raises:
        ValueError: one sentence that names the file, and the key where the weights do not fit.
    """
    if path is None:
        if not (SHIPPED / WEIGHTS).is_file():
            raise ValueError(
                "this installation ships no checkpoint; name one with --ckpt, or make it with `make checkpoint`"
            )
        path = SHIPPED
    config, state, source = read_source(path)
    if lacking := missing(config):
        raise ValueError(lacking)
    model = build(config, source, empty=True)
    if "weights_sha256" not in model.provenance:
        model.provenance["weights_sha256"] = sha256(Path(source))
    model.provenance["config_sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    for name, part in (("net", model.net), ("text", model.text)):
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if name == "net":
            fill_net(model.net, own, source, half=half)
        else:
            load_whole(part, own, source)
    return model


def fill_net(net: DualStreamTransformer, state: dict[str, Tensor], source: str, *, half: bool) -> None:
    """Give a network on the meta device its weights, one at a time and none twice: `state` is emptied.

    Raises:
        ValueError: naming the first key that is missing, unknown, of another shape, no floats or not finite, and
            `source`.
    """
    check_shapes(shapes_of(net.state_dict()), shapes_of(state), source)
    for path, module in net.named_modules():
        matrices = half and path.startswith("blocks.") and isinstance(module, nn.Linear | nn.Conv1d)
        dtype = torch.bfloat16 if matrices else torch.float32
        for name, parameter in list(module.named_parameters(recurse=False)):
            key = f"{path}.{name}" if path else name
            tensor = state.pop(key)
            check_dtype(key, tensor.dtype, source)
            check_finite(key, tensor, source)
            setattr(module, name, nn.Parameter(tensor.to(dtype), parameter.requires_grad))


def export(source: str | Path, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Turn a checkpoint of a run into a model folder: averaged weights, in `dtype`."""
    config, state, _ = read_source(source)
    model = build(config, str(source), empty=True)
    if None not in (known := model.codec.known):  # else what the run was trained on stays
        config["provenance"] = {**config.get("provenance", {}), "codec": "+".join(map(str, known))}
    save_model(folder, config, {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()})


def export_video(source: str | Path, out: str | Path, *, layout: str, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the video stream of a checkpoint, averaged weights, as others read it; see `ccl.model.save`.

    Args:
        source: a model folder, a run folder or a .ckpt in one.
        out: a folder for "diffusers", a .safetensors file for "safetensors".
        layout: which.
        dtype: of the weights on disk.

    Raises:
        ValueError: one sentence that names the file.
    """
    from ccl.model.save import save_diffusers, save_file_of_wan

    config, state, _ = read_source(source)
    net = {key.removeprefix("net."): tensor for key, tensor in state.items() if key.startswith("net.")}
    if layout == "safetensors":
        save_file_of_wan(out, net, dtype=dtype)
        return
    head_dim = config["net"].get("init_args", {}).get("head_dim")
    if not isinstance(head_dim, int):
        raise ValueError(f"{source}: its config does not say net.head_dim, which the layout of diffusers needs")
    save_diffusers(out, net, head_dim=head_dim, dtype=dtype)


def read_source(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Config in the form of a model folder, weights named net.* and text.*, and the name of the file they came from."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    if path.is_dir() and (path / WEIGHTS).is_file():
        return read_config(path / CONFIG), read_weights(path / WEIGHTS), str(path / WEIGHTS)
    if (path / "checkpoints").is_dir():
        from ccl.checkpoint import last_checkpoint

        path = last_checkpoint(path / "checkpoints")
    if path.suffix != ".ckpt":
        raise ValueError(f"{path} is neither a model folder ({CONFIG} and {WEIGHTS}) nor a run, nor a .ckpt in one")
    found = [folder / CONFIG for folder in path.absolute().parents[:2] if (folder / CONFIG).is_file()]
    if not found:
        raise ValueError(f"{path} has no {CONFIG} beside it or in the folder above, so its model is unknown")
    state, step = read_checkpoint(path)
    run = read_config(found[0])
    if lora := (run.get("model") or {}).get("lora"):  # a model has no adapters: they are added to its weights
        state = merge(state, LoRA(lora["rank"], lora["alpha"]).scale)
    config = from_run(run)
    config["provenance"] = {**config["provenance"], "step": step, **started(found[0].with_name("run.json"))}
    return config, state, str(path)


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file that holds an object."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no model")
    return config


def from_run(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run in the form of a model folder."""
    model = config.get("model") or {}
    model = model.get("init_args", model)
    missing = [
        key for key, place in (("grid", config), ("codec", config), ("net", model), ("text", model)) if key not in place
    ]
    if missing:
        raise ValueError(f"the run's {CONFIG} has no {missing[0]}, so its model cannot be built")
    codec = config["codec"]
    return {
        "net": model["net"],
        "text": model["text"],
        **({"image": model["image"]} if model.get("image") else {}),
        "codec": codec if "class_path" in codec else {"class_path": "ccl.codecs.Codec", "init_args": codec},
        "grid": config["grid"],
        "sampling": config.get("sampling") or model.get("sampling") or {},
        "provenance": {"run": config.get("name"), "seed": config.get("seed_everything")},
    }


def started(path: Path) -> dict[str, Any]:
    """Commit, versions and codec of a run's last start, as far as they were written down."""
    starts = json.loads(path.read_text()).get("starts", []) if path.is_file() else []
    return {key: starts[-1][key] for key in ("commit", "dirty", "versions", "codec") if starts and key in starts[-1]}


def read_weights(path: Path) -> dict[str, Tensor]:
    """A safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """Weights of a run's checkpoint, the average where there is one, and its step."""
    from ccl.checkpoint import load_checkpoint, step_of, verify
    from ccl.sharded import read_sharded

    if path.is_dir():
        verify(path)
        state, step = read_sharded(path), step_of(path.resolve())
    else:
        checkpoint = load_checkpoint(path)
        state, step = checkpoint["state_dict"], int(checkpoint.get("global_step", 0))
    average = {k.removeprefix("ema."): v for k, v in state.items() if k.startswith("ema.")}
    return {k: v for k, v in {**state, **average}.items() if k.startswith(("net.", "text."))}, step


def build(config: dict[str, Any], source: str, *, empty: bool = False) -> Model:
    """Instantiate the parts that a config names; an `empty` network lies on the meta device."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser, nets = ArgumentParser(exit_on_error=False), ArgumentParser(exit_on_error=False)
    nets.add_argument("--net", type=DualStreamTransformer)
    parser.add_argument("--text", type=TextEncoder)
    parser.add_argument("--codec", type=Codec)
    parser.add_argument("--grid", type=Grid)
    parser.add_argument("--sampling", type=Sampling)
    parser.add_argument("--image", type=ImageEncoder)
    given = {key: config.get(key) for key in ("net", "text", "codec", "grid")}
    if lacking := [key for key, value in given.items() if value is None]:
        raise ValueError(f"{source}: its config has no {lacking[0]}")
    given |= {key: config[key] for key in ("sampling", "image") if config.get(key)}
    try:
        node = nets.parse_object({"net": given.pop("net")})
        parts = parser.instantiate_classes(parser.parse_object(given))
        with torch.device("meta" if empty else "cpu"):
            net = nets.instantiate_classes(node).net
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{source}: its config does not give a model: {' '.join(str(error).split())[:400]}") from error
    provenance = dict(config.get("provenance") or {})
    identity = provenance.get("codec")
    if identity and None not in parts.codec.known and identity != parts.codec.identity:
        raise ValueError(f"{source} was trained with the codec {identity}, but its config gives {parts.codec.identity}")
    return Model(net, parts.text, parts.codec, parts.grid, parts.sampling, provenance, parts.image)


def sha256(path: Path) -> str:
    """Hash of a file, or of all files of a folder, read in pieces."""
    if path.is_dir():
        return hashlib.sha256("".join(map(sha256, sorted(path.iterdir()))).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
