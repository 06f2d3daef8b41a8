"""What a training or a clip costs, before anything is bought: parameters, FLOPs, memory, time.

Nothing is computed and nothing is estimated by formula where it can be followed: the network itself runs a step on
tensors without storage, along the path that a GPU takes, and every product is counted and every byte that lives. Two
networks of one and of two layers are enough, as all layers are alike.
"""

from ccl.planning.count import (
    Flops,
    Size,
    Table,
    ends_of,
    forward_flops,
    gathered_rows,
    mean_flops,
    parameters,
    total,
    training_flops,
)
from ccl.planning.memory import Memory, activations, sharded, states
from ccl.planning.sampled import Clip, clip

__all__ = [
    "Clip",
    "Flops",
    "Memory",
    "Size",
    "Table",
    "activations",
    "clip",
    "ends_of",
    "forward_flops",
    "gathered_rows",
    "mean_flops",
    "parameters",
    "sharded",
    "states",
    "total",
    "training_flops",
]
