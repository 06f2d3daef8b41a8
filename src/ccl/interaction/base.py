"""What one interaction a block promises: updates for both streams, from states read before either is changed.

b batch, l tokens, d width, h heads, p head width, f frames that have a time of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.interaction.align import Rescale
from ccl.nn.attention import Backend
from ccl.nn.split import Split
from ccl.types import AV, Closed, Pass, Route

#: Where in a block an interaction acts: before self-attention, inside text attention (before its output projection), or
#: after it.
Where = Literal["before", "text", "after"]


@dataclass(frozen=True)
class Site:
    """Where an interaction stands in a network, which builds one for each of its blocks.

    Args:
        video: channels of the video stream, d_v; 0 where there is none.
        audio: channels of the audio stream, d_a; 0 where there is none.
        head_dim: channels of an attention head of each stream.
        layer: which block, from 0.
        layers: how many there are.
        backend: which attention kernel; see `ccl.nn.attention`.
        rescale: of the network's own audio positions; see `ccl.interaction.align.audio_positions`.
    """

    video: int
    audio: int
    head_dim: AV[int]
    layer: int = 0
    layers: int = 1
    backend: Backend = "auto"
    rescale: Rescale | float = "index"


class Seen(NamedTuple):
    """What an interaction is given. A stream that takes no part is None in every pair.

    Args:
        x: the streams as they are at this place: video (b, t_v*h*w, d_v), audio (b, t_a, d_a).
        source: the same states as the other stream reads them (a given stream may arrive detached).
        route: who may see whom.
        time: of each stream, (b, f).
        layout: what `layout` returned for the clip's grid.
        constants: what `constants` returned, or None to compute it here.
        shared: what the network's `trunk` made of the times, or None.
        q: at "text", the queries of text attention, (b, l, h, p), normalised and without positions.
        extras: what the batch brings beside latents and text, by name.
        prefix: tokens of each stream that stand before the clip's, (b, n, d), as those of a reference; None where there
            are none. They are not among x, and the other stream does not read them.
        split: which of the video's tokens are here, in x and in source, where not all (see `Interaction.split`).
    """

    x: AV[Any]
    source: AV[Any]
    route: Route = Route()
    time: AV[Any] = AV(None, None)
    layout: Any = None
    constants: Any = None
    shared: Any = None
    q: AV[Any] = AV(None, None)
    extras: dict[str, Any] | None = None
    prefix: AV[Any] = AV(None, None)
    split: Split | None = None

    @property
    def other(self) -> AV[Any]:
        """For each stream the states of the other one, None where its route is closed."""
        return AV.zip(lambda _, other, opened: other if opened else None, self.x, self.source.swapped, self.route.pair)


class Update(NamedTuple):
    """What an interaction gives back.

    Args:
        add: to each stream; None where there is nothing to add. At "text" it is added to what the heads read from the
            text, (b, l, h, p), before the block's own output projection.
        losses: of each clip, (b,), by name; returned, never stored, so that every way of training sees their gradients.
        prefix: to the tokens before each stream, as `add`; never at "text".
    """

    add: AV[Any]
    losses: dict[str, Tensor] | None = None
    prefix: AV[Any] = AV(None, None)


class Attention(NamedTuple):
    """Whom the tokens of one stream attend to; a token's weights sum to 1 over all parts.

    Args:
        other: (b, h, l, m), on tokens of the other stream, 0 where they may not be seen; m is 0 on a closed route.
        rest: (b, h, l, n) by name, on what is there besides: "context" tokens, the stream's "own" tokens.
    """

    other: Tensor
    rest: dict[str, Tensor]


NOTHING = Update(AV(None, None))


class Interaction(nn.Module, ABC):
    """Cross-modal exchange within a block (CCL Eq. 1 and 4). A new method is a subclass in a file of its own.

    Contract, which `ccl check` and the tests hold every subclass to: the update is exactly zero at initialisation,
    where `starts_at_zero`; a closed direction is bit for bit independent of the other stream; the two directions read
    the same, un-updated states; an interaction that is not `active` has no parameters.

    Attributes:
        at: the places where it acts, in the order of the block.
        closed: what a closed route leaves of the exchange.
        starts_at_zero: whether a network at step 0 is its two streams alone.
        needs: what it reads of `Seen.extras`. Data are asked for it; in training a batch without it is refused.
        upstream: where published weights have its parameters, as (pattern, ours): regular expressions, and what takes
            their place, in names that are read as a stream's, `blocks.3.video.cross_attn.k_fusion.weight`.
        active: whether it acts in this block at all, decided from `Site.layer`.
    """

    at: ClassVar[tuple[Where, ...]] = ("after",)
    closed: Closed = "nothing"
    starts_at_zero: ClassVar[bool] = True
    needs: tuple[str, ...] = ()
    upstream: ClassVar[tuple[tuple[str, str], ...]] = ()
    active: bool = True

    @abstractmethod
    def forward(self, where: Where, seen: Seen) -> Update:
        """Updates at one of the places that `at` names. Everything it computes must pass through here."""

    def attention(self, where: Where, seen: Seen) -> AV[Attention | None]:
        """Whom each stream's tokens attend to, for who looks inside (`ccl inspect attention`), who is given what
        `forward` is; None of a stream for which there is nothing to tell. No step or clip calls it."""
        return AV(None, None)

    def trunk(self) -> nn.Module | None:
        """What all blocks share: made once, by the first that is active, and owned by the network.

        It is called once a forward on the times, AV of (b, f), and each block finds its answer in `Seen.shared`.
        """
        return None

    def example(self, grid: Grid, clips: int) -> dict[str, Any]:
        """Something for each of `needs`, in the shapes in which a batch brings it: what `ccl check` tries it with."""
        return {}

    def weights(self, progress: float) -> dict[str, float]:
        """What its losses are multiplied by, by name; 1 of one that is not named.

        Args:
            progress: share of the training's steps that are done, from 0 to 1.
        """
        return {}

    def refuses(self, one: Pass) -> str:
        """Why this interaction cannot take a guidance rule's pass, in a sentence; "" where it can."""
        return ""

    def layout(self, grid: Grid, device: torch.device) -> Any:
        """What depends on the grid alone (windows, positions), made once and handed to every block's interaction."""
        return grid

    def split(self, layout: Any, by: Split) -> Any:
        """The layout where a clip's video tokens are split over processes; sound, times and extras stay whole.

        Who can be split makes keys and values of the tokens that are here, and puts them together before the audio
        stream reads them (`Seen.split.whole`). Returned losses are those of all tokens.

        Raises:
            ValueError: this interaction cannot be.
        """
        raise ValueError(
            f"{type(self).__name__} does not say how it reads a clip that is split over processes; give it a `split`, "
            "or each clip to one process"
        )

    def constants(self) -> Any:
        """What does not depend on the input (keys and values of context tokens), computed once a sampling run."""
        return None

    def check(self, grid: Grid) -> dict[str, float]:
        """Figures of how well the grid suits this interaction, for the log; warns where it does not."""
        return {}
