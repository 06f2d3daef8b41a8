"""No interaction: two streams that train and sample side by side. The reference everything else is compared to."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ccl.interaction.base import Interaction
from ccl.types import AV, Closed, Route, Widths


class NoInteraction(Interaction):
    """Adds nothing, whatever the route.

    Args:
        widths: of the two streams; unused.
    """

    closed: ClassVar[Closed] = "same"

    def __init__(self, widths: Widths) -> None:
        super().__init__()

    def forward(self, x: AV[Tensor], source: AV[Tensor], route: Route, plan: Any, cache: Any = None) -> AV[Any]:
        return AV(None, None)
