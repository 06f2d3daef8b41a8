"""A network of weights that are there: of their size, their own tensors as its parameters, none drawn and none copied.

Every network here is made so, by its `of(state)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ccl.weights.fill import fill

Net = TypeVar("Net", bound=nn.Module)


def filled(make: Callable[[], Net], state: Mapping[str, Any], name: str) -> Net:
    """What `make` builds, filled with `state`, for use and not for training.

    Args:
        make: builds the network, of a size that it may read from `state`.
        state: weights by the network's own keys, as a file has them.
        name: of the network, for the message.

    Raises:
        ValueError: these are not its weights; the first thing that does not fit.
    """
    if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"these are not {name}'s weights: {other[0]!r} is no tensor")
    try:
        with torch.device("meta"):
            net = make()
        # Files of before batch normalisation counted its batches lack the counts, which nothing here reads.
        counts = {key: torch.tensor(0) for key in net.state_dict() if key.endswith(".num_batches_tracked")}
        fill(net, {**counts, **state}, "the file", kind=name, assign=True)
    except (KeyError, IndexError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(f"these are not {name}'s weights: {' '.join(reason.split())[:200]}") from error
    return net.eval().requires_grad_(False)
