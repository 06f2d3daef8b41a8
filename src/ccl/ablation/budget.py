"""What a matrix costs before it is run: steps, FLOPs and memory by `ccl plan`'s own count, hours by a step timed here.

Where a training asks for GPUs, hours are those of a GPU at the share of its peak that `ccl plan` assumes. What has been
done of a matrix is not counted again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ccl.ablation.identity import shipped
from ccl.ablation.jobs import TESTSET, Job, Laboratory
from ccl.ablation.matrix import RUNS, Row, Run
from ccl.cli.gpus import MFU, gpu_of
from ccl.spelling import counted

GPU = "h100"
LARGEST = 3e8  # parameters of a network that a step of is timed here
TERA, GB = 1e12, 1e9


class Cost(NamedTuple):
    """Of one run or row, for one seed.

    Args:
        name: of it.
        what: in words: steps of clips, or clips by a rule.
        flops: of all.
        bytes: that one GPU, or this machine, holds at the worst moment.
    """

    name: str
    what: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Budget:
    """What is left to do of a matrix.

    Args:
        costs: by kind, of each run and row, for a seed.
        left: how many seeds of each are not done, by kind and name.
        rate: FLOPs a second of one process.
        where: that was found or assumed, in words.
    """

    costs: dict[str, list[Cost]]
    left: Counter[tuple[str, str]]
    rate: float
    where: str

    def flops(self, kind: str) -> float:
        """Of all that is left."""
        return sum(cost.flops * self.left[kind, cost.name] for cost in self.costs[kind])

    def lines(self, workers: int) -> Iterator[str]:
        """As it is printed."""
        from ccl.cli.costlines import aligned

        for kind, costs in self.costs.items():
            rows: list[list[str]] = [[kind, "to do", "what", "PFLOP each", "GB", "hours each"]]
            for cost in costs:
                left, hours = self.left[kind, cost.name], cost.flops / self.rate / 3600
                numbers = (f"{cost.flops / 1e15:.3g}", f"{cost.bytes / GB:.1f}", f"{hours:.2g}")
                rows.append([cost.name, str(left), cost.what, *numbers])
            yield from aligned(rows) if costs else ()
        trainings, samplings = (sum(n for (k, _), n in self.left.items() if k == kind) for kind in self.costs)
        every = sum(map(self.flops, self.costs))
        hours = every / self.rate / 3600
        yield (
            f"to do: {trainings} trainings, {samplings} samplings; {every / 1e15:.3g} PFLOP; {hours:.3g} hours of a "
            f"process, {hours / workers:.3g} with {workers} ({self.where}); encoding, decoding and scoring come on top"
        )


def budget(
    laboratory: Laboratory, threads: int = 1, told: Callable[[int, int, str], None] = lambda done, of, now: None
) -> Budget:
    """Count a matrix.

    Args:
        laboratory: prepared.
        threads: of a process.
        told: hears what is followed, as of `ccl.cli.planned.Needs`.
    """
    from ccl.cli.planned import Needs

    needs, matrix = Needs(told), laboratory.matrix
    left: Counter[tuple[str, str]] = Counter()
    for job in laboratory.jobs:
        left[job.kind, job.of] += not (laboratory.done(job) or laboratory.beside(job))
    trainings = [run for run in matrix.runs if run.ckpt is None]
    costs = {
        "runs": [training(laboratory, run, needs) for run in trainings],
        "rows": [sampling(laboratory, row, needs) for row in matrix.rows],
    }
    rate, where = speed(laboratory, needs, threads)
    return Budget(costs, left, rate, where)


def planned_of(laboratory: Laboratory, run: Run, row: Row | None = None) -> Any:
    """A run as `ccl plan` reads it, sampled as a row has it; of a model that is there already, its sampling alone."""
    from ccl.cli.planned import Planned
    from ccl.grid import Grid

    if run.ckpt is None:
        config = laboratory.resolved[run.name]
    else:
        from ccl.storage.source import find_source

        found = find_source(run.ckpt or shipped()).config
        config = {**found, "model": {"net": found["net"], "text": found["text"]}}
    if row is not None:
        said = {"steps": row.sampling.steps, "shift": row.sampling.shift, "guidance": row.guidance}
        how = {key: value for key, value in said.items() if value is not None}
        config = {**config, "sampling": {**config["sampling"], **how}}
    return Planned(config, Grid(**config["grid"]))


def training(laboratory: Laboratory, run: Run, needs: Any) -> Cost:
    """Of a run."""
    from ccl.cli.costs import trained

    planned = planned_of(laboratory, run)
    planned.check()
    steps, batch = laboratory.steps(Job(RUNS, run.name, 0)), planned.global_batch
    flops = trained(planned, needs).work * batch * steps
    return Cost(run.name, f"{steps:,} steps of {batch}", flops, needs.memory(planned, planned.processes).total)


def sampling(laboratory: Laboratory, row: Row, needs: Any) -> Cost:
    """Of a row."""
    from ccl.cli.costs import sampled

    planned = planned_of(laboratory, laboratory.matrix.run(row.run), row)
    rule, clip = sampled(planned, needs)
    clips = len((laboratory.folder / TESTSET).read_text().splitlines())
    what = f"{clips} clips, {type(rule).__name__}, {clip.evaluations} steps of {clip.passes:.3g} passes"
    together = min(clips, row.sampling.batch_size)
    return Cost(row.name, what, clip.flops * clips, clip.weights * 2 + clip.rest * together)  # weights in float32


def speed(laboratory: Laboratory, needs: Any, threads: int) -> tuple[float, str]:
    """FLOPs a second of a process of a matrix, and where from: timed on a step of its first run, or a GPU's."""
    run = laboratory.matrix.runs[0]
    planned = planned_of(laboratory, run)
    gpus = run.ckpt is None and planned.config["trainer"]["accelerator"] in ("gpu", "cuda")
    size = sum(part.all for part in needs.model(planned).sizes.values())
    if gpus or size > LARGEST:
        return MFU * gpu_of(GPU).tflops * TERA, f"a process is an {GPU.upper()} at {100 * MFU:.3g}% of its peak"
    needs.tell("a step here")
    batch = min(4, planned.batch) if run.ckpt is None else 1
    rate = timed(planned, needs, batch, threads, run.ckpt is None)
    return rate, f"{rate / 1e9:.3g} GFLOP/s of {counted(threads, 'thread')} here, timed on {counted(batch, 'clip')}"


def timed(planned: Any, needs: Any, batch: int, threads: int, backward: bool) -> float:
    """FLOPs a second of a step of the network on this machine: the faster of two, after one that warms up."""
    import torch

    from ccl import planning
    from ccl.planning.follow import extras, inputs, open_route
    from ccl.types import View

    model, before = needs.model(planned), torch.get_num_threads()
    bf16 = backward and planned.bf16
    with torch.random.fork_rng(devices=[]):
        net = planned.make()
        x, t, text = inputs(net, planned.grid, batch, model.text.length)
        x, text = x.map(torch.randn_like), torch.randn_like(text)
    view = View(open_route(net))
    forward = planning.forward_flops(model.short, planned.grid, view, text=model.text.length)
    count = planning.training_flops(forward, checkpointing=False) if backward else planning.total(forward)
    torch.set_num_threads(threads)
    seconds = []
    try:
        for _ in range(3):
            begun = time.perf_counter()
            with torch.set_grad_enabled(backward), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                given = extras(net, planned.grid, batch)
                v = net(x, t, text, grid=planned.grid, view=[view], extras=given).velocity
                if backward:
                    torch.stack([one.float().square().mean() for one in v if one is not None]).sum().backward()
            seconds.append(time.perf_counter() - begun)
    finally:
        torch.set_num_threads(before)
    return count * batch / min(seconds[1:])
