"""Cross-Modal Context Attention with Dynamic Context Routing (CCL Sec. 4.2)."""

from __future__ import annotations

from typing import Literal

from ccl.interaction.align import Alignment
from ccl.interaction.base import Site
from ccl.interaction.cross import CrossModal, Rotation
from ccl.types import Closed


class CCA(CrossModal):
    """Windows of the other stream and learnable context tokens are the keys; on a closed route the tokens alone.

    Args:
        site: where it stands, given by the network.
        align: which tokens of the other stream a token may see.
        num_context_audio: n_a, context tokens in place of audio, read by the video stream.
        num_context_video: n_v, context tokens in place of video, read by the audio stream.
        own_projections: whether context tokens have key and value linears of their own; else they lie in the source's
            width and share the source's.
        rotate: what turns with RoPE: "share" time on audio's temporal share of the head and full 3-D on video (Ovi),
            "temporal" time alone on that share of both (LTX-2), "full" time on the whole head of both (MOVA).
        init: of the output projections; "zero" makes step 0 the two streams alone.
    """

    closed: Closed = "context"

    def __init__(
        self,
        site: Site,
        align: Alignment,
        *,
        num_context_audio: int = 8,
        num_context_video: int = 128,
        own_projections: bool = True,
        rotate: Rotation = "share",
        init: Literal["zero", "default"] = "zero",
    ) -> None:
        super().__init__(
            site,
            align,
            num_context=(num_context_audio, num_context_video),
            own_projections=own_projections,
            rotate=rotate,
            init=init,
        )
