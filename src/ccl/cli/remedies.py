"""Whether a training fits the GPUs it is planned for and, where it does not, flags of `ccl fit` with which it does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ccl.cli.errors import UsageError
from ccl.cli.planned import Needs, Planned, planned_of
from ccl.planning.memory import Bytes

GB = 1e9
NODE = 8  # GPUs of a machine, at most
FEWEST_RANKS = 8  # a LoRA of a smaller rank learns too little to be advised
Settings = dict[str, Any]
"""Keys of a config, with dots, and their values; a class as class_path and init_args."""
KEPT: Settings = {"model.net.init_args.checkpointing": "attention"}


@dataclass(frozen=True)
class Advice:
    """Flags of `ccl fit`, and what was planned with them.

    Args:
        flags: words of a command line.
        gpus: that they are for.
        total: bytes that one of these then holds.
        spared: share of a step's FLOPs that is not computed again, where attention's output is kept.
    """

    flags: Sequence[str]
    gpus: int
    total: Bytes
    spared: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a training fits.

    Args:
        gpus: on how many.
        memory: bytes of one.
        fits: as it is configured.
        advice: with which it does, or where it does, keeps attention's output; None where none is known.
    """

    gpus: int
    memory: float
    fits: bool
    advice: Advice | None = None

    def __str__(self) -> str:
        where, advice = f"on {self.gpus} x {self.memory / GB:g} GB", self.advice
        said = "" if advice is None else f"{' '.join(advice.flags)}: {advice.total / GB:.1f} GB a GPU"
        if self.fits:
            kept = "" if advice is None else f", and with {said}, {advice.spared:.1%} less to compute"
            return f"Fits {where}{kept}"
        if advice is None:
            return f"Does not fit {where}; no flags that are known here make it fit"
        if advice.gpus == self.gpus:
            return f"Does not fit {where}; try {said}"
        return f"Does not fit {where}, with no flags that are known here; try {advice.gpus} GPUs: {said}"


def verdict(
    planned: Planned, needs: Needs, gpus: Sequence[int], memory: float, argv: list[str], spared: float
) -> list[Verdict]:
    """Whether it fits on each number of GPUs of so many GB, and flags with which it was planned again and fits.

    Where blocks are computed again, it says where there is room to keep attention's output.

    Args:
        planned: what was read from `argv`.
        needs: what its plans hold.
        gpus: numbers of them.
        memory: of one, GB.
        argv: the command line, behind which the flags go.
        spared: share of a step's FLOPs that attention is not computed again for, where its output is kept.
    """
    verdicts = []
    for number in gpus:
        fits = needs.memory(planned, number).total <= memory * GB
        if fits:
            advice = roomier(planned, needs, number, memory, spared)
        else:
            advice = found(planned, needs, number, memory, argv, combined(remedies(planned, number)))
            advice = advice or on_more(planned, needs, number, memory, argv)
        verdicts.append(Verdict(number, memory * GB, fits, advice))
    return verdicts


def roomier(planned: Planned, needs: Needs, gpus: int, memory: float, spared: float) -> Advice | None:
    """Where it fits: that attention's output can be kept, and what that spares; None where it is, or does not fit."""
    if planned.checkpointing is not True:
        return None
    taken = needs.memory(planned, gpus, checkpointing="attention").total
    return Advice(flags_of(KEPT), gpus, taken, spared) if taken <= memory * GB else None


def found(
    planned: Planned, needs: Needs, gpus: int, memory: float, argv: list[str], tried: Iterator[Settings]
) -> Advice | None:
    """The first settings that fit, as flags and what they then take; None where none do."""
    for settings in tried:
        other = changed(planned, settings)
        if other.global_batch != planned.global_batch:
            fewer = max(1, planned.global_batch // (other.batch * other.processes))
            settings = {**settings, "trainer.accumulate_grad_batches": fewer}
        if needs.states(other, gpus).total > memory * GB:  # without a step: that takes longest to follow
            continue
        if needs.memory(other, gpus).total > memory * GB:
            continue
        flags = flags_of(settings)
        try:  # once more as `ccl fit` would read it
            taken = needs.memory(planned_of([*argv, *flags]), gpus).total
        except UsageError:
            continue
        if taken <= memory * GB:
            return Advice(flags, gpus, taken)
    return None


def on_more(planned: Planned, needs: Needs, gpus: int, memory: float, argv: list[str]) -> Advice | None:
    """As `found`, on twice, four, eight or sixteen times as many GPUs, with what leaves a step's result alone."""
    for more in (gpus * 2**k for k in range(1, 5)):
        kept = {k: v for settings in harmless(planned, more) for k, v in settings.items()} | sharded_over(more)
        if advice := found(planned, needs, more, memory, argv, iter([sharded_over(more), kept])):
            return advice
    return None


def combined(remedies: list[Settings]) -> Iterator[Settings]:
    """Each remedy alone, then with all those before it."""
    before: Settings = {}
    for settings in remedies:
        yield settings
        if before:
            yield before | settings
        before |= settings


def remedies(planned: Planned, gpus: int) -> list[Settings]:
    """Settings that need less memory: those first that leave a step's result alone, those last that train less."""
    model = planned.config["model"]
    later: list[Settings] = []
    started = (model.get("lora") or {}).get("start")  # a file of adapters, which has its rank
    if planned.lora is not None and planned.lora.rank > FEWEST_RANKS and not started:
        later.append({"model.lora.rank": max(FEWEST_RANKS, planned.lora.rank // 4)})
    interaction = model["net"]["init_args"].get("interaction")
    given = (interaction.get("init_args") or {}) if isinstance(interaction, dict) else {}
    if given.get("own_projections"):
        later.append({"model.net.init_args.interaction.init_args.own_projections": False})
    if planned.bits is None:
        later.append({"model.optimizer.bits": 8})
    if planned.bytes_each == 4:
        later.append({"trainer.precision": "bf16-true"})
    if planned.freeze not in ("backbones", "all"):
        later.append({"model.freeze": "backbones"})
    elif planned.quantized is None and not (planned.sharded or planned.ema or gpus > 1):
        later.append({"model.quantize": "int8"})
    return [*harmless(planned, gpus), *later]


def harmless(planned: Planned, gpus: int) -> list[Settings]:
    """Settings with which a step of as many clips ends with the same weights."""
    settings: list[Settings] = []
    if not planned.checkpointing:
        settings.append(KEPT)
    if planned.checkpointing is not True:
        settings.append({"model.net.init_args.checkpointing": True})
    if planned.batch > 1:
        settings.append({"data.init_args.batch_size": 1})
    if not planned.sharded and gpus > 1:
        settings.append(sharded_over(gpus))
    return settings


def sharded_over(gpus: int) -> Settings:
    """FSDP2 over so many GPUs, on as few machines as they divide among."""
    nodes = next(n for n in range(math.ceil(gpus / NODE), gpus + 1) if gpus % n == 0)
    sizes = {"data_parallel_size": gpus, "tensor_parallel_size": 1}
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy", "init_args": sizes}
    return {"trainer.strategy": strategy, "trainer.devices": gpus // nodes, "trainer.num_nodes": nodes}


def changed(planned: Planned, settings: Settings) -> Planned:
    """The plan with other values at some keys."""
    config = deepcopy(planned.config)
    for key, value in settings.items():
        *path, last = key.split(".")
        place = config
        for part in path:
            place = place[part]
        place[last] = value
    return Planned(config, planned.grid)


def flags_of(settings: Settings) -> list[str]:
    """Settings as words of a command line."""
    words = []
    for key, value in settings.items():
        if isinstance(value, dict):
            words += [f"--{key}", value["class_path"]]
            words += flags_of({f"{key}.init_args.{name}": each for name, each in value["init_args"].items()})
        else:
            words += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
    return words
