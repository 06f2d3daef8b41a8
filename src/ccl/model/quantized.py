"""Frozen matrices of a stream's blocks in 8 bits, a scale for each output channel, for adapters to train on.

o output, i input. Written here rather than taken from torchao, whose tensors are subclasses: a layer that keeps plain
tensors under its names is saved, adapted, compiled and counted as any other, and passes gradients on.

The audio stream, norms, modulation, embeddings, heads and all that is cross-modal stay as they are: `ccl inspect
quantized` says what each would lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ccl.model.adapter import PARTS, AdaptedLinear, Freeze
from ccl.nn.layers import Linear
from ccl.types import Stream

Quantization = Literal["int8", "float8"]
TYPES: dict[Quantization, torch.dtype] = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
LARGEST: dict[Quantization, float] = {"int8": 127.0, "float8": 448.0}
SCALE = "weight_scale"


def quantize(net: Any, how: Quantization, streams: Sequence[Stream] = ("video",)) -> Any:
    """Keep the matrices of a DualStreamTransformer's blocks (q, k, v, o of both attentions and feed-forward) in 8 bits,
    in place; adapters stay as they are. Returns it.

    Args:
        net: filled with its weights, not sharded.
        how: signed integers, or float8 (e4m3).
        streams: whose.

    Raises:
        ValueError: there is no such stream.
    """
    for stream in streams:
        layers = list(matrices(net, stream))
        if not layers:
            raise ValueError(f"the network has no {stream} stream whose matrices could be kept in {how}")
        for layer in layers:
            quantize_linear(layer, how)
    return net


def check_quantization(how: Quantization, frozen: Freeze | None, *, sharded: bool, averaged: bool) -> None:
    """ValueError where a training cannot keep its frozen weights in 8 bits.

    Args:
        how: they are to be kept.
        frozen: what does not train.
        sharded: by FSDP2.
        averaged: whether an average is kept of what trains.
    """
    if frozen not in ("backbones", "all"):
        raise ValueError(
            f"model.quantize is {how}, which keeps frozen weights in 8 bits, and here they train; give model.lora or "
            "model.freeze backbones"
        )
    if sharded or averaged:
        other = "one process or DDP, not with FSDP2" if sharded else "no EMA among trainer.callbacks"
        raise ValueError(f"model.quantize {how} goes with {other}")


def matrices(net: Any, stream: Stream) -> Iterator[Linear]:
    """The linears of a stream's blocks."""
    for block in net.blocks:
        own = getattr(block, stream)
        for part in () if own is None else PARTS:
            for layer in getattr(own, part).modules():
                if isinstance(layer, Linear):
                    yield layer


def rounded(weight: Float[Tensor, "o i"], how: Quantization) -> tuple[Tensor, Tensor]:
    """A matrix in 8 bits, and the scale of each row, (o, 1) float32.

    A scale is one of bfloat16's numbers, so that half precision does not round it again.
    """
    largest = LARGEST[how]
    scale = weight.float().abs().amax(1, keepdim=True) / largest
    scale = scale.clamp_min(1e-30).bfloat16().float()
    scaled = (weight.float() / scale).clamp(-largest, largest)
    return (scaled.round() if how == "int8" else scaled).to(TYPES[how]), scale


def quantize_linear(layer: Linear, how: Quantization) -> None:
    """Turn a Linear, adapted or not, into a quantized one where it stands."""
    layer.__class__ = QuantizedAdaptedLinear if isinstance(layer, AdaptedLinear) else QuantizedLinear
    assert isinstance(layer, QuantizedLinear)
    weight, scale = rounded(layer.weight.detach(), how)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.weight_scale = nn.Parameter(scale, requires_grad=False)


class QuantizedLinear(Linear):
    """scale (Q x) + b: the scale of a row is that of an output, so no weight is rounded again."""

    weight_scale: nn.Parameter

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        kind = x.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):  # as of any product
            x = x.to(torch.get_autocast_dtype(kind))
        y = _Product.apply(x, self.weight, self.weight_scale)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class QuantizedAdaptedLinear(AdaptedLinear, QuantizedLinear):
    """scale (Q x) + b + scale B A x, of which the adapter alone trains."""


class _Product(torch.autograd.Function):
    """scale (Q x). The wide copy of Q is made once more in the backward pass: kept, it would be the memory that is
    saved here."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, weight.to(x.dtype)).mul_(scale.to(x.dtype).T)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,) = grads
        weight, scale = ctx.saved_tensors
        return (g * scale.to(g.dtype).T) @ weight.to(g.dtype), None, None


def is_scale(name: str) -> bool:
    return name.rpartition(".")[2] == SCALE


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name with those in 8 bits as the float32 numbers that they stand for."""
    found = {name: tensor for name, tensor in state.items() if not is_scale(name)}
    for name in filter(is_scale, state):
        if (matrix := f"{name.removesuffix(SCALE)}weight") in state:
            found[matrix] = state[matrix].float() * state[name].float()
    return found
