"""Low-rank adapters (LoRA, arXiv 2106.09685) on the streams, for those who cannot train them whole.

o output, i input, r rank. The adapted layer keeps its names, so pretrained weights load as they are, sharding and
meta-device building work as for any Linear, and what is saved is merged by name. Written here rather than taken from
peft, which wraps a layer and renames its weights; tests hold the two equal. Files of adapters: `ccl.model.lora`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ccl.nn.layers import Linear
from ccl.types import STREAMS

DOWN, UP = "lora_a", "lora_b"
PARTS = ("self_attn", "cross_attn", "ffn")
Freeze = Literal["backbones", "text", "all"]


@dataclass(frozen=True)
class LoRA:
    """Adapters on every linear of these parts of both streams' blocks.

    Args:
        rank: r.
        alpha: the adapter's product is scaled by alpha / rank.
        parts: of a block, among self_attn, cross_attn (to the text) and ffn.
        start: a LoRA file whose adapters training goes on from; None begins with adapters that add nothing.
    """

    rank: int = 32
    alpha: float = 32.0
    parts: tuple[str, ...] = PARTS
    start: str | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; it must be at least 1")
        if not self.parts or set(self.parts) - set(PARTS):
            raise ValueError(f"lora.parts are {', '.join(self.parts) or 'none'}; they must be among {', '.join(PARTS)}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def adapt(self, net: Any) -> Any:
        """Put adapters into a DualStreamTransformer, in place; its output stays as it was. Returns it."""
        for _, layer in list(adaptable(net, self.parts)):
            AdaptedLinear.take_over(layer, self.rank, self.scale)
        return net


def adaptable(net: Any, parts: Sequence[str] = PARTS) -> Iterator[tuple[str, Linear]]:
    """Names and layers of a DualStreamTransformer that adapters may go on: the linear ones of these parts."""
    for i, block in enumerate(net.blocks):
        for name, stream in zip(STREAMS, block.streams, strict=True):
            for part in () if stream is None else parts:
                for path, layer in getattr(stream, part).named_modules(prefix=f"blocks.{i}.{name}.{part}"):
                    if type(layer) is Linear:
                        yield path, layer


class AdaptedLinear(Linear):
    """W x + b + scale B A x."""

    scale: float
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    @classmethod
    def take_over(cls, layer: Linear, rank: int, scale: float) -> None:
        """Turn a Linear into one with a fresh adapter where it stands: its own parameters stay the same objects."""
        like = layer.weight
        down, up = like.new_empty(rank, layer.in_features), like.new_empty(layer.out_features, rank)
        cls.wrap(layer, down, up, scale).reset_adapter()

    @classmethod
    def wrap(cls, layer: Linear, down: Float[Tensor, "r i"], up: Float[Tensor, "o r"], scale: float) -> AdaptedLinear:
        """Turn a Linear into one with this adapter where it stands; the adapter trains if the weight does."""
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer.scale = scale
        layer.lora_a = nn.Parameter(down, layer.weight.requires_grad)
        layer.lora_b = nn.Parameter(up, layer.weight.requires_grad)
        return layer

    def unwrap(self) -> None:
        """The Linear that it was, where it stands."""
        del self.lora_a, self.lora_b, self.scale
        self.__class__ = Linear  # type: ignore[assignment]

    def reset_adapter(self) -> None:
        """A as a default Linear of torch's, B zero. Apart from `reset_parameters`: the other weights at step 0 are
        those of the same seed without adapters."""
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
            nn.init.zeros_(self.lora_b)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def initialise_adapters(net: nn.Module) -> None:
    """Draw every adapter anew from torch's global generator."""
    for layer in net.modules():
        if isinstance(layer, AdaptedLinear):
            layer.reset_adapter()


def frozen(what: Freeze | None, lora: LoRA | None) -> Freeze | None:
    """What is left as it is where adapters may train in the streams' place.

    Raises:
        ValueError: nothing would train.
    """
    if what == "all" and lora is None:
        raise ValueError("model.freeze is all, and without model.lora nothing trains")
    return what if lora is None or what == "all" else "backbones"


def freeze(what: Freeze | None, net: Any, text: nn.Module) -> None:
    """Leave the text encoder as it is; with "backbones" all but cross-modal parameters and adapters (AV-Link); with
    "all" these too, and adapters alone train."""
    if what is None:
        return
    text.requires_grad_(False)
    if what == "text":
        return
    for parameter in net.parameters() if what == "all" else net.stream_parameters():
        parameter.requires_grad_(False)
    for name, parameter in net.named_parameters():
        if is_adapter(name):
            parameter.requires_grad_(True)


def shapes_without(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's parameters by name, without adapters."""
    return {name: tuple(p.shape) for name, p in net.named_parameters() if not is_adapter(name)}


def is_adapter(name: str) -> bool:
    return name.rpartition(".")[2] in (DOWN, UP)


def merge(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights by name with their adapters added, W + scale B A in float32, and without the adapters."""
    merged = {name: tensor for name, tensor in state.items() if not is_adapter(name)}
    for layer in adapted(state):
        weight, down, up = (state[f"{layer}.{name}"] for name in ("weight", DOWN, UP))
        merged[f"{layer}.weight"] = (weight.float() + scale * up.float() @ down.float()).to(weight.dtype)
    return merged


def adapted(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of the layers that have adapters."""
    return (name.removesuffix(f".{DOWN}") for name in state if name.endswith(f".{DOWN}"))
