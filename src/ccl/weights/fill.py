"""One strict fill: a network takes all of a file's weights, or is left as it was, and one sentence says why.

Sharded networks (FSDP2) take whole tensors as others do: each process keeps its part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ccl.weights.formats import check_dtype, check_finite, foreign_names


def fill(
    net: nn.Module,
    state: Mapping[str, Tensor],
    source: object,
    *,
    kind: str = "",
    assign: bool = False,
    without: Callable[[str], bool] = lambda _: False,
) -> None:
    """Give a network its weights.

    Args:
        net: to fill, sharded or not; with `assign` it may lie on the meta device.
        state: whole tensors by name.
        source: names them in errors.
        kind: what the network is called in errors; "" is its class.
        assign: take the tensors themselves, in their own precision, in the place of copies of their values.
        without: names of the network's own that the source need not have, and that stay as they are.

    Raises:
        ValueError: naming `source` and the first key that is missing, unknown, of another shape, no floats or not
            finite; nothing was filled.
    """
    own = {name: tensor for name, tensor in net.state_dict().items() if not without(name)}
    kind = kind or type(net).__name__
    if foreign := foreign_names(name for name in state if name not in own):
        raise ValueError(f"{source} is {foreign}")
    check_shapes(shapes_of(own), shapes_of(state), source, kind)
    for name in own:
        check_dtype(name, state[name].dtype, source)
        check_finite(name, state[name], source)
    if assign:
        net.load_state_dict(dict(state), strict=True, assign=True)
        return
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(spread(state[name].to(tensor.dtype), tensor))


def spread(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every process holds whole, laid out as `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes of whole tensors, sharded or not, by name."""
    return {name: tensor.shape for name, tensor in state.items()}


def check_shapes(
    own: Mapping[str, torch.Size], given: Mapping[str, torch.Size], source: object, kind: str = "this model"
) -> None:
    """Refuse weights that are not those of a network.

    Args:
        own: the network's shapes by name.
        given: those of the weights.
        source: names them in errors.
        kind: what the network is called in errors.

    Raises:
        ValueError: naming the first key that is missing, unknown or of another shape.
    """
    for of, names, what in (
        (own, given, f"lacks {{}} keys of {kind}, the first is"),
        (given, own, f"has {{}} keys that {kind} has not, the first is"),
    ):
        if apart := [name for name in of if name not in names]:
            raise ValueError(f"{source} {what.format(len(apart))} {apart[0]} {tuple(of[apart[0]])}")
    for name, shape in own.items():
        if given[name] != shape:
            raise ValueError(f"{source}: {name} is {tuple(given[name])}, and {tuple(shape)} in {kind}")
