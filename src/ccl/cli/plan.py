"""`ccl plan`: what a config of `ccl fit` costs, printed before it is run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ccl import plan
from ccl.cli.errors import UsageError
from ccl.cli.fit import quiet, resolve
from ccl.cli.front import config_files
from ccl.cli.own import reachable
from ccl.cli.parser import Parser
from ccl.cli.parts import build
from ccl.grid import Grid
from ccl.guidance import UCG2, Guidance
from ccl.model.adapter import LoRA, freeze_backbones
from ccl.model.dual_stream import DualStreamTransformer
from ccl.tasks import PAPER_TASKS, Task
from ccl.text.base import TextEncoder
from ccl.types import CLOSED, OPEN, Route

UMT5_XXL = 5.681e9  # parameters of its encoder, which is frozen and held outside the module tree
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Planned:
    """What of a resolved config a plan reads.

    Args:
        config: as `ccl fit --print_config` prints it.
        grid: of its clips.
    """

    config: dict[str, Any]
    grid: Grid

    @property
    def layers(self) -> int:
        return int(self.config["model"]["net"]["init_args"]["layers"])

    @property
    def lora(self) -> LoRA | None:
        given = self.config["model"].get("lora")
        return LoRA(given["rank"], given["alpha"], tuple(given["parts"])) if given else None

    @property
    def tasks(self) -> dict[str, Task]:
        rows = self.config["model"]["tasks"]
        return (
            PAPER_TASKS
            if rows is None
            else {k: Task(**{**row, "route": Route(**row["route"])}) for k, row in rows.items()}
        )

    @property
    def checkpointing(self) -> bool:
        return bool(self.config["model"]["net"]["init_args"]["checkpointing"])

    @property
    def bf16(self) -> bool:
        return str(self.config["trainer"]["precision"]).startswith("bf16")

    @property
    def ema(self) -> bool:
        return any(c["class_path"].endswith(".EMA") for c in self.config["trainer"]["callbacks"] or [])

    @property
    def sharded(self) -> bool:
        return "ModelParallel" in str(self.config["trainer"]["strategy"])

    @property
    def batch(self) -> int:
        """Clips on a GPU at a time."""
        return int(self.config["data"]["init_args"].get("batch_size") or 1)

    @property
    def global_batch(self) -> int:
        trainer = self.config["trainer"]
        devices = trainer["devices"] if isinstance(trainer["devices"], int) and trainer["devices"] > 0 else 1
        return self.batch * devices * trainer["num_nodes"] * trainer["accumulate_grad_batches"]

    def make(self, layers: int) -> DualStreamTransformer:
        """The network, of a number of layers, frozen and adapted as it trains."""
        node = self.config["model"]["net"]
        node = {**node, "init_args": {**node["init_args"], "layers": layers}}
        net = build(DualStreamTransformer, node, "model.net")
        if self.lora is not None:
            self.lora.adapt(net)
        if self.lora is not None or self.config["model"].get("freeze"):
            freeze_backbones(net, torch.nn.Module())
        return net

    def text(self) -> TextEncoder:
        text = build(TextEncoder, self.config["model"]["text"], "model.text")
        return text.requires_grad_(self.lora is None and not self.config["model"].get("freeze"))


def main(argv: list[str]) -> int:
    parser = Parser(
        "plan",
        "Print what a config of `ccl fit` costs: parameters, FLOPs, memory a GPU, time; with --generate, what a clip "
        "costs. Other options are those of `ccl fit`.",
        "ccl plan --config configs/joint.yaml --config configs/model/wan1_3b.yaml --gpus 1 8",
        "ccl plan --config configs/joint.yaml --config configs/model/wan14b.yaml --generate",
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 32, 64], help="numbers of GPUs (8 32 64)")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of its peak that a GPU reaches (%(default)s)")
    parser.add_argument(
        "--tflops", type=float, default=989.0, help="peak of a GPU, bf16 without sparsity; an H100's (%(default)s)"
    )
    parser.add_argument("--memory", type=float, default=80.0, help="of a GPU, GB (%(default)s)")
    parser.add_argument("--generate", action="store_true", help="the cost of a clip instead of that of training")
    args, rest = parser.parse_known_args(argv)
    if not config_files(rest):
        parser.error("it needs a config, as `ccl fit` does: --config configs/joint.yaml")
    if min(args.gpus) < 1 or not 0 < args.mfu <= 1 or args.tflops <= 0:
        parser.error("--gpus are at least 1, --mfu lies between 0 and 1, --tflops is positive")
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(quiet)
    with reachable(config_files(rest), rest):
        config = resolve(rest)
        try:
            planned = Planned(config, Grid(**config["grid"]))
        except ValueError as error:
            raise UsageError(str(error)) from error
        lines = generation(planned, args) if args.generate else training(planned, args)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def sizes_of(planned: Planned) -> tuple[dict[str, plan.Size], int, TextEncoder]:
    """Parameters by part, those outside the blocks, and the text encoder; nothing is allocated."""
    with torch.device("meta"):
        net, text = planned.make(planned.layers), planned.text()
    return plan.parameters(net, text), plan.ends_of(net), text


def training(planned: Planned, args: Any) -> list[str]:
    """The lines of a plan of training."""
    sizes, ends, text = sizes_of(planned)
    grid, layers, length = planned.grid, planned.layers, text.length
    joint = all(planned.config["model"]["net"]["init_args"][stream] for stream in ("video", "audio"))
    forward = plan.forward_flops(planned.make, layers, grid, OPEN if joint else CLOSED, text=length)
    mean = plan.mean_flops(planned.make, layers, grid, planned.tasks, text=length)
    step = plan.training_flops(mean, sizes, checkpointing=planned.checkpointing)
    peak = {
        again: plan.activations(
            planned.make, layers, grid, batch=planned.batch, text=length, bf16=planned.bf16, checkpointing=again
        )
        for again in (True, False)
    }

    lines = ["Parameters"]
    for part, size in sizes.items():
        if size.all:
            lines.append(f"  {part:<22}{count(size.all)}" + ("" if size.trained == size.all else trains(size)))
    everything = sum(sizes.values(), plan.Size())
    lines.append(f"  {'all':<22}{count(everything.all)}{trains(everything)}")

    shape = f"{grid.frames} frames of {grid.height} x {grid.width}, {grid.s_v} video and {grid.t_a} audio tokens"
    lines += ["", f"FLOPs of a clip ({shape}), forward"]
    whole = plan.total(forward)
    for row, flops in plan.gathered_rows(forward).items():
        lines.append(f"  {row:<22}{flops_of(flops)} {flops / whole:7.1%}")
    lines.append(f"  {'all':<22}{flops_of(whole)}")
    interaction = plan.gathered_rows(forward).get("interaction", 0.0)
    if interaction:
        lines.append(f"  the interaction adds {interaction / (whole - interaction):.1%} to the streams")
    lines.append(
        f"  mean over tasks       {flops_of(plan.total(mean))}; trained {step / plan.total(mean):.2f} times that"
    )

    return [*lines, "", *table(planned, args, sizes, ends, peak, step)]


def trains(size: plan.Size) -> str:
    return f", {count(size.trained).strip()} of them train" if size.trained else ", frozen"


def count(parameters: int) -> str:
    """A number of parameters, in billions or, where they are few, in millions."""
    return f"{parameters / 1e9:9.3f} B" if parameters >= 1e8 else f"{parameters / 1e6:9.3f} M"


def flops_of(number: int | float) -> str:
    """FLOPs in T or, where they are few, in G."""
    return f"{number / 1e12:9.2f} T" if number >= 1e11 else f"{number / 1e9:9.2f} G"


def table(
    planned: Planned, args: Any, sizes: dict[str, plan.Size], ends: int, peak: dict[bool, int], step: float
) -> list[str]:
    """Memory, speed and the schedule for each number of GPUs."""
    trainer = planned.config["trainer"]
    each = 2 if str(trainer["precision"]).endswith("16-true") else 4
    whole = plan.states(sizes, ema=planned.ema, bytes_each=each)
    rows: list[Sequence[str]] = [
        ["GPUs", "weights", "gradients", "AdamW", "EMA", "gathered", "activations", "GB a GPU", "without ckpt",
         "accumulate", "s a step", "clips/s", "days", "GPU-hours"]
    ]  # fmt: skip
    for gpus in args.gpus:
        if planned.sharded:
            memory = plan.sharded(whole, sizes, gpus=gpus, layers=planned.layers, ends=ends, bf16=planned.bf16)
        else:  # every GPU holds all of it, and autocast's copies
            memory = plan.replace(whole, gathered=whole.weights / 2 if planned.bf16 and each == 4 else 0.0)
        memories = {again: plan.replace(memory, activations=peak[again]) for again in peak}
        chosen = memories[planned.checkpointing]
        rate = gpus * args.mfu * args.tflops * TERA / step
        seconds = planned.global_batch / rate
        hours = seconds * trainer["max_steps"] / 3600
        parts = (
            chosen.weights,
            chosen.gradients,
            chosen.optimizer,
            chosen.average,
            chosen.gathered,
            chosen.activations,
        )
        accumulate = planned.global_batch / (gpus * planned.batch)
        rows.append([
            str(gpus), *(f"{x / GB:.1f}" for x in parts), fits(chosen.total, args.memory),
            fits(memories[False].total, args.memory), f"{accumulate:g}", f"{seconds:.3g}", f"{rate:.3g}",
            f"{hours / 24:.3g}", f"{hours * gpus:,.0f}",
        ])  # fmt: skip
    kind = "FSDP2, states sharded" if planned.sharded else "every GPU holds the whole model"
    lines = [
        f"Training: {trainer['max_steps']:,} steps of {planned.global_batch} clips, {planned.batch} at a time; "
        f"{kind}; {args.tflops:g} TFLOP/s at {args.mfu:.0%}; memory in GB",
        *aligned(rows),
    ]
    if any("!" in cell for row in rows for cell in row):
        lines.append(f"! more than the {args.memory:g} GB of a GPU")
    if uneven := [gpus for gpus in args.gpus if planned.global_batch % (gpus * planned.batch)]:
        lines.append(
            f"a global batch of {planned.global_batch} does not divide among {', '.join(map(str, uneven))} GPUs"
        )
    if planned.text().dim == 4096 and not sizes.get("text"):
        lines.append(f"umT5-xxl adds {2 * UMT5_XXL / GB:.1f} GB to a GPU where prompts are not encoded beforehand")
    return lines


def generation(planned: Planned, args: Any) -> list[str]:
    """The lines of a plan of sampling."""
    sizes, _, text = sizes_of(planned)
    sampling = planned.config["sampling"]
    node = sampling["guidance"]
    rule = UCG2() if node is None else build(Guidance, node, "sampling.guidance")
    size = sum(x.all for part, x in sizes.items() if part != "text")
    cost = plan.clip(
        planned.make, planned.layers, size, planned.grid, rule,
        steps=sampling["steps"], solver=sampling["solver"], text=text.length,
    )  # fmt: skip
    seconds = cost.flops / (args.mfu * args.tflops * TERA)
    lines = [
        f"A clip of {planned.grid.seconds:.2f} s, {planned.grid.height} x {planned.grid.width}: {type(rule).__name__}, "
        f"{cost.passes} passes x {cost.evaluations} evaluations ({sampling['solver']}, {sampling['steps']} steps)",
        f"  network in bfloat16   {cost.weights / GB:9.1f} GB",
        f"  tokens, text, caches  {cost.rest / GB:9.1f} GB",
        f"  together              {fits(cost.weights + cost.rest, args.memory):>9} GB of {args.memory:g}",
        f"  FLOPs                 {cost.flops / 1e15:9.1f} P",
        f"  minutes a clip        {seconds / 60:9.2f}, {args.tflops:g} TFLOP/s at {args.mfu:.0%}",
        f"  clips an hour         {' '.join(f'{n * 3600 / seconds:.0f} on {n}' for n in args.gpus)} GPUs",
    ]
    if text.dim == 4096 and not sizes.get("text"):
        lines.append(f"umT5-xxl, {2 * UMT5_XXL / GB:.1f} GB, encodes the prompts before the network is there")
    return lines


def fits(size: int | float, memory: float) -> str:
    return f"{size / GB:.1f}" + ("!" if size > memory * GB else "")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
