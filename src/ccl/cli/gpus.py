"""GPUs by name for `ccl plan`: memory and speed, as their makers' data sheets give them."""

from __future__ import annotations

from typing import NamedTuple

from ccl.cli.errors import UsageError
from ccl.spelling import did_you_mean


class GPU(NamedTuple):
    """What a GPU holds and does.

    Args:
        memory: GB.
        tflops: bfloat16 products summed in float32, a second, 10^12, dense; sheets often print the sparse double.
    """

    memory: float
    tflops: float


# SXM modules where nothing else is said. "With sparsity" is printed at twice the dense figure, which stands here.
GPUS: dict[str, GPU] = {
    "3090": GPU(24.0, 71.0),  # NVIDIA, Ampere GA102 whitepaper v2: "BF16 Tensor TFLOPS with FP32 Accumulate" 71/142
    "4090": GPU(24.0, 165.2),  # NVIDIA, Ada whitepaper, appendix A: the same row, 165.2/330.4
    "5090": GPU(32.0, 209.5),  # NVIDIA, RTX Blackwell whitepaper, table 3: the same row, 209.5/419
    "a10": GPU(24.0, 125.0),  # NVIDIA, A10 data sheet: "BFLOAT16 Tensor Core" 125 TF | 250 TF*
    "a6000": GPU(48.0, 154.8),  # NVIDIA, Ampere GA102 whitepaper v2, table of the RTX A6000: 154.8/309.6
    "l4": GPU(24.0, 121.0),  # NVIDIA, L4 data sheet: 242 with sparsity; what it sums in is not said
    "l40s": GPU(48.0, 362.0),  # NVIDIA, L40S data sheet: 362.05 | 733*; what it sums in is not said
    "a100-40": GPU(40.0, 312.0),  # NVIDIA, A100 data sheet: 312 TFLOPS | 624 TFLOPS*
    "a100-80": GPU(80.0, 312.0),  # the same
    "h100": GPU(80.0, 989.0),  # NVIDIA, H100 data sheet: 1,979 with sparsity
    "h100-pcie": GPU(80.0, 756.0),  # NVIDIA, H100 data sheet of 2022, PCIe: 1,513 with sparsity
    "h200": GPU(141.0, 989.0),  # NVIDIA, H200 data sheet: 1,979 with sparsity
    "b200": GPU(180.0, 2250.0),  # NVIDIA, HGX B200 data sheet, an eighth: 36 PFLOPS with sparsity; DGX B200: 1,440 GB
    "mi300x": GPU(192.0, 1307.0),  # AMD, Instinct MI300X data sheet: 1307.4
}


# The lowest share of an H100's peak that is published for a training of this kind: NeMo AutoModel, Wan2.1-14B, 37,440
# tokens a clip, FSDP2 on 8 H100s, 175.9 TFLOP/s of the model's own; 23.1 % on 64, and Megatron on 128 has 32.9 %.
MFU = 0.178


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
