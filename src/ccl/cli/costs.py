"""What a config of `ccl fit` costs, in numbers: what `ccl plan` prints, in words (.costlines) or as JSON.

Names of fields are the keys of `ccl plan --json`. Memory and disk are in bytes, FLOPs of one clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ccl import planning
from ccl.cli.parts import build
from ccl.cli.planned import Model, Needs, Planned
from ccl.cli.remedies import Verdict, verdict
from ccl.grid import Grid
from ccl.guidance import UCG2, Guidance
from ccl.planning.memory import Bytes
from ccl.sampling import evaluated, times
from ccl.types import ALONE, WHOLE, View

UMT5_XXL = 5.681e9  # parameters of its encoder, which is frozen and held outside the module tree
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class GPU:
    """What a GPU is planned to be: its `memory`, and FLOPs a second, which `speed` says in words."""

    memory: float
    flops_per_second: float
    speed: str


@dataclass(frozen=True)
class Shape:
    """Of a clip; tokens are the network's."""

    seconds: float
    frames: int
    height: int
    width: int
    video_tokens: int
    audio_tokens: int


@dataclass(frozen=True)
class Parameters:
    """Of a part, and those of them that train."""

    all: int
    trained: int


@dataclass(frozen=True)
class ClipFLOPs:
    """What training does with a clip.

    Args:
        forward: with open routes, by part.
        all: of that, together.
        tasks: forward, by training task.
        mean: forward, over tasks by their probabilities.
        step: forward and backward, what checkpointing computes again included.
        work: without that, of which a share of a GPU's peak is told.
    """

    forward: Mapping[str, float]
    all: float
    tasks: Mapping[str, float]
    mean: float
    step: float
    work: float


@dataclass(frozen=True)
class Run:
    """A training as it is configured.

    Args:
        steps: of the optimizer.
        clips: of a step.
        batch: clips on a GPU at a time.
        processes: of `ccl fit`.
        context: how many of them share a clip.
        accumulated: batches of a step.
        sharded: whether weights and states are, by FSDP2.
        adapters: whether these train, in the place of the backbones.
    """

    steps: int
    clips: int
    batch: int
    processes: int
    context: int
    accumulated: int
    sharded: bool
    adapters: bool


@dataclass(frozen=True)
class OnGPUs:
    """The training on so many GPUs.

    Args:
        gpus: how many.
        memory: of one, by line.
        total: of these.
        without_checkpointing: the total, if activations were kept.
        accumulate: batches of a step.
        divides: whether the clips of a step divide among them.
        seconds: of a step.
        clips_per_second: of all.
        hours: of the training.
    """

    gpus: int
    memory: planning.Memory
    total: Bytes
    without_checkpointing: Bytes
    accumulate: float
    divides: bool
    seconds: float
    clips_per_second: float
    hours: float


@dataclass(frozen=True)
class Checkpoints:
    """What a run leaves on disk: one, how many are kept and how many stay for good, and all of these together."""

    one: Bytes
    kept: int
    milestones: int
    all: Bytes


@dataclass(frozen=True)
class Stored:
    """Of a clip on disk: latents in bfloat16, and text states at most."""

    latents: int
    text: int


@dataclass(frozen=True)
class TrainingCost:
    """A plan of training; `text_encoder` is of one that is held outside the network, 0 where there is none."""

    gpu: GPU
    parameters: Mapping[str, Parameters]
    clip: Shape
    flops: ClipFLOPs
    run: Run
    on: Sequence[OnGPUs]
    text_encoder: Bytes
    checkpoints: Sequence[Checkpoints]
    stored: Stored
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Offloaded:
    """`--offload blocks`: the GPU's memory, the largest block, bytes a second at which nothing waits for one."""

    memory: Bytes
    block: int
    bytes_per_second: float


@dataclass(frozen=True)
class Hourly:
    """Clips an hour on so many GPUs."""

    gpus: int
    clips_per_hour: float


@dataclass(frozen=True)
class SamplingCost:
    """A plan of sampling.

    Args:
        gpu: that samples.
        clip: that is made.
        rule: of guidance.
        passes: of the rule, the mean over evaluations.
        evaluations: of the network, each of all passes.
        solver: its name.
        steps: of the solver.
        network: bytes of it in bfloat16.
        rest: bytes of tokens, text and caches.
        total: of these two.
        fits: whether a GPU holds them.
        offloaded: what `--offload blocks` takes.
        flops: of the clip.
        seconds: of the clip on one GPU.
        on: clips an hour, by the number of GPUs.
        text_encoder: bytes of one that is held outside the network, 0 where there is none.
    """

    gpu: GPU
    clip: Shape
    rule: str
    passes: float
    evaluations: int
    solver: str
    steps: int
    network: Bytes
    rest: Bytes
    total: Bytes
    fits: bool
    offloaded: Offloaded
    flops: int | float
    seconds: float
    on: Sequence[Hourly]
    text_encoder: Bytes


def training(planned: Planned, needs: Needs, gpu: GPU, gpus: Sequence[int], argv: list[str]) -> TrainingCost:
    """A plan of training on each number of GPUs; `argv` is what it was read from."""
    model = needs.model(planned)
    joint = all(planned.config["model"]["net"]["init_args"][stream] for stream in ("video", "audio"))
    forward_of, mean, step, work = trained(planned, needs)
    forward = forward_of(WHOLE if joint else ALONE)
    sizes = {part: size for part, size in model.sizes.items() if size.all}
    everything = sum(model.sizes.values(), planning.Size())
    spared = 1 - planning.training_flops(mean, checkpointing="attention") / step
    return TrainingCost(
        gpu,
        {part: Parameters(size.all, size.trained) for part, size in {**sizes, "all": everything}.items()},
        shape(planned.grid),
        ClipFLOPs(
            planning.gathered_rows(forward),
            planning.total(forward),
            {
                name: sum(planning.total(forward_of(term.view)) for term in task.terms)
                for name, task in planned.tasks.items()
            },
            planning.total(mean),
            step,
            work,
        ),
        run(planned),
        [on(planned, needs, gpu, number, work) for number in gpus],
        outside(model),
        checkpoints(planned, model),
        Stored(*planned.stored_bytes(model.short.net, model.text)),
        verdict(planned, needs, gpus, gpu.memory / GB, argv, spared),
    )


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


def shape(grid: Grid) -> Shape:
    return Shape(grid.seconds, grid.frames, grid.height, grid.width, grid.s_v, grid.t_a)


def run(planned: Planned) -> Run:
    return Run(
        planned.config["trainer"]["max_steps"],
        planned.global_batch,
        planned.batch,
        planned.processes,
        planned.context,
        planned.accumulated,
        planned.sharded,
        planned.lora is not None,
    )


def on(planned: Planned, needs: Needs, gpu: GPU, gpus: int, work: float) -> OnGPUs:
    """The training on so many GPUs; `work` are a clip's model FLOPs."""
    chosen = needs.memory(planned, gpus)
    kept = needs.memory(planned, gpus, checkpointing=False)
    clips, context, together = planned.global_batch, planned.context, gpus * planned.batch
    rate = gpus * gpu.flops_per_second / work
    return OnGPUs(
        gpus,
        chosen,
        chosen.total,
        kept.total,
        clips * context / together,
        not (gpus % context or clips * context % together),
        clips / rate,
        rate,
        clips / rate * planned.config["trainer"]["max_steps"] / 3600,
    )


def outside(model: Model) -> Bytes:
    """Bytes in bfloat16 of a text encoder that is held outside the network: umT5-xxl, told by its width."""
    return 2 * UMT5_XXL if model.text.dim == 4096 and not model.sizes.get("text") else 0


def checkpoints(planned: Planned, model: Model) -> list[Checkpoints]:
    """What the checkpoints of a run take, for each callback that writes some."""
    states = planning.states(model.sizes, ema=planned.ema, bytes_each=planned.bytes_each, bits=planned.bits)
    one = states.weights + states.optimizer + states.average
    found = []
    for callback in planned.config["trainer"]["callbacks"] or []:
        if callback["class_path"].endswith(".SaveCheckpoint"):
            given = {"every": 500, "keep": 2, "milestone": None, **(callback.get("init_args") or {})}
            steps = planned.config["trainer"]["max_steps"]
            milestones = steps // given["milestone"] if given["milestone"] else 0
            kept = math.ceil(steps / given["every"]) if given["keep"] is None else given["keep"]
            found.append(Checkpoints(one, kept, milestones, one * (kept + milestones)))
    return found


def sampling(planned: Planned, needs: Needs, gpu: GPU, gpus: Sequence[int]) -> SamplingCost:
    """A plan of sampling, its clips an hour on each number of GPUs."""
    rule, cost = sampled(planned, needs)
    how, model = planned.config["sampling"], needs.model(planned)
    seconds = cost.flops / gpu.flops_per_second
    total = cost.weights + cost.rest
    return SamplingCost(
        gpu,
        shape(planned.grid),
        type(rule).__name__,
        cost.passes,
        cost.evaluations,
        how["solver"],
        how["steps"],
        cost.weights,
        cost.rest,
        total,
        total <= gpu.memory,
        offloaded(model, cost, seconds),
        cost.flops,
        seconds,
        [Hourly(number, number * 3600 / seconds) for number in gpus],
        outside(model),
    )


def offloaded(model: Model, cost: planning.Clip, seconds: float) -> Offloaded:
    """What `--offload blocks` leaves on a GPU, and how fast a block has to come for nothing to wait."""
    sizes = model.short.block_sizes
    block = 2 * max(sizes)  # bytes, in bfloat16
    taken = cost.rest + 2 * model.ends + 2 * block
    return Offloaded(taken, block, block * len(sizes) * cost.evaluations / seconds)


def sampled(planned: Planned, needs: Needs, device: str = "cuda") -> tuple[Guidance, planning.Clip]:
    """The guidance rule that clips are sampled with, and what one costs."""
    sampling, rule = planned.config["sampling"], rule_of(planned)
    at = evaluated(times(sampling["steps"], sampling["shift"]), sampling["solver"])
    return rule, needs.clip(planned, rule, at, device=device)


def rule_of(planned: Planned) -> Guidance:
    """The guidance rule that clips are sampled with."""
    node = planned.config["sampling"]["guidance"]
    return UCG2() if node is None else build(Guidance, node, "sampling.guidance")
