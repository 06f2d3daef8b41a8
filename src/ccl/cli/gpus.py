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


# SXM modules where nothing else is said. Where they stand:
# RTX 3090 and A6000: NVIDIA, Ampere GA102 whitepaper (nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf).
# RTX 4090: NVIDIA, Ada whitepaper (nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf); RTX 5090: that of RTX Blackwell.
# A10, A100, L4, L40S, H100, H200, HGX B200: NVIDIA, the data sheet of each; half of what is "with sparsity" there.
# MI300X: AMD, Instinct MI300X data sheet.
GPUS: dict[str, GPU] = {
    "3090": GPU(24.0, 71.0),
    "4090": GPU(24.0, 165.2),
    "5090": GPU(32.0, 209.5),
    "a10": GPU(24.0, 125.0),
    "a6000": GPU(48.0, 154.8),
    "l4": GPU(24.0, 121.0),
    "l40s": GPU(48.0, 362.0),
    "a100-40": GPU(40.0, 312.0),
    "a100-80": GPU(80.0, 312.0),
    "h100": GPU(80.0, 989.0),
    "h100-pcie": GPU(80.0, 756.0),
    "h200": GPU(141.0, 989.0),
    "b200": GPU(180.0, 2250.0),
    "mi300x": GPU(192.0, 1307.0),
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
