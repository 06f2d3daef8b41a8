"""What a training or a clip costs, before anything is bought: parameters, FLOPs, memory, time.

Nothing is computed and nothing is estimated by formula where it can be followed: the network itself runs a step on
tensors without storage, along the path that a GPU takes, and every product is counted and every byte that lives. Two
networks of one and of two layers are enough, as all layers are alike.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from ccl.grid import Grid
from ccl.guidance.base import Guidance
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.image import ImageDualStream, Shown, beside
from ccl.nn.layers import _RMS
from ccl.tasks import Task
from ccl.types import AV, STREAMS, Route

Make = Callable[[int], DualStreamTransformer]
"""Makes the network with a number of layers."""

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


# FLOPs


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
# calling it whole, is counted by those: keys and values of the text.
COUNTED: tuple[tuple[str, str], ...] = (
    (r"\.blocks\.\d+\.(video|audio)\.(self_attn|cross_attn|ffn)$", r"\1 \2"),
    (r"\.blocks\.\d+\.(video|audio)\.cross_attn\.(?![qo]$)\w+$", r"\1 cross_attn"),
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
        net(*inputs(net, grid, batch, text), grid=grid, route=route, **picture(net, grid, batch))
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
    """Forward FLOPs of a clip, the mean over training tasks by their probabilities, from those of each route."""
    probs: Counter[Route] = Counter()  # tasks on one route cost the same
    for task in tasks.values():
        probs[task.route] += task.prob  # type: ignore[assignment]
    total: Table = {}
    for route, prob in probs.items():
        for part, flops in forward(route).items():
            total[part] = total.get(part, Flops()) + flops * (prob / sum(probs.values()))
    return total


# Memory

Bytes = int | float


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Args:
        weights: kept by the optimizer's process, in the trainer's precision.
        gradients: of what trains.
        optimizer: two moments of what trains, and a count a tensor.
        average: of all weights, where the EMA callback keeps one.
        gathered: whole blocks in bfloat16, the next one fetched ahead, and one block's gradients (FSDP2); or the
            bfloat16 copies of all weights that autocast keeps.
        activations: the most that lives at once beyond all that, in a step.
    """

    weights: Bytes
    gradients: Bytes
    optimizer: Bytes
    average: Bytes
    gathered: Bytes
    activations: Bytes

    @property
    def total(self) -> Bytes:
        return self.weights + self.gradients + self.optimizer + self.average + self.gathered + self.activations


def states(sizes: Mapping[str, Size], *, ema: bool, bytes_each: int = 4) -> Memory:
    """What training keeps of all parameters, unsharded, in bytes; nothing gathered, no activations."""
    total = sum(sizes.values(), Size())
    averaged = total.all - sizes.get("text", Size()).all * (not sizes.get("text", Size()).trained)
    return Memory(
        weights=bytes_each * total.all,
        gradients=bytes_each * total.trained,
        optimizer=2 * bytes_each * total.trained + 4 * total.tensors,
        average=bytes_each * averaged * ema,
        gathered=0.0,
        activations=0.0,
    )


def sharded(whole: Memory, sizes: Mapping[str, Size], *, gpus: int, layers: int, ends: int, bf16: bool) -> Memory:
    """One GPU's part under FSDP2, where parameters, gradients, moments and average are spread over all."""
    each = (sum(sizes.values(), Size()).all - sizes.get("text", Size()).all - ends) / layers
    cast = 2 if bf16 else 4
    parts = {name: getattr(whole, name) / gpus for name in ("weights", "gradients", "optimizer", "average")}
    return replace(whole, **parts, gathered=cast * (2 * each + ends) + 4 * each)


def activations(
    make: Make, layers: int, grid: Grid, *, batch: int, text: int = 512, bf16: bool = True, checkpointing: bool
) -> int:
    """Bytes that a training step of `batch` clips holds at its worst moment, weights and their gradients apart."""

    def peak(count: int) -> int:
        with faked(make, count, grid, bf16=bf16) as net:
            net.checkpointing = checkpointing
            for p in net.parameters():  # as sharding does: a block's gradients leave when they are there
                if p.requires_grad:
                    p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
            args = inputs(net, grid, batch, text)
            with Live(net.parameters()) as live:
                v = net(*args, grid=grid, route=open_route(net), **picture(net, grid, batch))
                torch.autograd.backward([sum(x.square().mean() for x in v if x is not None)])
            return live.peak

    one = peak(1)
    return one if layers == 1 else one + (layers - 1) * (peak(2) - one)


# Generation


@dataclass(frozen=True)
class Clip:
    """What one clip costs to make.

    Args:
        weights: bytes of the network in bfloat16.
        rest: bytes of keys and values of the text and of what else lives at the worst moment.
        flops: of all steps.
        passes: of the guidance rule.
        evaluations: of the network, each of all passes.
    """

    weights: Bytes
    rest: Bytes
    flops: int | float
    passes: int
    evaluations: int


def clip(
    make: Make, layers: int, size: int, grid: Grid, guidance: Guidance, *, steps: int, solver: str, text: int = 512
) -> Clip:
    """The cost of one clip of both streams, or of the one that the network has.

    Args:
        make: the network.
        layers: it has.
        size: its parameters.
        grid: of the clip.
        guidance: the rule; its passes run as one batch.
        steps: of the solver.
        solver: Heun's evaluates twice a step, but for the last.
        text: states of a prompt.
    """
    routes: list[Route] = []

    def run(count: int) -> tuple[int, int]:
        with faked(make, count, grid) as net, torch.no_grad():
            routes[:] = [each.route for each in guidance.weights(open_route(net))]
            x, t, states = inputs(net, grid, len(routes), text)
            with Live(net.parameters()) as live, counting() as counter:
                prepared = net.prepare(states, **picture(net, grid, len(routes)))
                once = counter.get_total_flops()
                net(x, t, prepared, grid=grid, route=routes)
            return live.peak, counter.get_total_flops() - once

    (low, one), (high, two) = run(1), run(2)
    evaluations = 2 * steps - 1 if solver == "heun" else steps
    flops = (one + (layers - 1) * (two - one)) * evaluations
    return Clip(2.0 * size, low + (layers - 1) * (high - low), flops, len(routes), evaluations)


# Following a step


class Live(TorchDispatchMode):
    """Bytes of all tensors that live, and their highest sum.

    Args:
        known: tensors that are counted elsewhere.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._part, size)

    def _part(self, size: int) -> None:
        self.now -= size


class OnGPU(TorchFunctionMode):
    """The path that a GPU takes, on the meta device: fused attention, which holds no scores, and fused norms."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]  # made anew at each look, so not "is"
            return True
        if func is F.rms_norm:
            return _RMS.apply(args[0], kwargs["weight"])
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args
        mask = (kwargs or {}).get("attn_mask")
        if mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        mask = mask.expand(*q.shape[:3], k.shape[2]).to(q.dtype)
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True)[0]


@contextmanager
def faked(make: Make, layers: int, grid: Grid, *, bf16: bool = True) -> Iterator[DualStreamTransformer]:
    """A network of tensors without storage, in bfloat16 as a GPU gathers it, and the world in which it runs."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = make(layers)
        for module in net.modules():
            if hasattr(module, "backend"):
                module.backend = "sdpa"  # type: ignore[assignment]  # what is called where flash-attn is not installed, and holds the same
            for name, p in module._parameters.items() if bf16 else ():
                if p is not None:
                    half = torch.empty_like(p, dtype=torch.bfloat16)
                    module._parameters[name] = nn.Parameter(half, p.requires_grad)
        with torch.device("cpu"):
            net._plan(grid, torch.device("meta"))  # windows are lists that someone has to read
        for block in net.blocks:
            block.forward = _within(OnGPU, block.forward)  # also where checkpointing calls it again
        yield net


def _within(mode: type[TorchFunctionMode], call: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return call(*args, **kwargs)

    return forward


def counting() -> FlopCounterMode:
    return FlopCounterMode(display=False, depth=99)


def inputs(net: DualStreamTransformer, grid: Grid, batch: int, text: int) -> tuple[AV[Any], AV[Any], Tensor]:
    """Noisy latents, a time for each latent frame (as where a first picture is given) and text states."""
    shapes = AV((grid.t_v, grid.latent_height, grid.latent_width), (grid.t_a,))
    x: AV[Any] = AV.zip(lambda ends, c, shape: torch.empty(batch, c, *shape), net.ends, net.channels, shapes)
    t: AV[Any] = AV.zip(lambda ends, n: torch.zeros(batch, n), net.ends, AV(grid.t_v, 1))
    return x, t, torch.empty(batch, text, net.text_dim)


def picture(net: DualStreamTransformer, grid: Grid, batch: int) -> dict[str, Any]:
    """The first pictures, for a network that is shown them."""
    if not isinstance(net, ImageDualStream):
        return {}
    latents = torch.empty(batch, net.channels.video, grid.t_v, grid.latent_height, grid.latent_width)
    return {"image": Shown(beside(latents), torch.empty(batch, net.image_tokens, net.image_dim))}


def open_route(net: DualStreamTransformer) -> Route:
    """All that a network of these streams can see."""
    both = all(ends is not None for ends in net.ends)
    return Route(both, both)


def ends_of(net: DualStreamTransformer) -> int:
    """Parameters outside the blocks."""
    return sum(p.numel() for name, p in net.named_parameters() if not name.startswith("blocks."))


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
