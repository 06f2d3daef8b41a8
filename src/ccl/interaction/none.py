"""No interaction: two streams that train and sample side by side. The reference everything else is compared to."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ccl.interaction.base import Interaction, Site
from ccl.types import AV, Closed, Route


class NoInteraction(Interaction):
    """Adds nothing, whatever the route.

    Args:
        site: where it stands; unused.
    """

    closed: ClassVar[Closed] = "same"

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(self, x: AV[Tensor], source: AV[Tensor], route: Route, plan: Any, cache: Any = None) -> AV[Any]:
        return AV(None, None)
