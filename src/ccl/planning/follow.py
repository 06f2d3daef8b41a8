"""A network followed on tensors without storage, along the path that a GPU takes: what is called and what lives.

`faked` is the world in which it runs, `inputs` and `extras` are what it is given, `Counting` and `Live` watch it.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ccl.grid import Grid
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.image import ImageEnds, Shown, with_mask
from ccl.nn.layers import _RMS
from ccl.planning.kinds import Short, moved
from ccl.types import AV, Route, View


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
            if (weight := kwargs["weight"]) is None:
                weight = args[0].new_ones(()).expand(args[1])  # there is none to hold: one number stands for all
            return _RMS.apply(args[0], weight)
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args
        return self._attention(q, k, v, (kwargs or {}).get("attn_mask"))

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        mask = mask.expand(*q.shape[:3], k.shape[2]).to(q.dtype)
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True)[0]


class OnCPU(OnGPU):
    """The path that a CPU takes: norms as above, attention fused too, in float32 (see `ccl.nn.attention`)."""

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = q.float(), k.float(), v.float()
        mask = None if mask is None else mask.expand(len(q), 1, q.shape[2], k.shape[2]).to(q.dtype)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)[0]


PATHS: dict[str, type[OnGPU]] = {"cuda": OnGPU, "cpu": OnCPU}


class Counting(FlopCounterMode):
    """FLOPs of each operation where they are computed: in the innermost module that runs.

    Attributes:
        places: FLOPs by the name of that module and by operation.
        behind: of the backward pass of the same, where gradients are wanted: a product makes one of its size for each
            of its two factors that needs a gradient, attention two where any of its inputs does.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.places: Counter[tuple[str, Any]] = Counter()
        self.behind: Counter[tuple[str, Any]] = Counter()

    def _count_flops(self, op: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if op in self.flop_registry:
            inner = max(self.mod_tracker.parents, key=lambda name: name.count("."))
            flops = self.flop_registry[op](*args, **kwargs, out_val=out)
            asks = [x.requires_grad for x in args if isinstance(x, Tensor)]
            self.places[inner, op] += flops
            # Of an addmm the first tensor is what is added.
            self.behind[inner, op] += flops * (2 * any(asks) if "attention" in str(op) else sum(asks[-2:]))
        return super()._count_flops(op, out, args, kwargs)


@contextmanager
def faked(
    short: Short, layers: Sequence[int], grid: Grid, *, bf16: bool = True, device: str = "cuda", context: int = 1
) -> Iterator[DualStreamTransformer]:
    """The network with the blocks of these layers alone, in bfloat16 as a GPU gathers it, and the world where it runs.

    It has no storage. Views name layers of the whole network. `device` says whose path it takes, `context` over how
    many processes each clip's video tokens are split, of which it is the first.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = copy.deepcopy(short.net)
        for module in net.modules():
            if hasattr(module, "backend"):
                module.backend = "sdpa"  # type: ignore[assignment]  # what is called where flash-attn is not installed, and holds the same
            for name, p in module._parameters.items() if bf16 else ():
                if p is not None and p.element_size() > 1:
                    half = torch.empty_like(p, dtype=torch.bfloat16)
                    module._parameters[name] = nn.Parameter(half, p.requires_grad)
        if context > 1:
            net.split_over(ProcessGroup(0, context))  # type: ignore[call-arg]  # one that nothing is sent in
        with torch.device("cpu"):
            net.layout(grid, torch.device("meta"))  # windows are lists that someone has to read
        net.blocks = short.blocks(layers, net)
        net.forward = partial(_seeing, net.forward, layers)  # type: ignore[method-assign]
        for part in (*net.blocks, *([] if net.trunk is None else [net.trunk])):
            part.forward = _within(PATHS[device], part.forward)  # also where checkpointing calls it again
        yield net


def _seeing(forward: Callable[..., Any], layers: Sequence[int], *args: Any, view: Sequence[View], **kwargs: Any) -> Any:
    return forward(*args, view=moved(view, layers), **kwargs)


def _within(mode: type[TorchFunctionMode], call: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return call(*args, **kwargs)

    return forward


def inputs(net: DualStreamTransformer, grid: Grid, batch: int, text: int) -> tuple[AV[Any], AV[Any], Tensor]:
    """Noisy latents, a time for each latent frame (as where a first picture is given) and text states."""
    shapes = AV((grid.t_v, grid.latent_height, grid.latent_width), (grid.t_a,))
    x: AV[Any] = AV.zip(lambda ends, c, shape: torch.empty(batch, c, *shape), net.ends, net.channels, shapes)
    t: AV[Any] = AV.zip(lambda ends, n: torch.zeros(batch, n), net.ends, AV(grid.t_v, 1))
    return x, t, torch.empty(batch, text, net.text_dim)


def extras(net: DualStreamTransformer, grid: Grid, batch: int) -> dict[str, Any]:
    """What a batch must bring: what the interaction needs, and first pictures for a network that is shown them."""
    with torch.device("cpu"):
        example = net.interaction.example(grid, batch)
    found: dict[str, Any] = tree_map_only(Tensor, lambda x: x.to(next(net.parameters()).device), example)
    if isinstance(net.video, ImageEnds):
        latents = torch.empty(batch, net.channels.video, grid.t_v, grid.latent_height, grid.latent_width)
        found["image"] = Shown(with_mask(latents), torch.empty(batch, net.video.image_tokens, net.video.image_dim))
    return found


def reach(net: DualStreamTransformer) -> tuple[list[AV[bool]], list[AV[bool]]]:
    """Two lists that hear, at each forward, whether gradients reach the tokens of each stream where they enter the
    first block, and where they leave the last."""
    before: list[AV[bool]] = []
    after: list[AV[bool]] = []
    net.blocks[0].register_forward_pre_hook(lambda block, given: before.append(graded(given[0])))
    net.blocks[-1].register_forward_hook(lambda block, given, out: after.append(graded(out[0])))
    return before, after


def graded(x: AV[Any]) -> AV[bool]:
    return AV(*(isinstance(z, Tensor) and z.requires_grad for z in x))


def open_route(net: DualStreamTransformer) -> Route:
    """All that a network of these streams can see."""
    both = all(ends is not None for ends in net.ends)
    return Route(both, both)
