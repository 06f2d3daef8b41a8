"""A training's adapters in a file of their own: as PEFT reads them, or as ComfyUI does.

PEFT's folder holds all that trained: adapters of both streams, and beside them whatever was trained whole (cross-modal
modules), by our names. ComfyUI knows the video stream alone, under Wan2.1's names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccl.files import LOCK, MARK, one_writer, sweep, sync, write_whole
from ccl.model.adapter import DOWN, UP, LoRA, adapted
from ccl.model.keys import belongs, ours_to_wan
from ccl.model.lora_names import COMFY, PEFT
from ccl.model.read_lora import CONFIG, WEIGHTS
from ccl.model.save import THEIRS, replacing_tensors


def save_peft(
    folder: str | Path,
    state: Mapping[str, Tensor],
    lora: LoRA,
    *,
    whole: Mapping[str, Tensor],
    base: str | None,
    dtype: torch.dtype,
) -> None:
    """Write a folder that PeftModel.from_pretrained and `ccl.model.read_lora` read.

    Its config goes before its weights are replaced, and comes last: no reader meets a mixture.

    Args:
        folder: to write; one of adapters is replaced.
        state: of a network with adapters.
        lora: their rank and alpha.
        whole: what else trained, by its names in the network.
        base: what the training began with, for its reader; None is unknown.
        dtype: of the tensors on disk.

    Raises:
        ValueError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --format peft writes a folder")
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if not any(name in (CONFIG, WEIGHTS) for name in others):
        others = [name for name in others if not name.startswith((MARK, LOCK))]
        if others:
            raise ValueError(f"{folder} exists and holds something else; choose another name")
    layers = sorted(adapted(state))
    tensors = {f"{PEFT}{name}": tensor for name, tensor in whole.items()}
    for layer in layers:
        tensors[f"{PEFT}{layer}.lora_A.weight"] = state[f"{layer}.{DOWN}"]
        tensors[f"{PEFT}{layer}.lora_B.weight"] = state[f"{layer}.{UP}"]
    config = {
        "peft_type": "LORA",
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": layers,
        "base_model_name_or_path": base,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "inference_mode": True,
        "task_type": None,
    }
    with one_writer(folder):
        sweep(folder)
        with replacing_tensors(folder / WEIGHTS, on_disk(tensors, dtype), THEIRS):
            (folder / CONFIG).unlink(missing_ok=True)
        write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        sync(folder)


def save_comfyui(path: str | Path, state: Mapping[str, Tensor], lora: LoRA, *, dtype: torch.dtype) -> None:
    """Write the video stream's adapters in one file, in the names that ComfyUI, diffusers and most trainers know.

    Raises:
        ValueError: the name ends otherwise, or the video stream has no adapters.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ValueError(f"{path} is no name for a file of weights; --format comfyui writes NAME.safetensors")
    tensors: dict[str, Tensor] = {}
    for layer in adapted(state):
        if belongs(layer, "video"):
            name = COMFY + ours_to_wan(layer)
            tensors[f"{name}.lora_down.weight"] = state[f"{layer}.{DOWN}"]
            tensors[f"{name}.lora_up.weight"] = state[f"{layer}.{UP}"]
            tensors[f"{name}.alpha"] = torch.tensor(float(lora.alpha))
    if not tensors:
        raise ValueError("this model's video stream has no adapters to write; --format peft writes those of the sound")
    with replacing_tensors(path, on_disk(tensors, dtype), THEIRS):
        pass


def on_disk(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors as a file gets them; an alpha stays exact."""
    return {
        name: tensor.detach().to("cpu", torch.float32 if re.search(r"\.alpha$", name) else dtype).contiguous()
        for name, tensor in tensors.items()
    }


def untold(state: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What of a training ComfyUI's file does not hold, in words; "" for nothing."""
    sound = sum(not belongs(layer, "video") for layer in adapted(state))
    parts = ([f"{sound} adapters of the sound"] if sound else []) + (
        [f"{len(whole)} cross-modal parameters"] if whole else []
    )
    return " and ".join(parts)
