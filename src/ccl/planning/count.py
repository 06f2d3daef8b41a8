"""Parameters and FLOPs, by the part of the method that they belong to.

Every product of a followed forward is counted (ccl.planning.follow). One block of each kind is enough (.kinds).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from torch import nn

from ccl.grid import Grid
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.recompute import Checkpointing
from ccl.planning.follow import Counting, extras, faked, inputs, reach
from ccl.planning.kinds import Short
from ccl.tasks import Task
from ccl.types import AV, WHOLE, View

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


MOMENTS_BLOCK = 256  # numbers that share a scale where AdamW's moments are in 8 bits


@dataclass(frozen=True)
class Size:
    """Parameters of a part.

    Args:
        all: numbers.
        trained: those that train.
        tensors: that train.
        small: numbers that train, in tensors whose moments 8-bit AdamW leaves as they are: of fewer than 4096 numbers,
            or of no whole blocks (torchao).
        narrow: numbers that are kept in 8 bits.
    """

    all: int = 0
    trained: int = 0
    tensors: int = 0
    small: int = 0
    narrow: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def parameters(net: nn.Module, text: nn.Module | None = None) -> dict[str, Size]:
    """Parameters by part: video, audio, A2V, V2A, context tokens and projections, interaction, adapters, text."""
    found: dict[str, Size] = {}
    for prefix, module in (("", net), ("text.", text)):
        for name, p in () if module is None else module.named_parameters():
            trained = p.numel() * p.requires_grad
            small = p.numel() < 4096 or p.numel() % MOMENTS_BLOCK
            narrow = p.numel() * (p.element_size() == 1)
            size = Size(p.numel(), trained, int(p.requires_grad), trained * bool(small), narrow)
            part = next((part for key, part in PARTS if re.search(key, name)), "other") if not prefix else "text"
            found[part] = found.get(part, Size()) + size
    return found


def ends_of(net: DualStreamTransformer) -> int:
    """Parameters outside the blocks."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("blocks."))


@dataclass(frozen=True)
class Flops:
    """Of one forward, and of the backward pass that autograd makes of it.

    Args:
        linear: of the forward, in products with weights.
        core: and in attention's own products, which have none.
        backward: of its backward pass: less than twice the forward where weights are frozen, nothing before the first
            that train.
        again: of the forward of the blocks that have a backward pass: what checkpointing computes again.
        attended: of that, attention's own products, whose output may be kept.
    """

    linear: float = 0.0
    core: float = 0.0
    backward: float = 0.0
    again: float = 0.0
    attended: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, x: int | float) -> Flops:
        return Flops(*(x * each for each in astuple(self)))

    @property
    def total(self) -> float:
        """Of the forward."""
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


class Followed(NamedTuple):
    """A forward of one block and of what is outside the blocks.

    Args:
        counter: what was counted.
        before: whether gradients reach the tokens of each stream where they enter the block.
        after: and where they leave it.
    """

    counter: Counting
    before: AV[bool]
    after: AV[bool]


def forward_flops(short: Short, grid: Grid, view: View = WHOLE, *, text: int = 512, batch: int = 1) -> Table:
    """FLOPs of one forward of `batch` clips, and of its backward pass, by part.

    Args:
        short: the network.
        grid: of the clips.
        view: who sees whom, and what is left out; a closed direction does not project the other stream's tokens.
        text: states of a prompt.
        batch: clips.
    """

    def followed(layer: int, reached: AV[bool]) -> Followed:
        with faked(short, [layer], grid) as net, Counting() as counter:
            net.checkpointing = False
            before, after = reach(net)
            x, t, states = inputs(net, grid, batch, text)
            x = AV.zip(lambda z, yes: z.requires_grad_(yes), x, reached)
            net(x, t, states, grid=grid, view=[view], extras=extras(net, grid, batch))
        return Followed(counter, *((*seen, reached)[0] for seen in (before, after)))

    alike = short.alike([view])
    first = followed(alike[0], AV(False, False))
    found = {(alike[0], first.before): first}
    counts: Counter[tuple[int, AV[bool]]] = Counter()
    reached = first.before
    for layer in alike:  # a block's backward pass ends where nothing before it trains
        if (layer, reached) not in found:
            found[layer, reached] = followed(layer, reached)
        counts[layer, reached] += 1
        reached = found[layer, reached].after
    table = by_part(first.counter, blocks=[0])
    for key, count in counts.items():
        add(table, by_part(found[key].counter, blocks=[count], ends=False))
    return table


def by_part(counter: Counting, blocks: Sequence[int], *, ends: bool = True) -> Table:
    """A count of one forward as FLOPs by part.

    Args:
        counter: what was counted.
        blocks: how many each block stands for.
        ends: whether what is outside the blocks is told; "ends" are what no part computes.
    """
    table: Table = {"ends": Flops()} if ends else {}
    trains: Counter[str] = Counter()  # FLOPs of each block's backward pass
    for (name, _), flops in counter.behind.items():
        trains[block_of(name)] += flops
    for (name, op), flops in counter.places.items():
        block = block_of(name)
        if not (block or ends):
            continue
        part = next((found.expand(key) for pattern, key in COUNTED if (found := re.search(pattern, name))), "ends")
        core = flops if "attention" in str(op) else 0
        again = bool(block and trains[block])
        counted = flops - core, core, counter.behind[name, op], flops * again, core * again
        add(table, {part: Flops(*map(float, counted)) * (blocks[int(block)] if block else 1)})
    return table


def block_of(name: str) -> str:
    """The number of the block that a module is part of; "" where it is of none."""
    found = re.search(r"\.blocks\.(\d+)\b", name)
    return found[1] if found else ""


def add(table: Table, more: Table) -> None:
    """Add to a table."""
    for part, flops in more.items():
        table[part] = table.get(part, Flops()) + flops


def training_flops(forward: Table, *, checkpointing: Checkpointing) -> float:
    """FLOPs of a training step from those of its forward and backward pass; where everything trains it is three times
    the forward, four where the blocks are computed again, and less where attention's output is kept."""
    again, kept = bool(checkpointing), checkpointing == "attention"
    return sum(flops.total + flops.backward + again * flops.again - kept * flops.attended for flops in forward.values())


def mean_flops(forward: Callable[[View], Table], tasks: Mapping[str, Task]) -> Table:
    """FLOPs of a clip, the mean over training tasks by their probabilities, from those of what each term sees.

    A task of several terms costs all of them.
    """
    probs: Counter[View] = Counter()  # terms that see alike cost the same
    for task in tasks.values():
        for term in task.terms:
            probs[term.view] += task.prob  # type: ignore[assignment]
    whole = sum(task.prob for task in tasks.values())
    mean: Table = {}
    for view, prob in probs.items():
        add(mean, {part: flops * (prob / whole) for part, flops in forward(view).items()})
    return mean


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
