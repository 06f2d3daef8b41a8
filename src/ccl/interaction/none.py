"""No interaction: two streams that train and sample side by side. The reference everything else is compared to."""

from __future__ import annotations

from typing import Any, ClassVar

from ccl.interaction.base import NOTHING, Interaction, Seen, Site, Update, Where
from ccl.nn.split import Split
from ccl.types import Closed


class NoInteraction(Interaction):
    """Adds nothing, whatever the route.

    Args:
        site: where it stands; unused.
    """

    at: ClassVar[tuple[Where, ...]] = ()
    closed: Closed = "same"

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.active = False

    def forward(self, where: Where, seen: Seen) -> Update:
        return NOTHING

    def split(self, layout: Any, by: Split) -> Any:
        return layout
