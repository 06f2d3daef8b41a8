"""What an interaction promises to its network: that it may be chunked, checkpointed, stored, counted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ccl import planning
from ccl.contracts.base import Broken, Clause, apart, one_line, require
from ccl.contracts.guidance import sampled
from ccl.contracts.interaction import size
from ccl.contracts.sites import CLIPS, GRID, Sites, built, inputs
from ccl.guidance import rules
from ccl.interaction import Interaction, NoInteraction, Site
from ccl.model import DualStreamTransformer, Output
from ccl.model.recompute import Checkpointing
from ccl.types import ALONE, AV, OPEN, STREAMS, Route, Skip, View

VIEWS = (View(OPEN), ALONE, View(Route(True, False)), View(OPEN, detach=AV(True, False)))
NEAR = 1e-4  # of the largest number of what is compared, for sums in another order


def leaves_the_streams_as_they_are_at_the_start(part: Sites) -> str | None:
    net = part.network(start=True)
    if not net.interaction.starts_at_zero:
        return "it does not claim to: starts_at_zero is False"
    same(run(net), run(part.network(apart=True)), "step 0 is")
    return None


def is_as_if_it_were_not_there_where_it_is_inert(part: Sites) -> str | None:
    if all(each.active for each in part.made):
        return "it is active in every block"
    net = part.network()
    whole = run(net)
    for site, block in zip(part.sites, net.blocks, strict=True):
        if not part.made[site.layer].active:
            block.interaction = NoInteraction(site)
    same(whole, run(net), "without its inert blocks the network is")
    return None


def treats_each_clip_of_a_batch_as_it_does_it_alone(part: Sites) -> None:
    """In chunks of two clips, each chunk with a view of its own."""
    net, clips = part.network().eval(), 2 * len(VIEWS)
    together = run(net, views=VIEWS, clips=clips)
    for i, view in enumerate(VIEWS):
        row = 2 * i
        single = run(net, views=[view], clips=clips, only=row)
        own = Output(*tree_map_only(Tensor, itemgetter(slice(row, row + 1)), tuple(together)))
        same(own, single, f"among others, with {view}, a clip is", NEAR)
        for name, loss in own.losses.items():
            gap = apart(loss, single.losses[name])
            require(gap <= NEAR * (1 + size(loss)), f"among others, with {view}, its loss '{name}' is {gap:.2g} apart")


def is_left_out_with_a_block_that_is_skipped(part: Sites) -> None:
    net = part.network().eval()
    layer = part.site.layer
    skipped = run(net, views=[View(skip=frozenset({Skip("block", frozenset({layer}))}))])
    trunk = net.trunk
    without = copy.deepcopy(net)
    without.trunk = trunk
    del without.blocks[layer]
    same(skipped, run(without), f"a network that skips block {layer} and one without it are")


def has_the_same_gradients_with_checkpointing_as_without(part: Sites) -> None:
    grads = []
    kinds: tuple[Checkpointing, ...] = (False, True, "attention")
    for checkpointing in kinds:
        net = part.network(checkpointing=checkpointing).train()
        out = run(net, views=[View(Route(True, False), detach=AV(False, True))])
        loss = sum(v.square().mean() for v in out.velocity) + sum(x.mean() for x in out.losses.values())
        loss.backward()
        grads.append({**{name: p.grad for name, p in net.named_parameters()}, **out.losses})
    for name, ours in grads[0].items():
        for theirs in (one[name] for one in grads[1:]):
            alike = ours is theirs is None or (ours is not None and theirs is not None and torch.equal(ours, theirs))
            require(alike, f"that of {name} is another one")


def gives_the_same_with_text_prepared_as_without(part: Sites) -> None:
    net = part.network().eval()
    for views in ([View(OPEN)], [ALONE], [View(OPEN), ALONE]):
        same(run(net, views=views, prepared=True), run(net, views=views), "prepared, it is")


def is_sampled_with_every_rule_or_refuses_it_in_a_sentence(part: Sites) -> str | None:
    net, refused = part.network().eval(), []
    for name, rule in rules().items():
        try:
            velocity = sampled(net, rule())
        except ValueError as error:
            require(str(error).strip(), f"it refuses {name} and does not say why")
            refused.append(name)
            continue
        require(all(v.isfinite().all() for v in velocity), f"with {name} it makes what is no number")
    return f"it refuses {', '.join(refused)}" if refused else None


def refuses_to_train_without_what_it_needs_and_samples_without(part: Sites) -> str | None:
    net = part.network()
    if not net.interaction.needs:
        return "it needs nothing"
    out = run(net.eval(), extras={})
    require(all(v.isfinite().all() for v in out.velocity), "without, it samples what is no number")
    try:
        run(net.train(), extras={})
    except ValueError as error:
        name = net.interaction.needs[0]
        require(name in str(error), f"its refusal does not name {name}: {one_line(error)}")
        return None
    raise Broken(f"it trains without {net.interaction.needs[0]}")


def comes_back_from_its_state_dict(part: Sites) -> None:
    net, other = part.network().eval(), part.network(start=True).eval()
    other.load_state_dict(net.state_dict(), strict=True)
    same(run(net), run(other), "the network that was loaded is")


def is_counted_by_plan_as_the_interaction(part: Sites) -> str | None:
    """Products outside of its forward, or of the modules that it calls, would be taken for the streams'."""
    own, rest = counts(part.site, part.sites, part.make), without_any(part.site, part.sites)
    counted = sum(flops for key, flops in own.items() if key.startswith("interaction"))
    for key, flops in rest.items():
        require(own[key] == flops, f"{own[key] - flops:.3g} FLOPs of it are counted as '{key}'")
    if not part.made[part.site.layer].active:
        return None
    require(counted > 0, "it is active and no FLOP of it is counted")
    return f"{counted / sum(own.values()):.0%} of the small network's FLOPs"


def runs_in_bfloat16(part: Sites) -> None:
    net = part.network().eval()
    exact = run(net).velocity
    with torch.autocast("cpu", torch.bfloat16):
        near = run(net).velocity
    for stream, a, b in zip(STREAMS, near, exact, strict=True):
        gap = float((a - b).norm() / b.norm())
        require(gap < 0.1, f"{stream}'s velocity is {gap:.0%} off that of float32")


def counts(site: Site, sites: tuple[Site, ...], make: Callable[[Site], Interaction]) -> dict[str, float]:
    """FLOPs of a forward through the block of one site, by part."""

    with torch.device("meta"):
        net = built(sites, make)
    net.blocks = nn.ModuleList([net.blocks[site.layer]])
    table = planning.forward_flops(planning.shorten(net), GRID, text=5, batch=CLIPS)
    return {key: flops.total for key, flops in table.items()}


@cache
def without_any(site: Site, sites: tuple[Site, ...]) -> dict[str, float]:
    """`counts` of the streams apart: once for all interactions."""
    return counts(site, sites, NoInteraction)


def run(
    net: DualStreamTransformer,
    *,
    views: Sequence[View] = (View(OPEN),),
    clips: int = CLIPS,
    only: int | None = None,
    prepared: bool = False,
    extras: dict[str, Any] | None = None,
) -> Output:
    """A forward of the small network on clips drawn from a seed, or of one of them alone."""
    rows = slice(None) if only is None else slice(only, only + 1)
    x, t, text = (tree_map_only(Tensor, itemgetter(rows), each) for each in inputs(clips))
    if extras is None:
        extras = tree_map_only(Tensor, itemgetter(rows), net.interaction.example(GRID, clips))
    if prepared:
        return net(x, t, net.prepare(text, extras=extras), grid=GRID, view=views)
    return net(x, t, text, grid=GRID, view=views, extras=extras)


def same(ours: Output, theirs: Output, what: str, tolerance: float = 0.0) -> None:
    """Broken where two outputs are further apart than that part of their largest number."""
    for stream, a, b in zip(STREAMS, ours.velocity, theirs.velocity, strict=True):
        gap = apart(a, b)
        require(gap <= tolerance * size(b), f"{what} {gap:.2g} apart in {stream}'s velocity")


CLAUSES: tuple[Clause, ...] = (
    leaves_the_streams_as_they_are_at_the_start,
    is_as_if_it_were_not_there_where_it_is_inert,
    treats_each_clip_of_a_batch_as_it_does_it_alone,
    is_left_out_with_a_block_that_is_skipped,
    has_the_same_gradients_with_checkpointing_as_without,
    gives_the_same_with_text_prepared_as_without,
    is_sampled_with_every_rule_or_refuses_it_in_a_sentence,
    refuses_to_train_without_what_it_needs_and_samples_without,
    comes_back_from_its_state_dict,
    is_counted_by_plan_as_the_interaction,
    runs_in_bfloat16,
)
