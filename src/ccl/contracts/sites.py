"""What an interaction is tried with: small streams, the sites of a small network, and such a network.

b clips, l tokens, d width, h heads of p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ccl.contracts.base import given, given_pair
from ccl.grid import Grid
from ccl.interaction import Interaction, NoInteraction, Seen, Site, Update
from ccl.interaction.base import Where
from ccl.model import DualStreamTransformer, WanStream
from ccl.model.recompute import Checkpointing
from ccl.types import AV, OPEN, Route

GRID = Grid(frames=17, height=32, width=48)  # t_v 5, 2 x 3 tokens a frame, t_a 21
HEADS = AV(8, 4)  # as wide in each stream
WIDTHS = (AV(32, 16), AV(32, 32))  # the second for what needs streams of one width
DEPTHS = (2, 3, 8, 16, 32, 48, 64)  # blocks, until one is active: a part may name the layers in which it acts
CHANNELS = AV(4, 6)
TEXT = 8
CLIPS = 2


class Streams(NamedTuple):
    """What belongs to the streams, drawn from a seed.

    Args:
        x: tokens, (b, l, d).
        time: (b, f).
        q: queries of text attention, (b, l, h, p).
    """

    x: AV[Any]
    time: AV[Any]
    q: AV[Any]

    def __or__(self, other: Streams) -> Streams:  # type: ignore[override]
        """Its video, and the other's audio."""
        return Streams(*(AV(a.video, b.audio) for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Sites:
    """A maker of interactions, as a network takes it, in the smallest network in which one of them is active.

    Args:
        make: of them.
        least: blocks of that network, if it has more than it needs.
    """

    make: Callable[[Site], Interaction]
    least: int = 0

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Those of all blocks."""
        trouble: Exception | None = None
        inert: tuple[Site, ...] = ()
        depths = sorted({*DEPTHS, self.least})
        for layers, width in product([n for n in depths if n >= max(self.least, DEPTHS[0])], WIDTHS):
            sites = tuple(Site(*width, HEADS, i, layers) for i in range(layers))
            try:
                with torch.device("meta"):
                    made = [self.make(site) for site in sites]
            except Exception as error:  # it may need more layers, or other widths
                trouble = trouble or error
                continue
            if any(each.active for each in made):
                return sites
            inert = inert or sites
        if inert:
            return inert
        assert trouble is not None
        raise trouble

    @cached_property
    def made(self) -> list[Interaction]:
        """One for each site, on the meta device: to be asked, not called."""
        with torch.device("meta"):
            return [self.make(site) for site in self.sites]

    @property
    def site(self) -> Site:
        """The first at which it is active; the first where it never is."""
        return next((site for site, each in zip(self.sites, self.made, strict=True) if each.active), self.sites[0])

    @property
    def width(self) -> AV[int]:
        return AV(self.site.video, self.site.audio)

    def streams(self, seed: int) -> Streams:
        """As they might be within a network, of `CLIPS` clips."""
        g = torch.Generator().manual_seed(seed)
        lengths = AV(GRID.s_v, GRID.t_a)
        x = AV.zip(lambda n, d: torch.randn(CLIPS, n, d, generator=g), lengths, self.width)
        q = AV.zip(lambda n, d, p: torch.randn(CLIPS, n, d // p, p, generator=g), lengths, self.width, HEADS)
        return Streams(x, lengths.map(lambda _: torch.rand(CLIPS, 1, generator=g)), q)

    def prefix(self, seed: int) -> AV[Any]:
        """Tokens before each stream, as those of a reference, (b, n, d)."""
        g = torch.Generator().manual_seed(seed)
        return self.width.map(lambda d: torch.randn(CLIPS, 3, d, generator=g))

    def tried(self, *, start: bool = False) -> Tried:
        """One that acts; at its start, or with random parameters, so that everything reaches its updates."""
        torch.manual_seed(0)
        interaction = self.make(self.site)
        trunk = interaction.trunk()
        one = Tried(interaction, trunk, interaction.layout(GRID, torch.device("cpu")))
        if not start:
            randomise(one.parameters, 0.3)
        return one

    def network(
        self, *, start: bool = False, apart: bool = False, checkpointing: Checkpointing = False, meta: bool = False
    ) -> DualStreamTransformer:
        """A small network of it, the same whenever asked.

        Args:
            start: with the interactions as they start, the streams at random.
            apart: with no interaction instead, the streams as in the other.
            checkpointing: as the network's.
            meta: without weights.
        """
        torch.manual_seed(0)
        with torch.device("meta" if meta else "cpu"):
            net = built(self.sites, NoInteraction if apart else self.make, checkpointing=checkpointing)
        if not meta:
            randomise(net.stream_parameters(), 0.1)
            if not start:
                randomise(net.cross_modal_parameters(), 0.1)
        return net


@dataclass(frozen=True)
class Tried:
    """An interaction by itself, with what its network would give it.

    Args:
        interaction: active, where it ever is.
        trunk: of the network.
        layout: of `GRID`.
    """

    interaction: Interaction
    trunk: nn.Module | None
    layout: Any

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for part in (self.interaction, self.trunk) if part is not None for p in part.parameters()]

    @property
    def at(self) -> tuple[Where, ...]:
        return self.interaction.at if self.interaction.active else ()

    def update(
        self,
        where: Where,
        streams: Streams,
        route: Route = OPEN,
        *,
        source: AV[Any] | None = None,
        constants: Any = None,
        prefix: AV[Any] = AV(None, None),
    ) -> Update:
        """What it answers, as it is; `source` where the other stream reads something else than the streams."""
        x, time, q = streams
        shared = None if self.trunk is None else self.trunk(time)
        asked = q if where == "text" else AV(None, None)
        extras = self.interaction.example(GRID, CLIPS)
        read = x if source is None else source
        seen = Seen(x, read, route, time, self.layout, constants, shared, asked, extras, prefix)
        update = given(self.interaction(where, seen), self.interaction, "forward", Update)
        for name, pair in (("add", update.add), ("prefix", update.prefix)):
            given_pair(pair, self.interaction, "forward", Tensor, NoneType, key=name)
        given(update.losses, self.interaction, "forward", dict, NoneType, key="losses")
        return update

    def add(self, where: Where, streams: Streams, route: Route = OPEN, **more: Any) -> AV[Any]:
        """What it adds to each stream that is there, where nothing a zero, in the shape of what it is added to."""
        base = streams.q if where == "text" else streams.x
        update = self.update(where, streams, route, **more).add
        return AV.zip(lambda x, u: torch.zeros_like(x) if u is None else torch.zeros_like(x) + u, base, update)


def built(
    sites: Sequence[Site], make: Callable[[Site], Interaction], *, checkpointing: Checkpointing = False
) -> DualStreamTransformer:
    """A small network of these sites, as it is initialised."""
    return DualStreamTransformer(
        video=WanStream(sites[0].video, 48, CHANNELS.video, head_dim=HEADS.video),
        audio=WanStream(sites[0].audio, 24, CHANNELS.audio, head_dim=HEADS.audio),
        layers=len(sites),
        head_dim=HEADS.video,
        text_dim=TEXT,
        interaction=make,
        freq_dim=16,
        checkpointing=checkpointing,
    )


def randomise(parameters: Any, std: float) -> None:
    """Numbers that depend on each parameter's place and shape alone."""
    g = torch.Generator().manual_seed(1)
    for p in parameters:
        nn.init.normal_(p, std=std, generator=g)


def inputs(clips: int = CLIPS, seed: int = 1) -> tuple[AV[Any], AV[Any], Tensor]:
    """Noisy latents, times and text states for the small network."""
    g = torch.Generator().manual_seed(seed)
    shapes = AV((CHANNELS.video, GRID.t_v, GRID.latent_height, GRID.latent_width), (CHANNELS.audio, GRID.t_a))
    x = shapes.map(lambda shape: torch.randn(clips, *shape, generator=g))
    return x, shapes.map(lambda _: torch.rand(clips, generator=g)), torch.randn(clips, 5, TEXT, generator=g)
