"""What an alignment promises (`ccl.interaction.align`): every token asks once, and sees tokens that there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ccl.contracts.base import Clause, given, given_pair, require
from ccl.grid import Grid
from ccl.interaction.align import Alignment, Directions, Groups

GRIDS = (Grid(frames=17, height=32, width=48), Grid(frames=77), Grid(frames=1, latent_rate=50.0))

Make = Callable[[], Alignment]


def is_built(make: Make) -> None:
    one = make()
    require(isinstance(one, Alignment), f"it is a {type(one).__name__}, which is no Alignment")


def groups_every_token_once(make: Make) -> None:
    for grid in GRIDS:
        for name, groups, asking in directions(make(), grid):
            if groups.queries is None:
                require(asking % groups.num == 0, f"{name}: {asking} tokens do not divide into {groups.num} groups")
                continue
            flat = groups.queries.flatten()
            require(len(groups.queries) == groups.num, f"{name}: {len(groups.queries)} groups of {groups.num}")
            require(groups.back is not None, f"{name}: queries are gathered and `back` does not say where to")
            assert groups.back is not None
            own = torch.equal(flat[groups.back], torch.arange(asking))
            require(own, f"{name}: what comes back is not the answer of each token, in order")


def shows_each_group_tokens_that_there_are(make: Make) -> None:
    for grid in GRIDS:
        for name, groups, _ in directions(make(), grid):
            seen = grid.t_a if name == "a2v" else grid.s_v
            if groups.keys is None:
                require(seen % groups.num == 0, f"{name}: {seen} tokens do not divide into {groups.num} groups")
                continue
            low, high = int(groups.keys.min()), int(groups.keys.max())
            require(low >= 0 and high < seen, f"{name}: keys are {low} to {high}; there are {seen} tokens")
            if groups.mask is not None:
                require(groups.mask.any(1).all(), f"{name}: a group sees nothing")


def gives_every_token_a_moment(make: Make) -> None:
    for grid in GRIDS:
        one = make()
        frames, tokens = given_pair(one.positions(grid), one, "positions", Tensor)
        for name, moments, count in (("latent frames", frames, grid.t_v), ("audio tokens", tokens, grid.t_a)):
            require(tuple(moments.shape) == (count,), f"{name} have {tuple(moments.shape)} moments; there are {count}")
            require(moments.isfinite().all() and (moments.diff() > 0).all(), f"moments of {name} do not go on in time")


def gives_figures_of_a_grid(make: Make) -> None:
    for name, figure in make().check(GRIDS[0]).items():
        require(math.isfinite(figure), f"check() gives {figure} as {name}")


def directions(one: Alignment, grid: Grid) -> list[tuple[str, Groups, int]]:
    """Each direction with its groups and how many tokens ask in it."""
    a2v, v2a = given(one.groups(grid), one, "groups", Directions)
    for name, groups in (("a2v", a2v), ("v2a", v2a)):
        given(groups, one, "groups", Groups, key=name)
    return [("a2v", a2v, grid.s_v), ("v2a", v2a, grid.t_a)]


CLAUSES: tuple[Clause, ...] = (
    is_built,
    groups_every_token_once,
    shows_each_group_tokens_that_there_are,
    gives_every_token_a_moment,
    gives_figures_of_a_grid,
)
