"""What a training or a clip costs, before anything is bought: parameters, FLOPs, memory, time.

Nothing is computed and nothing is estimated by formula where it can be followed: the network itself runs a step on
tensors without storage, along the path that a GPU takes, and every product is counted and every byte that lives. One
block of each kind is enough, and two for memory, as blocks that are made alike cost the same.
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
from ccl.planning.kinds import Short, shorten
from ccl.planning.memory import Memory, activations, largest, sharded, states
from ccl.planning.sampled import Clip, asked, clip

__all__ = [
    "Clip",
    "Flops",
    "Memory",
    "Short",
    "Size",
    "Table",
    "activations",
    "asked",
    "clip",
    "ends_of",
    "forward_flops",
    "gathered_rows",
    "largest",
    "mean_flops",
    "parameters",
    "sharded",
    "shorten",
    "states",
    "total",
    "training_flops",
]
