"""What a config of `ccl fit` costs, in lines: what `ccl plan` prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ccl import planning
from ccl.cli.parts import build
from ccl.cli.planned import Model, Needs, Planned
from ccl.cli.remedies import verdict
from ccl.guidance import UCG2, Guidance
from ccl.sampling import evaluated, times
from ccl.types import ALONE, WHOLE, View

UMT5_XXL = 5.681e9  # parameters of its encoder, which is frozen and held outside the module tree
GB, TERA = 1e9, 1e12


def training(planned: Planned, needs: Needs, args: Any, argv: list[str]) -> list[str]:
    """The lines of a plan of training; `argv` is what it was read from."""
    model, grid = needs.model(planned), planned.grid
    sizes = model.sizes
    joint = all(planned.config["model"]["net"]["init_args"][stream] for stream in ("video", "audio"))

    forward_of, mean, step, work = trained(planned, needs)
    forward = forward_of(WHOLE if joint else ALONE)

    lines = ["Parameters"]
    for part, size in sizes.items():
        if size.all:
            lines.append(f"  {part:<22}{count(size.all)}" + ("" if size.trained == size.all else trains(size)))
    everything = sum(sizes.values(), planning.Size())
    lines.append(f"  {'all':<22}{count(everything.all)}{trains(everything)}")

    shape = f"{grid.frames} frames of {grid.height} x {grid.width}, {grid.s_v} video and {grid.t_a} audio tokens"
    lines += ["", f"FLOPs of a clip ({shape}), forward"]
    whole = planning.total(forward)
    for row, flops in planning.gathered_rows(forward).items():
        lines.append(f"  {row:<22}{flops_of(flops)} {flops / whole:7.1%}")
    lines.append(f"  {'all':<22}{flops_of(whole)}")
    interaction = planning.gathered_rows(forward).get("interaction", 0.0)
    if interaction:
        lines.append(f"  the interaction adds {interaction / (whole - interaction):.1%} to the streams")
    average = planning.total(mean)
    lines.append(f"  mean over tasks       {flops_of(average)}; trained {step / average:.2f} times that")

    rows = table(planned, needs, args, work)
    spared = 1 - planning.training_flops(mean, checkpointing="attention") / step
    fit = verdict(planned, needs, args.gpus, args.memory, argv, spared)
    return [*lines, "", *rows, *disk(planned, model), *fit]


class Trained(NamedTuple):
    """What training does with a clip, in FLOPs.

    Args:
        forward: of a view, one forward by part.
        mean: over tasks, by part.
        step: forward and backward, what checkpointing computes again included.
        work: without that, the model's own FLOPs: a share of a GPU's peak is told of these.
    """

    forward: Callable[[View], planning.Table]
    mean: planning.Table
    step: float
    work: float


def trained(planned: Planned, needs: Needs) -> Trained:
    """FLOPs of a clip in training."""
    forward_of = partial(needs.forward, planned)
    needs.tell("FLOPs")
    mean = planning.mean_flops(forward_of, planned.tasks)
    step = planning.training_flops(mean, checkpointing=planned.checkpointing)
    return Trained(forward_of, mean, step, planning.training_flops(mean, checkpointing=False))


def trains(size: planning.Size) -> str:
    return f", {count(size.trained).strip()} of them train" if size.trained else ", frozen"


def count(parameters: int) -> str:
    """A number of parameters, in billions or, where they are few, in millions."""
    return f"{parameters / 1e9:9.3f} B" if parameters >= 1e8 else f"{parameters / 1e6:9.3f} M"


def flops_of(number: int | float) -> str:
    """FLOPs in T or, where they are few, in G."""
    return f"{number / 1e12:9.2f} T" if number >= 1e11 else f"{number / 1e9:9.2f} G"


def table(planned: Planned, needs: Needs, args: Any, work: float) -> list[str]:
    """The lines on memory, speed and schedule, by the number of GPUs; `work` are a clip's model FLOPs."""
    steps, batch = planned.config["trainer"]["max_steps"], planned.global_batch
    rows: list[Sequence[str]] = [
        ["GPUs", "weights", "gradients", "AdamW", "EMA", "gathered", "activations", "GB a GPU", "without ckpt",
         "accumulate", "s a step", "clips/s", "days", "GPU-hours"]
    ]  # fmt: skip
    for gpus in args.gpus:
        chosen = needs.memory(planned, gpus)
        kept = needs.memory(planned, gpus, checkpointing=False)
        rate = gpus * args.mfu * args.tflops * TERA / work
        seconds = batch / rate
        hours = seconds * steps / 3600
        parts = (
            chosen.weights,
            chosen.gradients,
            chosen.optimizer,
            chosen.average,
            chosen.gathered,
            chosen.activations,
        )
        rows.append([
            str(gpus), *(f"{x / GB:.1f}" for x in parts), fits(chosen.total, args.memory),
            fits(kept.total, args.memory), f"{batch * planned.context / (gpus * planned.batch):g}", f"{seconds:.3g}",
            f"{rate:.3g}", f"{hours / 24:.3g}", f"{hours * gpus:,.0f}",
        ])  # fmt: skip
    kind = "FSDP2, states sharded" if planned.sharded else "every GPU holds the whole model"
    readers = f"{planned.processes} processes"
    if (context := planned.context) > 1:
        readers = f"{planned.processes // context} groups of {context} processes that share their clips"
    lines = [
        f"Training: {steps:,} steps of {batch:,} clips ({planned.batch} x {readers} x "
        f"{planned.accumulated} accumulated); {kind}; {args.speed}; memory in GB",
        *aligned(rows),
    ]
    for column in (7, 8):
        if any("!" in row[column] for row in rows):
            lines.append(f"{rows[0][column]}: ! more than the {args.memory:g} GB of a GPU")
    if uneven := [gpus for gpus in args.gpus if gpus % context or batch * context % (gpus * planned.batch)]:
        lines.append(f"a global batch of {batch} does not divide among {', '.join(map(str, uneven))} GPUs")
    if planned.lora is not None and planned.processes > 1 and planned.accumulated > 1:
        fewer = max(1, planned.accumulated // planned.processes)
        lines.append(
            f"adapters take few clips a step, and {planned.accumulated} are accumulated on each of {planned.processes} "
            f"processes: --trainer.accumulate_grad_batches {fewer} makes "
            f"{planned.batch * planned.processes // context * fewer}"
        )
    model = needs.model(planned)
    if model.text.dim == 4096 and not model.sizes.get("text"):
        lines.append(f"umT5-xxl adds {2 * UMT5_XXL / GB:.1f} GB to a GPU where prompts are not encoded beforehand")
    return lines


def disk(planned: Planned, model: Model) -> list[str]:
    """What the checkpoints of a run take, and encoded clips."""
    states = planning.states(model.sizes, ema=planned.ema, bytes_each=planned.bytes_each, bits=planned.bits)
    one = states.weights + states.optimizer + states.average
    lines = []
    for callback in planned.config["trainer"]["callbacks"] or []:
        if callback["class_path"].endswith(".SaveCheckpoint"):
            given = {"every": 500, "keep": 2, "milestone": None, **(callback.get("init_args") or {})}
            steps = planned.config["trainer"]["max_steps"]
            count = steps // given["milestone"] if given["milestone"] else 0
            kept = math.ceil(steps / given["every"]) if given["keep"] is None else given["keep"]
            total = one * (kept + count) / GB
            lines.append(f"Disk: {one / GB:.1f} GB a checkpoint, {kept} kept and {count} for good: {total:,.1f} GB")
    latents, text = planned.stored_bytes(model.short.net, model.text)
    lines.append(
        f"Disk: {latents / 1e6:.2f} MB a clip of latents in bfloat16, at most {text / 1e6:.2f} MB of text states"
    )
    return lines


def generation(planned: Planned, needs: Needs, args: Any) -> list[str]:
    """The lines of a plan of sampling."""
    rule, cost = sampled(planned, needs)
    sampling, (sizes, _, _, text) = planned.config["sampling"], needs.model(planned)
    seconds = cost.flops / (args.mfu * args.tflops * TERA)
    lines = [
        f"A clip of {planned.grid.seconds:.2f} s, {planned.grid.height} x {planned.grid.width}: {type(rule).__name__}, "
        f"{cost.passes:.3g} passes x {cost.evaluations} evaluations ({sampling['solver']}, {sampling['steps']} steps)",
        f"  network in bfloat16   {cost.weights / GB:9.1f} GB",
        f"  tokens, text, caches  {cost.rest / GB:9.1f} GB",
        f"  together              {fits(cost.weights + cost.rest, args.memory):>9} GB of {args.memory:g}",
        *offloaded(needs.model(planned), cost, seconds),
        f"  FLOPs                 {cost.flops / 1e15:9.1f} P",
        f"  minutes a clip        {seconds / 60:9.2f}, {args.speed}",
        f"  clips an hour         {' '.join(f'{n * 3600 / seconds:.0f} on {n}' for n in args.gpus)} GPUs",
    ]
    if text.dim == 4096 and not sizes.get("text"):
        lines.append(f"umT5-xxl, {2 * UMT5_XXL / GB:.1f} GB, encodes the prompts before the network is there")
    return lines


def offloaded(model: Model, cost: planning.Clip, seconds: float) -> list[str]:
    """What `--offload blocks` leaves on a GPU, and how fast a block has to come for nothing to wait."""
    sizes = model.short.block_sizes
    block = 2 * max(sizes)  # bytes, in bfloat16
    taken = cost.rest + 2 * model.ends + 2 * block
    speed = block * len(sizes) * cost.evaluations / seconds
    told = f"{taken / GB:9.1f} GB; hidden where {block / GB:.2g} GB a block come at {speed / GB:.2g} GB/s"
    return [f"  --offload blocks      {told}"]


def sampled(planned: Planned, needs: Needs, device: str = "cuda") -> tuple[Guidance, planning.Clip]:
    """The guidance rule that clips are sampled with, and what one costs."""
    sampling, rule = planned.config["sampling"], rule_of(planned)
    at = evaluated(times(sampling["steps"], sampling["shift"]), sampling["solver"])
    return rule, needs.clip(planned, rule, at, device=device)


def rule_of(planned: Planned) -> Guidance:
    """The guidance rule that clips are sampled with."""
    node = planned.config["sampling"]["guidance"]
    return UCG2() if node is None else build(Guidance, node, "sampling.guidance")


def fits(size: int | float, memory: float) -> str:
    return f"{size / GB:.1f}" + ("!" if size > memory * GB else "")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
