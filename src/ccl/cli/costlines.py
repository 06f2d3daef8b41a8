"""What `ccl plan` prints of what a config costs (.costs), in lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from ccl.cli.costs import GB, Checkpoints, Parameters, SamplingCost, Stored, TrainingCost


def lines_of(cost: TrainingCost | SamplingCost) -> list[str]:
    """A plan as it is printed."""
    return training_lines(cost) if isinstance(cost, TrainingCost) else sampling_lines(cost)


def training_lines(cost: TrainingCost) -> list[str]:
    """A plan of training."""
    lines = ["Parameters"]
    for part, size in cost.parameters.items():
        told = "" if size.trained == size.all and part != "all" else trains(size)
        lines.append(f"  {part:<22}{count(size.all)}{told}")

    clip, flops = cost.clip, cost.flops
    tokens = f"{clip.video_tokens} video and {clip.audio_tokens} audio tokens"
    lines += ["", f"FLOPs of a clip ({clip.frames} frames of {clip.height} x {clip.width}, {tokens}), forward"]
    for row, number in flops.forward.items():
        lines.append(f"  {row:<22}{flops_of(number)} {number / flops.all:7.1%}")
    lines.append(f"  {'all':<22}{flops_of(flops.all)}")
    if interaction := flops.forward.get("interaction", 0.0):
        lines.append(f"  the interaction adds {interaction / (flops.all - interaction):.1%} to the streams")
    lines.append(f"  mean over tasks       {flops_of(flops.mean)}; trained {flops.step / flops.mean:.2f} times that")
    return [*lines, "", *table(cost), *notes(cost), *disk(cost.checkpoints, cost.stored), *map(str, cost.verdicts)]


def trains(size: Parameters) -> str:
    return f", {count(size.trained).strip()} of them train" if size.trained else ", frozen"


def count(parameters: int) -> str:
    """A number of parameters, in billions or, where they are few, in millions."""
    return f"{parameters / 1e9:9.3f} B" if parameters >= 1e8 else f"{parameters / 1e6:9.3f} M"


def flops_of(number: int | float) -> str:
    """FLOPs in T or, where they are few, in G."""
    return f"{number / 1e12:9.2f} T" if number >= 1e11 else f"{number / 1e9:9.2f} G"


def table(cost: TrainingCost) -> list[str]:
    """The lines on memory, speed and schedule, by the number of GPUs."""
    run, room = cost.run, cost.gpu.memory
    rows: list[Sequence[str]] = [
        ["GPUs", "weights", "gradients", "AdamW", "EMA", "gathered", "activations", "GB a GPU", "without ckpt",
         "accumulate", "s a step", "clips/s", "days", "GPU-hours"]
    ]  # fmt: skip
    for on in cost.on:
        rows.append([
            str(on.gpus), *(f"{x / GB:.1f}" for x in astuple(on.memory)), fits(on.total, room),
            fits(on.without_checkpointing, room), f"{on.accumulate:g}", f"{on.seconds:.3g}",
            f"{on.clips_per_second:.3g}", f"{on.hours / 24:.3g}", f"{on.hours * on.gpus:,.0f}",
        ])  # fmt: skip
    kind = "FSDP2, states sharded" if run.sharded else "every GPU holds the whole model"
    readers = f"{run.processes} processes"
    if run.context > 1:
        readers = f"{run.processes // run.context} groups of {run.context} processes that share their clips"
    lines = [
        f"Training: {run.steps:,} steps of {run.clips:,} clips ({run.batch} x {readers} x "
        f"{run.accumulated} accumulated); {kind}; {cost.gpu.speed}; memory in GB",
        *aligned(rows),
    ]
    for column in (7, 8):
        if any("!" in row[column] for row in rows):
            lines.append(f"{rows[0][column]}: ! more than the {room / GB:g} GB of a GPU")
    return lines


def notes(cost: TrainingCost | SamplingCost) -> list[str]:
    """What is to be known beside the numbers, in sentences."""
    umt5 = f"{cost.text_encoder / GB:.1f} GB"
    if isinstance(cost, SamplingCost):
        return [f"umT5-xxl, {umt5}, encodes the prompts before the network is there"] * bool(cost.text_encoder)
    run, lines = cost.run, []
    if uneven := [str(on.gpus) for on in cost.on if not on.divides]:
        lines.append(f"a global batch of {run.clips} does not divide among {', '.join(uneven)} GPUs")
    if run.adapters and run.processes > 1 and run.accumulated > 1:
        fewer = max(1, run.accumulated // run.processes)
        lines.append(
            f"adapters take few clips a step, and {run.accumulated} are accumulated on each of {run.processes} "
            f"processes: --trainer.accumulate_grad_batches {fewer} makes "
            f"{run.batch * run.processes // run.context * fewer}"
        )
    if cost.text_encoder:
        lines.append(f"umT5-xxl adds {umt5} to a GPU where prompts are not encoded beforehand")
    return lines


def disk(checkpoints: Sequence[Checkpoints], stored: Stored) -> list[str]:
    """What the checkpoints of a run take, and encoded clips."""
    return [
        *(
            f"Disk: {one.one / GB:.1f} GB a checkpoint, {one.kept} kept and {one.milestones} for good: "
            f"{one.all / GB:,.1f} GB"
            for one in checkpoints
        ),
        f"Disk: {stored.latents / 1e6:.2f} MB a clip of latents in bfloat16, at most {stored.text / 1e6:.2f} MB of "
        "text states",
    ]


def sampling_lines(cost: SamplingCost) -> list[str]:
    """A plan of sampling."""
    clip, offloaded, room = cost.clip, cost.offloaded, cost.gpu.memory
    block = f"hidden where {offloaded.block / GB:.2g} GB a block come at {offloaded.bytes_per_second / GB:.2g} GB/s"
    hourly = ", ".join(f"{on.clips_per_hour:.0f} on {on.gpus}" for on in cost.on)
    hourly += " GPU" if cost.on[-1].gpus == 1 else " GPUs"
    return [
        f"A clip of {clip.seconds:.2f} s, {clip.height} x {clip.width}: {cost.rule}, "
        f"{cost.passes:.3g} passes x {cost.evaluations} evaluations ({cost.solver}, {cost.steps} steps)",
        f"  network in bfloat16   {cost.network / GB:9.1f} GB",
        f"  tokens, text, caches  {cost.rest / GB:9.1f} GB",
        f"  together              {fits(cost.total, room):>9} GB of {room / GB:g}",
        f"  --offload blocks      {offloaded.memory / GB:9.1f} GB; {block}",
        f"  FLOPs                 {cost.flops / 1e15:9.1f} P",
        f"  minutes a clip        {cost.seconds / 60:9.2f}, {cost.gpu.speed}",
        f"  clips an hour         {hourly}",
        *notes(cost),
    ]


def fits(size: int | float, memory: float) -> str:
    """Bytes in GB, with a mark where they are more than a GPU's."""
    return f"{size / GB:.1f}" + ("!" if size > memory else "")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
