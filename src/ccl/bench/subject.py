"""What of a config is measured: the same network, tasks, precision and strategy, without weights, data or files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ccl.callbacks import EMA
from ccl.cli.check import class_of
from ccl.cli.errors import UsageError
from ccl.cli.planned import Needs, Planned
from ccl.spelling import counted
from ccl.tasks import Router

HERE = "ccl.bench.madeup"
KEPT = Router | EMA  # callbacks that decide a step or hold memory; others log, save and preview


def subject(planned: Planned, needs: Needs, *, layers: int, devices: int, steps: int) -> Planned:
    """A config as it is measured.

    Args:
        planned: the user's.
        needs: that the text encoder is known from.
        layers: blocks that are kept.
        devices: processes on this machine.
        steps: of the trainer, those that warm up included.
    """
    config = copy.deepcopy(planned.config)
    config |= {"name": "bench", "ckpt_path": None, "checkpoint_every": None, "preview_every": None}
    config |= {"preview_prompts": None, "codec": codec(planned)}
    model, text = config["model"], needs.model(planned).text
    model["pretrained"] = None
    shallow(model["net"]["init_args"], layers)
    if not list(text.parameters()):  # its weights are not part of a training
        model["text"] = {"class_path": f"{HERE}.MadeUpText", "init_args": {"dim": text.dim, "length": text.length}}
    if model.get("image"):
        model["image"] = {"class_path": f"{HERE}.MadeUpImage"}
    config["data"] = {"class_path": f"{HERE}.MadeUp", "init_args": {"batch_size": planned.batch}}
    trainer = config["trainer"]
    trainer |= {"max_steps": steps, "accumulate_grad_batches": 1, "devices": devices, "num_nodes": 1}
    trainer |= {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "limit_val_batches": 0}
    trainer["callbacks"] = [c for c in trainer["callbacks"] or [] if issubclass(class_of(c), KEPT)]
    if planned.sharded and isinstance(trainer["strategy"], dict):
        trainer["strategy"]["init_args"] |= {"data_parallel_size": devices, "tensor_parallel_size": 1}
    return replace(planned, config=config)


def codec(planned: Planned) -> dict[str, Any]:
    """Codecs of the network's shape."""
    grid, net = planned.grid, planned.config["model"]["net"]["init_args"]
    # Of a stream that the network has not, a codec is there all the same.
    channels = {
        name: (net[name] or {"init_args": {"channels": 1}})["init_args"]["channels"] for name in ("video", "audio")
    }
    strides = {"stride_time": grid.stride_time, "stride_space": grid.stride_space}
    rates = {"sample_rate": grid.sample_rate, "latent_rate": grid.latent_rate}
    return {
        "video": {"class_path": f"{HERE}.MadeUpVideo", "init_args": {"channels": channels["video"]} | strides},
        "audio": {"class_path": f"{HERE}.MadeUpAudio", "init_args": {"channels": channels["audio"]} | rates},
    }


def asked(planned: Planned, layers: int) -> int:
    """So many blocks; UsageError where the network has fewer."""
    if layers > (whole := int(planned.config["model"]["net"]["init_args"]["layers"])):
        raise UsageError(f"--layers is {layers}, and the network has {whole}")
    return layers


def shallow(net: dict[str, Any], layers: int) -> None:
    """Keep the first blocks of a network's arguments, in place."""
    net["layers"] = layers
    for stream in filter(None, (net["video"], net["audio"])):
        if (own := stream["init_args"].get("layers")) is not None:
            stream["init_args"]["layers"] = min(own, layers)


def compiled(planned: Planned, mode: str) -> Planned:
    """As it is measured in a mode."""
    config = copy.deepcopy(planned.config)
    config["model"]["compile"] = mode == "compile"
    return replace(planned, config=config)


def in_turn(planned: Planned) -> Planned:
    """Each task once, after a step to warm up: for the step that needs most. Where each clip draws a task of its own,
    as it was."""
    config = copy.deepcopy(planned.config)
    for callback in config["trainer"]["callbacks"]:
        batch = callback.get("init_args", {}).get("per", "batch") == "batch"
        if callback["class_path"].rpartition(".")[2] == "TaskRouter" and batch:
            callback["class_path"] = f"{HERE}.InTurn"
    config["trainer"]["max_steps"] = 1 + sum(bool(task.prob) for task in planned.tasks.values())
    return replace(planned, config=config)


def fitting(planned: Planned, needs: Needs, room: float, total: Callable[[Planned], float]) -> int:
    """The most blocks of a network that fit into memory.

    Args:
        planned: the user's config.
        needs: what plans share.
        room: bytes.
        total: bytes that a config takes.

    Raises:
        UsageError: not even one does.
    """
    whole = int(planned.config["model"]["net"]["init_args"]["layers"])

    def fits(layers: int) -> bool:
        config = copy.deepcopy(planned.config)
        shallow(config["model"]["net"]["init_args"], layers)
        return total(replace(planned, config=config)) <= room

    if fits(whole):
        return whole
    low, high = 0, whole
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if not low:
        raise UsageError(
            f"not even one of {whole} blocks fits into {room / 1e9:.1f} GB, nine tenths of what is free, with "
            f"{counted(planned.batch, 'clip')} a step; a smaller --data.init_args.batch_size or a shorter "
            "--grid.frames may"
        )
    return low
