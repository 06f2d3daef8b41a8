"""GPUs by name for `ccl plan`: memory and speed, as their makers' data sheets give them."""

from __future__ import annotations

from typing import NamedTuple

from ccl.cli.errors import UsageError, did_you_mean


class GPU(NamedTuple):
    """What a GPU holds and does.

    Args:
        memory: GB.
        tflops: bfloat16 products summed in float32, a second, 10^12, dense; sheets often print the sparse double.
    """

    memory: float
    tflops: float


# NVIDIA's data sheets and architecture whitepapers, AMD's data sheet; SXM modules where nothing else is said.
GPUS: dict[str, GPU] = {
    "3090": GPU(24, 71),
    "4090": GPU(24, 165.2),
    "5090": GPU(32, 209.5),
    "a10": GPU(24, 125),
    "a6000": GPU(48, 154.8),
    "l4": GPU(24, 121),
    "l40s": GPU(48, 362),
    "a100-40": GPU(40, 312),
    "a100-80": GPU(80, 312),
    "h100": GPU(80, 989),
    "h100-pcie": GPU(80, 756),
    "h200": GPU(141, 989),
    "b200": GPU(180, 2250),
    "mi300x": GPU(192, 1307),
}


def gpu_of(name: str) -> GPU:
    """A GPU by its name, in any case and with or without its maker's words ("RTX 4090").

    Raises:
        UsageError: there is none such in the table.
    """
    short = name.lower().replace("nvidia", "").replace("geforce", "").replace("rtx", "").strip(" -").replace(" ", "-")
    short = {"a100": "a100-80"}.get(short, short.removesuffix("gb"))
    if short not in GPUS:
        raise UsageError(
            f"--gpu: there is no '{name}'{did_you_mean(short, GPUS)}; there are: {', '.join(GPUS)}; for others "
            "give --memory GB and --tflops"
        )
    return GPUS[short]
