"""Parameters and FLOPs, by the part of the method that they belong to.

Every product of a followed forward is counted (ccl.planning.follow). One layer is enough, as all layers are alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ccl.grid import Grid
from ccl.model.dual_stream import DualStreamTransformer
from ccl.planning.follow import Make, counting, extras, faked, inputs
from ccl.tasks import Task
from ccl.types import STREAMS, Route, View

# A parameter's name -> the part it belongs to; the first that matches.
PARTS: tuple[tuple[str, str], ...] = (
    (r"^blocks\.\d+\.interaction\.\w+\.context\.[kv]\.", "context projections"),
    (r"^blocks\.\d+\.interaction\.\w+\.context\.", "context tokens"),
    (r"^blocks\.\d+\.interaction\.a2v\.", "A2V"),
    (r"^blocks\.\d+\.interaction\.v2a\.", "V2A"),
    (r"^blocks\.\d+\.interaction\.", "interaction"),
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
    """Parameters by part: video, audio, A2V, V2A, context tokens, context projections, adapters, text."""
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


# A module's name in a count -> the part that its FLOPs belong to. What a block calls of a module's own modules, without
# calling it whole, is counted by those: queries, and keys and values of the text.
COUNTED: tuple[tuple[str, str], ...] = (
    (r"\.blocks\.\d+\.(video|audio)\.(self_attn|cross_attn|ffn)$", r"\1 \2"),
    (r"\.blocks\.\d+\.(video|audio)\.cross_attn\.(?!o$)\w+$", r"\1 cross_attn"),
    (r"\.blocks\.\d+\.interaction\.(\w+)$", r"interaction \1"),
)

Table = dict[str, Flops]
"""FLOPs by part: "video self_attn", "audio ffn", "interaction a2v", "ends", ..."""


def forward_flops(make: Make, layers: int, grid: Grid, route: Route, *, text: int = 512, batch: int = 1) -> Table:
    """FLOPs of one forward of `batch` clips on a route, by part.

    Args:
        make: the network.
        layers: it has.
        grid: of the clips.
        route: who sees whom; a closed direction does not project the other stream's tokens.
        text: states of a prompt.
        batch: clips.
    """
    with faked(make, 1, grid) as net, torch.no_grad(), counting() as counter:
        net(*inputs(net, grid, batch, text), grid=grid, view=View(route), extras=extras(net, grid, batch))
    return grown(by_part(counter), layers)


def by_part(counter: FlopCounterMode) -> Table:
    """A count of one forward as FLOPs by part; "ends" are what the blocks leave over."""
    counts = {name: _flops(ops) for name, ops in counter.flop_counts.items()}
    table: Table = {"ends": counts["Global"]}
    for name, flops in counts.items():
        for pattern, key in COUNTED:
            if found := re.search(pattern, name):
                part = found.expand(key)
                table[part] = table.get(part, Flops()) + flops
                table["ends"] = table["ends"] + flops * -1.0
                break
    return table


def _flops(counts: Mapping[Any, int]) -> Flops:
    core = sum(n for op, n in counts.items() if "attention" in str(op))
    return Flops(float(sum(counts.values()) - core), float(core))


def grown(table: Table, layers: int) -> Table:
    """The count of one layer as that of many."""
    return {part: flops if part == "ends" else flops * layers for part, flops in table.items()}


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
