"""What a caller gives, looked at before anything is computed with it: what does not fit is one sentence that names it.

Without, a library below would broadcast it, walk over its letters, or raise an error of its own from deep within. All
functions raise ValueError.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = sys.float_info.max
MOST = 10**9  # of anything that is counted: what is beyond is a slip that would fill the memory or never end
WIDEST = 2**20  # layer of a network; beyond, sizes overflow before memory runs out
DEEPEST = 1024  # network, in layers; building more without memory, as plans do, would hardly end


def instance(name: str, x: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Refuse what is of no such type; `wanted` says in words what it must be."""
    if not isinstance(x, kind):
        raise ValueError(f"{name} is {described(x)}; it must be {wanted}")


def number(
    name: str, x: Any, low: float | int = -math.inf, high: float | int = math.inf, *, whole: bool = False
) -> None:
    """Refuse what is no finite number from `low` to `high`, or no whole one."""
    kind = "a whole number" if whole else "a number"
    bound = f" of at least {low:,}" if low > -math.inf else ""
    bound = f" from {low:,} to {high:,}" if bound and high < math.inf else bound
    real = isinstance(x, int | float | np.number) and not isinstance(x, bool)
    fits = real and low <= x <= high and abs(x) <= LARGEST
    if not fits or (whole and int(x) != x):
        raise ValueError(f"{name} is {described(x)}; it must be {kind}{bound}")


def tensor(name: str, x: object, *axes: int | str, floats: bool = True) -> None:
    """Refuse what is no torch tensor of these sizes; a letter stands for any, B for any but 0."""
    from torch import Tensor

    shape = f"({', '.join(map(str, axes))}{',' * (len(axes) == 1)})"
    wanted = f"a tensor {shape}{' of floats' * floats}"
    instance(name, x, Tensor, wanted)
    assert isinstance(x, Tensor)
    sizes = len(axes) == x.ndim and all(
        n == m or (isinstance(n, str) and (m or n != "B")) for n, m in zip(axes, x.shape, strict=True)
    )
    if not sizes or (floats and not x.is_floating_point()):
        raise ValueError(f"{name} is {described(x)}; it must be {wanted}")


def texts(name: str, x: object) -> None:
    """Refuse what is no list of texts; a single one would be walked over letter by letter."""
    wanted = "a list of texts"
    if isinstance(x, str):
        raise ValueError(f"{name} is one text; it must be {wanted}: put it in brackets")
    instance(name, x, (list, tuple), wanted)
    assert isinstance(x, list | tuple)
    if not x:
        raise ValueError(f"{name} is an empty list; it must be {wanted}")
    for place, text in enumerate(x):
        instance(f"{name}[{place}]", text, str, "text")


def described(x: object) -> str:
    """What a thing is, in words: itself where it is small, else its type, and of arrays shape and type of numbers."""
    if x is None or isinstance(x, bool | int | float | str | Path):
        text = repr(x)
        return text if len(text) <= 60 else f"{text[:57]}..."
    kind = type(x).__name__
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{kind} {tuple(shape)} of {str(dtype).removeprefix('torch.')}"
    return f"of type {kind}"
