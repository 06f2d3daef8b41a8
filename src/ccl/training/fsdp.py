"""FSDP2: build on the meta device, shard by blocks, and start from the weights that one process would start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ccl.weights.formats import check_dtype, check_finite

DRAWS = (torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default)


class WholeDraws(TorchDispatchMode):
    """Within it, a random fill of a sharded tensor draws the whole tensor on the CPU and keeps the own shard.

    So the weights at step 0 depend on the seed alone, not on the number of processes or on the device. At no time is
    more than one parameter whole.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS and (isinstance(args[0], DTensor) or args[0].device.type not in ("cpu", "meta")):
            target = args[0]
            whole = func(torch.empty(target.shape, dtype=target.dtype), *args[1:], **kwargs).to(target.device)
            return target.copy_(spread(whole, target))
        return func(*args, **kwargs)


def spread(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process holds whole, laid out as `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def shard(net: nn.Module, mesh: DeviceMesh, *, bf16: bool) -> None:
    """Shard a network in place: each of its `blocks` a unit, the rest another.

    Args:
        net: on any device, meta included.
        mesh: one dimension, over the data-parallel processes.
        bf16: gather parameters in bfloat16 and reduce gradients in float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    kwargs: dict[str, Any] = {"mesh": mesh, "mp_policy": policy if bf16 else MixedPrecisionPolicy()}
    for block in getattr(net, "blocks", ()):
        fully_shard(block, **kwargs)
    fully_shard(net, **kwargs)


def gathered(value: Any) -> list[Any]:
    """What every process has, in the order of their ranks; all must call it."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def load_whole(
    module: nn.Module, state: dict[str, Tensor], source: str, *, without: Callable[[str], bool] = lambda _: False
) -> None:
    """Copy whole tensors into a module, sharded or not.

    Args:
        module: to fill.
        state: whole tensors by name.
        source: names them in errors.
        without: names of the module's own that the source need not have, and that stay as they are.

    Raises:
        ValueError: naming the first key that is missing, unknown, of another shape, no floats or not finite, and
            `source`.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if not without(name)}
    check_shapes(shapes_of(own), shapes_of(state), source)
    for name in own:
        check_dtype(name, state[name].dtype, source)
        check_finite(name, state[name], source)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(spread(state[name].to(tensor.dtype), tensor))


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes of whole tensors, sharded or not, by name."""
    return {name: tensor.shape for name, tensor in state.items()}


def check_shapes(own: dict[str, torch.Size], given: dict[str, torch.Size], source: str) -> None:
    """One sentence for the first key in which the weights of `source` differ from the model's."""
    for name, shape in own.items():
        if name not in given:
            raise ValueError(f"{source} has no {name}, which this model has ({tuple(shape)}); is it of another config?")
        if given[name] != shape:
            raise ValueError(
                f"{source} is of another shape: {name} is {tuple(given[name])} there and {tuple(shape)} in this model"
            )
    for name in given:
        if name not in own:
            raise ValueError(f"{source} has {name}, which this model has not; is it of another config?")
