"""A network outside the module tree, which is used and never trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]
Net = TypeVar("Net", bound=nn.Module)


class Frozen(Generic[Net]):
    """A network that is loaded when it is first called for, and is neither saved, averaged, sharded nor trained.

    Args:
        load: makes the network on a device; raises ValueError in one sentence.
    """

    def __init__(self, load: Callable[[torch.device], Net]) -> None:
        self.load = load
        self.net: Net | None = None

    def on(self, device: torch.device) -> Net:
        """The network on this device, ready to be used."""
        if self.net is None:
            self.net = self.load(device).eval().requires_grad_(False)
        return self.net.to(device)

    def unload(self) -> None:
        """Forget the network. It comes back from its file, which the system still holds in memory where it can."""
        self.net = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
