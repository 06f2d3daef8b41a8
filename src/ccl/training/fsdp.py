"""FSDP2: build on the meta device, shard by blocks, and start from the weights that one process would start from."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ccl.weights.fill import spread

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


Reduce = Literal["float32", "bfloat16"]


def shard(net: nn.Module, mesh: DeviceMesh, *, bf16: bool, reduce: Reduce = "float32") -> None:
    """Shard a network in place: each of its `blocks` a unit, the rest another.

    Args:
        net: on any device, meta included.
        mesh: one dimension, over all processes (see `Ranks`).
        bf16: gather parameters in bfloat16.
        reduce: in which precision gradients are then summed over processes.
    """
    dtypes: dict[str, Any] = {"param_dtype": torch.bfloat16, "reduce_dtype": getattr(torch, reduce)}
    policy = MixedPrecisionPolicy(**dtypes, cast_forward_inputs=False)
    kwargs: dict[str, Any] = {"mesh": mesh, "mp_policy": policy if bf16 else MixedPrecisionPolicy()}
    for block in getattr(net, "blocks", ()):
        fully_shard(block, **kwargs)
    fully_shard(net, **kwargs)


class Ranks(NamedTuple):
    """Lightning's mesh, (data_parallel, tensor_parallel), as it is used here: no tensor is parallel, but the processes
    of its second axis share their clips' video tokens (context parallelism, `ccl.nn.split`).

    Args:
        all: one dimension over all processes: those that share a clip hold different parts of the weights as well, and
            the mean of all gradients is the one that is wanted.
        context: those that share this one's clips; None where each has its own.
    """

    all: DeviceMesh
    context: ProcessGroup | None

    @classmethod
    def of(cls, mesh: DeviceMesh) -> Ranks:
        data, context = mesh["data_parallel"], mesh["tensor_parallel"]
        if context.size() == 1:
            return cls(data, None)
        return cls(init_device_mesh(mesh.device_type, (mesh.size(),)), context.get_group())


def gathered(value: Any) -> list[Any]:
    """What every process has, in the order of their ranks; all must call it."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
