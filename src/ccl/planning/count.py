"""Parameters and FLOPs, by the part of the method that they belong to.

Every product of a followed forward is counted (ccl.planning.follow). One block of each kind is enough (.kinds).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ccl.grid import Grid
from ccl.model.dual_stream import DualStreamTransformer
from ccl.planning.follow import Counting, extras, faked, inputs
from ccl.planning.kinds import Short
from ccl.tasks import Task
from ccl.types import STREAMS, WHOLE, Route, View

# A parameter's name -> the part it belongs to; the first that matches.
PARTS: tuple[tuple[str, str], ...] = (
    (r"^blocks\.\d+\.interaction\.\w+\.context\.[kv]\.", "context projections"),
    (r"^blocks\.\d+\.interaction\.\w+\.context\.", "context tokens"),
    (r"^blocks\.\d+\.interaction\.a2v\.", "A2V"),
    (r"^blocks\.\d+\.interaction\.v2a\.", "V2A"),
    (r"^(?:blocks\.\d+\.interaction|trunk)\.", "interaction"),
    (r"lora_[ab]$", "adapters"),
    (r"^(?:blocks\.\d+\.)?video\.", "video"),
    (r"^(?:blocks\.\d+\.)?audio\.", "audio"),
)


@dataclass(frozen=True)
class Size:
    """Parameters of a part, and how many of them train."""

    all: int = 0
    trained: int = 0
    tensors: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.all + other.all, self.trained + other.trained, self.tensors + other.tensors)


def parameters(net: nn.Module, text: nn.Module | None = None) -> dict[str, Size]:
    """Parameters by part: video, audio, A2V, V2A, context tokens and projections, interaction, adapters, text."""
    found: dict[str, Size] = {}
    for prefix, module in (("", net), ("text.", text)):
        for name, p in () if module is None else module.named_parameters():
            size = Size(p.numel(), p.numel() * p.requires_grad, int(p.requires_grad))
            part = next((part for key, part in PARTS if re.search(key, name)), "other") if not prefix else "text"
            found[part] = found.get(part, Size()) + size
    return found


def ends_of(net: DualStreamTransformer) -> int:
    """Parameters outside the blocks."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("blocks."))


@dataclass(frozen=True)
class Flops:
    """Of one forward: products with weights, and attention's own (which have none)."""

    linear: float = 0.0
    core: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.core + other.core)

    def __mul__(self, x: int | float) -> Flops:
        return Flops(self.linear * x, self.core * x)

    @property
    def total(self) -> float:
        return self.linear + self.core


# The module that computes something -> the part that its FLOPs belong to; the first that matches. An interaction's own
# modules may have any names but those of its two directions.
COUNTED: tuple[tuple[str, str], ...] = (
    (r"\.blocks\.\d+\.(video|audio)\.(self_attn|cross_attn|ffn)\b", r"\1 \2"),
    (r"\.blocks\.\d+\.interaction\.(a2v|v2a)\b", r"interaction \1"),
    (r"\.(?:blocks\.\d+\.interaction|trunk)\b", "interaction"),
)

Table = dict[str, Flops]
"""FLOPs by part: "video self_attn", "audio ffn", "interaction a2v", "interaction", "ends", ..."""


def forward_flops(short: Short, grid: Grid, view: View = WHOLE, *, text: int = 512, batch: int = 1) -> Table:
    """FLOPs of one forward of `batch` clips, by part.

    Args:
        short: the network.
        grid: of the clips.
        view: who sees whom, and what is left out; a closed direction does not project the other stream's tokens.
        text: states of a prompt.
        batch: clips.
    """
    alike = short.alike([view])
    layers = sorted(set(alike))
    with faked(short, layers, grid) as net, torch.no_grad(), Counting() as counter:
        net(*inputs(net, grid, batch, text), grid=grid, view=[view], extras=extras(net, grid, batch))
    return by_part(counter, [alike.count(layer) for layer in layers])


def by_part(counter: Counting, counts: Sequence[int]) -> Table:
    """A count of one forward as FLOPs by part; each block stands for so many. "ends" are what no part computes."""
    table: Table = {"ends": Flops()}
    for (name, op), flops in counter.places.items():
        part = next((found.expand(key) for pattern, key in COUNTED if (found := re.search(pattern, name))), "ends")
        block = re.search(r"\.blocks\.(\d+)\b", name)
        flops *= 1 if block is None else counts[int(block[1])]
        one = Flops(core=float(flops)) if "attention" in str(op) else Flops(linear=float(flops))
        table[part] = table.get(part, Flops()) + one
    return table


def training_flops(forward: Table, sizes: Mapping[str, Size], *, checkpointing: bool) -> float:
    """FLOPs of a training step from those of its forward: three times, four where the blocks are computed again.

    A product's backward pass is two of its size, one for its input and one for its weight; a frozen weight saves the
    latter.
    """
    total = 0.0
    for part, flops in forward.items():
        words = part.split()
        streams = [word for word in words if word in STREAMS] or ([] if words[0] == "interaction" else STREAMS)
        frozen = bool(streams) and not any(sizes.get(stream, Size()).trained for stream in streams)
        again = checkpointing and part != "ends"
        total += flops.total * (2 + again) + flops.core + flops.linear * (not frozen)
    return total


def mean_flops(forward: Callable[[Route], Table], tasks: Mapping[str, Task]) -> Table:
    """Forward FLOPs of a clip, the mean over training tasks by their probabilities, from those of each route.

    A task of several terms costs all of them.
    """
    probs: Counter[Route] = Counter()  # terms on one route cost the same
    for task in tasks.values():
        for term in task.terms:
            probs[term.route] += task.prob  # type: ignore[assignment]
    whole = sum(task.prob for task in tasks.values())
    total: Table = {}
    for route, prob in probs.items():
        for part, flops in forward(route).items():
            total[part] = total.get(part, Flops()) + flops * (prob / whole)
    return total


def total(table: Table) -> float:
    return sum(flops.total for flops in table.values())


def gathered_rows(table: Table) -> dict[str, float]:
    """FLOPs of both streams' self-attention, text attention and feed-forward, of the interaction and of the ends."""
    rows: Counter[str] = Counter()
    names = {"self_attn": "self-attention", "cross_attn": "text attention", "ffn": "feed-forward"}
    for part, flops in table.items():
        words = part.split()
        rows[names.get(words[-1], words[0])] += flops.total  # type: ignore[assignment]
    return dict(rows)
