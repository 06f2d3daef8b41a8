"""LoRA files on a network: any number at once, each as strong as one likes, and off again; or baked into weights.

o output, i input, r rank. A file changes W to W + s (alpha / r) B A, s its strength here; some also add to biases,
norms and modulation, or bring parameters that were trained whole, which move from what they were by s of the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ccl.model.adapter import AdaptedLinear, adaptable


@dataclass(frozen=True)
class LowRank:
    """scale B A, which is added to a weight; a convolution's is flattened behind o.

    Args:
        down: A.
        up: B.
        scale: alpha / r.
    """

    down: Float[Tensor, "r i"]
    up: Float[Tensor, "o r"]
    scale: float

    @property
    def delta(self) -> Float[Tensor, "o i"]:
        """In float32."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class LoRAFile:
    """What a file changes in a network, by our names of its parameters.

    Args:
        source: the file.
        sha256: of it.
        low: what is added to weights, as products.
        added: what is added to other parameters, or to weights as it is.
        whole: what takes parameters' place.
        notes: what of the file has no place in this network, in a sentence each.
    """

    source: str
    sha256: str
    low: Mapping[str, LowRank] = field(default_factory=dict)
    added: Mapping[str, Tensor] = field(default_factory=dict)
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Of all parameters that it changes."""
        return {*self.low, *self.added, *self.whole}

    def record(self, scale: float) -> dict[str, Any]:
        """For what follows from it: its name, its hash and how strong it was."""
        return {"file": self.source.rpartition("/")[2], "sha256": self.sha256, "scale": scale}


Strong = tuple[LoRAFile, float]  # a file, and s


def changed(name: str, base: Tensor, loras: Sequence[Strong]) -> Tensor:
    """What LoRAs make of a parameter, in float32.

    Args:
        name: of it.
        base: what it is without them.
        loras: which change it.
    """
    value = wide = base.float()
    for lora, scale in loras:
        if name in lora.whole:
            to = lora.whole[name].float().to(wide.device)
            # The very value where it is asked for as it is: a sum would round.
            value = to if scale == 1 and value is wide else value + scale * (to - wide)
        if name in lora.low:
            value = value + scale * lora.low[name].delta.to(wide.device).view_as(wide)
        if name in lora.added:
            value = value + scale * lora.added[name].float().to(wide.device)
    return value


def baked(state: Mapping[str, Tensor], loras: Sequence[Strong]) -> dict[str, Tensor]:
    """A network's weights by name with LoRAs in them: what they change is in float32, the rest the very same."""
    names = set().union(*(lora.names for lora, _ in loras))
    return {name: changed(name, tensor, loras) if name in names else tensor for name, tensor in state.items()}


class Loras:
    """LoRAs on a network, which is to the last bit what it was when they are off.

    Linear layers of the streams' blocks compute the products beside their weights; other parameters are changed, and
    their values kept on the CPU.

    Args:
        net: a DualStreamTransformer that trains nothing.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.on: tuple[Strong, ...] = ()
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def put(self, loras: Sequence[Strong]) -> None:
        """Have exactly these on."""
        self._off()
        self.net.offload = None  # blocks that wait in the CPU's memory are packed anew, with what is on them
        layers = {f"{name}.weight": layer for name, layer in adaptable(self.net)}
        parameters = dict(self.net.named_parameters())
        beside = {name for lora, _ in loras for name in lora.low if name in layers}
        beside -= {name for lora, _ in loras for name in (*lora.added, *lora.whole)}
        for name in sorted(set().union(*(lora.names for lora, _ in loras))):
            if name in beside:
                AdaptedLinear.wrap(layers[name], *_joined(layers[name], name, loras))
            else:
                base = parameters[name]
                self._kept[name] = base.detach().to("cpu", copy=True)
                base.copy_(changed(name, base, loras))
        self.on = tuple(loras)

    @torch.no_grad()
    def _off(self) -> None:
        parameters = dict(self.net.named_parameters())
        for name, value in self._kept.items():
            parameters[name].copy_(value)
        self._kept = {}
        for layer in list(self.net.modules()) if self.on else ():
            if isinstance(layer, AdaptedLinear):
                layer.unwrap()
        self.on = ()


def _joined(layer: nn.Linear, name: str, loras: Sequence[Strong]) -> tuple[Tensor, Tensor, float]:
    """A, B and scale of the sum of several adapters of a layer: one of all their ranks together."""
    low = [(lora.low[name], scale) for lora, scale in loras if name in lora.low]
    down = torch.cat([each.down.float() for each, _ in low])
    up = torch.cat([scale * each.scale * each.up.float() for each, scale in low], 1)
    return down.to(layer.weight), up.to(layer.weight), 1.0
