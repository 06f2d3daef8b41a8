"""Harmony's global-local decoupled interaction (arXiv 2511.21579): moments frame by frame, style by a reference.

Local, both ways alike: X_i += o(A(R q X_i, R k C_i, v C_i)) of the tokens of each frame i, C_i being what of the other
stream lies in the frames around it; R turns audio token j as a frame at j t_v / t_a. Global: the tokens Z of a
reference voice, which stand before the audio stream, read all pictures, Z += o(A(q Z, k X_v, v X_v)), and the sound
reads them in its self-attention.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ccl.interaction.align import Alignment, Groups
from ccl.interaction.base import Seen, Site, Update, Where
from ccl.interaction.cross import CrossAttention, CrossModal, Rotation
from ccl.nn.layers import untaken
from ccl.types import AV


class Harmony(CrossModal):
    """Both paths, before self-attention: a reference is read in the block in which it has read the pictures.

    The paper tells neither the place in a block, nor the windows, nor the layers of A: these are the gate's
    (docs/equations.md). Without a reference the local path acts alone. Where the audio may not see the pictures, its
    reference may not either.

    Args:
        site: where it stands, given by the network.
        align: which tokens of the other stream a token may see: the paper's are frame beside frame.
        style: whether there is a global path. Its layers are there even while no clip has a reference.
        rotate: as CCA's.
        init: of the output projections; "zero" makes step 0 the two streams alone.
    """

    at: ClassVar[tuple[Where, ...]] = ("before",)

    def __init__(
        self,
        site: Site,
        align: Alignment,
        *,
        style: bool = True,
        rotate: Rotation = "share",
        init: Literal["zero", "default"] = "zero",
    ) -> None:
        super().__init__(site, align, num_context=(0, 0), own_projections=False, rotate=rotate, init=init)
        self.style = None
        if style:
            self.style = CrossAttention(
                site.audio, site.video, site.head_dim.audio,
                num_context=0, own_projections=False, init=init, backend=site.backend,
            )  # fmt: skip

    def forward(self, where: Where, seen: Seen) -> Update:
        add, reference = super().forward(where, seen).add, seen.prefix.audio
        if self.style is None or seen.x.audio is None:
            return Update(add)
        if reference is None:
            unused = untaken(self.style, seen.x.audio)
            return Update(add if unused is None else AV(add.video, add.audio + unused))
        # It lies outside the clip, so no picture is nearer to it than another: nothing turns.
        style = self.style(reference, seen.other.audio, Groups(1), (None, None), split=seen.split)
        return Update(add, prefix=AV(None, style))
