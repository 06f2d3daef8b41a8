"""What a file of weights may be or hold that no network here can take, told in words before it is computed with.

Numbers are floats of 16, 32 or 64 bits. Quantised ones come with scales under names of their own and mean nothing
without them; an adapter means nothing without its base. Each would load, or nearly, and give wrong values in silence.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

FLOATS = ("float16", "bfloat16", "float32", "float64")
# The only integers that belong to a network: counters and positions, by the last part of their names.
INTEGERS = ("num_batches_tracked", "position_ids")

# How a file begins -> what it is.
HEADS: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "a GGUF file, whose numbers are quantised; take the .safetensors of the same network"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: `git lfs pull`, or fetch it again"),
    (b"\x89HDF", "an HDF5 file; take the .safetensors of the same network"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"<!DOCTYPE", "a web page, not weights; fetch it again"),
    (b"<html", "a web page, not weights; fetch it again"),
)
# What a name ends in -> what it is the mark of.
NAMES: tuple[tuple[str, str], ...] = (
    (
        r"(^|[._])(lora_(A|B|a|b|up|down)|hada_w[12]_[ab]|lokr_w[12](_[ab])?|dora_scale|diff_b)(\.|$)|\.(alpha|diff)$",
        "a LoRA, changes to a network and not the network itself; merge it into its base first",
    ),
    (
        r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_inv|_2)?|input_scale)$",
        "a network quantised to fp8 or fp4 with scales; take its bfloat16 or float16 file",
    ),
    (r"\.(absmax|quant_map|nested_absmax|SCB|weight_format)$|\.quant_state\.", "a network quantised by bitsandbytes"),
    (
        r"\.(qweight|qzeros|wscales|g_idx|weight_packed|weight_zero_point|codebooks)$",
        "a network quantised to integers (GPTQ, AWQ, SVDQuant or the like)",
    ),
)


def foreign_file(path: Path) -> str:
    """What a file is, in words, where its name or first bytes say that it holds no weights as they are read here."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file; fetch it again"
    if path.suffix.lower() == ".gguf":
        head = HEADS[0][0]
    page = head.lstrip().lower()
    return next((what for start, what in HEADS if head.startswith(start) or page.startswith(start.lower())), "")


def mappable(path: Path) -> bool:
    """Whether the tensors in a file of torch.save lie in it as they are: in a zip that nobody has packed anew.

    torch itself maps what is packed all the same, and takes the packed bytes for numbers.
    """
    if not zipfile.is_zipfile(path):  # of before there were zips
        return False
    with zipfile.ZipFile(path) as file:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())


def foreign_names(names: Iterable[str]) -> str:
    """What tensors of such names are, in words, where they are no plain network; "" else."""
    names = list(names)
    for pattern, what in NAMES:
        if found := next((name for name in names if re.search(pattern, name)), None):
            return f"{what} (its keys have {found})"
    return ""


def check_dtype(name: str, dtype: torch.dtype | str, source: object) -> None:
    """Refuse numbers that are no floats of 16, 32 or 64 bits, but for a network's counters and positions.

    Raises:
        ValueError: one sentence that names `source` and the key.
    """
    kind = str(dtype).removeprefix("torch.")
    if kind in FLOATS or (kind == "int64" and name.rpartition(".")[2] in INTEGERS):
        return
    raise ValueError(f"{source}: {name} holds {kind} numbers; weights are float16, bfloat16, float32 or float64")


def check_finite(name: str, tensor: Tensor, source: object) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: one sentence that names `source` and the key.
    """
    # A sum is one pass without memory of its own, and no sum of finite weights is NaN; one that is too large is looked
    # at again.
    if not tensor.is_floating_point() or tensor.is_meta:
        return
    if not torch.isfinite(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"{source}: {name} holds NaN or infinity in {bad:,} of its {tensor.numel():,} numbers")
