"""What one interaction a block promises: updates for both streams, from states read before either is changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.nn.attention import Backend
from ccl.types import AV, Closed, Route


@dataclass(frozen=True)
class Site:
    """Where an interaction stands in a network, which builds one for each of its blocks.

    Args:
        video: channels of the video stream, d_v; 0 where there is none.
        audio: channels of the audio stream, d_a; 0 where there is none.
        head_dim: channels of an attention head, the same in both streams.
        layer: which block, from 0.
        layers: how many there are.
        backend: which attention kernel; see `ccl.nn.attention`.
    """

    video: int
    audio: int
    head_dim: int
    layer: int = 0
    layers: int = 1
    backend: Backend = "auto"


class Interaction(nn.Module, ABC):
    """Cross-modal exchange within a block (CCL Eq. 1 and 4). A new method is a subclass in a file of its own.

    Contract, held by tests for every subclass: the update is exactly zero at initialisation; a closed direction is
    bit-for-bit independent of the other stream; the two directions read the same, un-updated states.

    Attributes:
        closed: what a closed route leaves of the exchange.
    """

    closed: ClassVar[Closed] = "nothing"

    @abstractmethod
    def forward(self, x: AV[Tensor], source: AV[Tensor], route: Route, plan: Any, cache: Any = None) -> AV[Tensor]:
        """Updates to add to each stream; None where there is nothing to add.

        Args:
            x: the streams after text attention: video (B, t_v*h*w, d_v), audio (B, t_a, d_a). A stream that takes no
                part is None, and so is its update.
            source: the same states as the other stream reads them (a reference stream arrives detached).
            route: who may see whom.
            plan: what `plan` returned for the clip's grid.
            cache: what `constants` returned, or None to compute it here.
        """

    def plan(self, grid: Grid, device: torch.device) -> Any:
        """What depends on the grid alone (windows, positions), made once and handed to every block's interaction."""
        return grid

    def constants(self) -> Any:
        """What does not depend on the input (keys and values of context tokens), computed once a sampling run."""
        return None

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures of how well the grid suits this interaction, for the log; warns where it does not."""
        return {}
