"""The gated baseline: X += g CA(X, Y), g in {0, 1} (CCL Eq. 1)."""

from __future__ import annotations

from typing import Literal

from ccl.interaction.align import Alignment
from ccl.interaction.base import Site
from ccl.interaction.cross import CrossModal, Rotation


class Gate(CrossModal):
    """Cross-attention without context tokens; a closed route (g = 0) adds nothing.

    Args:
        site: where it stands, given by the network.
        align: which tokens of the other stream a token may see.
        rotate: as CCA's.
        init: of the output projections; "zero" makes step 0 the two streams alone.
    """

    def __init__(
        self,
        site: Site,
        align: Alignment,
        *,
        rotate: Rotation = "share",
        init: Literal["zero", "default"] = "zero",
    ) -> None:
        super().__init__(site, align, num_context=(0, 0), own_projections=False, rotate=rotate, init=init)
