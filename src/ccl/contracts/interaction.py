"""What an interaction promises by itself (`ccl.interaction.base`): its parameters, its updates, their gradients.

Each clause tries every place at which it acts and, where that matters, all four routes.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ccl.contracts.base import Clause, apart, require
from ccl.contracts.sites import CLIPS, GRID, Sites, Streams
from ccl.interaction import Interaction
from ccl.interaction.base import Where
from ccl.nn.layers import initialise
from ccl.types import AV, CLOSED, OPEN, STREAMS, Closed, Route

A2V, V2A = Route(True, False), Route(False, True)
ROUTES = (OPEN, CLOSED, A2V, V2A)


def is_built_at_every_block(part: Sites) -> str | None:
    kinds = {type(each) for each in part.made}
    for each in part.made:
        require(isinstance(each, Interaction), f"it makes a {type(each).__name__}, which is no Interaction")
        places = [where for where in get_args(Where) if where in each.at]
        require(list(each.at) == places, f"at is {each.at}; it must be of {get_args(Where)}, in that order")
        require(each.closed in get_args(Closed), f"closed is '{each.closed}'; it must be one of {get_args(Closed)}")
    active = [i for i, each in enumerate(part.made) if each.active]
    if not active:
        return f"{', '.join(sorted(kind.__name__ for kind in kinds))} is active in no block"
    return None if len(active) == len(part.made) else f"it acts in blocks {active} of {len(part.made)}"


def has_parameters_only_where_it_is_active(part: Sites) -> None:
    for i, each in enumerate(part.made):
        count = len(list(each.parameters()))
        require(each.active or not count, f"in block {i} it is not active and has {count} parameters")


def adds_exactly_zero_at_the_start(part: Sites) -> str | None:
    tried = part.tried(start=True)
    if not tried.interaction.starts_at_zero:
        return "it does not claim to: starts_at_zero is False"
    for where in tried.at:
        for route in ROUTES:
            for stream, add in both(tried.add(where, part.streams(1), route)):
                require(not add.any(), f"it adds {size(add)} to {stream} {told(where, route)}")
    return None


def adds_to_each_stream_in_its_shape(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    for where in tried.at:
        for route in ROUTES:
            update = tried.update(where, streams, route)
            for stream, x, add in zip(STREAMS, streams.q if where == "text" else streams.x, update.add, strict=True):
                if add is None:
                    continue
                shape = torch.broadcast_shapes(x.shape, add.shape)
                require(shape == x.shape, f"to {stream}, {tuple(x.shape)}, it adds {tuple(add.shape)} at '{where}'")
                require(add.isfinite().all(), f"it adds what is no number to {stream} {told(where, route)}")


def gives_each_loss_as_a_number_a_clip_and_on_every_route(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    for where in tried.at:
        given = [tried.update(where, streams, route).losses or {} for route in ROUTES]
        for route, losses in zip(ROUTES, given, strict=True):
            ours, theirs = sorted(losses), sorted(given[0])
            require(ours == theirs, f"its losses are {ours} {told(where, route)}, and {theirs} with both ways open")
            for name, loss in losses.items():
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                require(shape == (CLIPS,), f"the loss '{name}' is {shape}; it must be ({CLIPS},), a number a clip")


def ignores_the_other_stream_on_a_closed_route_bit_for_bit(part: Sites) -> None:
    ours, other = part.streams(1), part.streams(2)
    for training in (True, False):
        tried = part.tried()
        tried.interaction.train(training)
        for where in tried.at:
            for route in ROUTES:
                plain = tried.add(where, ours, route)
                for stream, is_open, changed in (
                    ("video", route.a2v, ours | other),
                    ("audio", route.v2a, other | ours),
                ):
                    if not is_open:
                        gap = apart(getattr(plain, stream), getattr(tried.add(where, changed, route), stream))
                        mode = "in training" if training else "in sampling"
                        require(
                            gap == 0,
                            f"{stream}'s update moves by {gap:.2g} with the other stream {told(where, route)}, {mode}",
                        )


def updates_a_direction_alike_whether_or_not_the_other_is_open(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    tried.interaction.eval()
    for where in tried.at:
        both = tried.add(where, streams, OPEN)
        for stream, route in (("video", A2V), ("audio", V2A)):
            gap = apart(getattr(both, stream), getattr(tried.add(where, streams, route), stream))
            require(gap == 0, f"{stream}'s update moves by {gap:.2g} at '{where}' when the other direction is closed")


def reads_the_other_stream_from_source_alone(part: Sites) -> None:
    """So that a stream that is given, which arrives there detached, gets no gradient."""
    tried, ours, other = part.tried(), part.streams(1), part.streams(2)
    tried.interaction.eval()
    for where in tried.at:
        for stream, changed in (("video", ours | other), ("audio", other | ours)):
            streams = Streams(changed.x, ours.time, changed.q)
            gap = apart(
                getattr(tried.add(where, ours), stream), getattr(tried.add(where, streams, source=ours.x), stream)
            )
            require(
                gap == 0,
                f"{stream}'s update moves by {gap:.2g} at '{where}' with what the other stream is beside source",
            )


def leaves_an_absent_stream_out(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    tried.interaction.eval()
    for where in tried.at:
        both = tried.add(where, streams, CLOSED)
        for i, stream in enumerate(STREAMS):
            alone = Streams(*(AV(*(z if i == j else None for j, z in enumerate(pair))) for pair in streams))
            add = tried.update(where, alone, CLOSED).add
            require(add[1 - i] is None, f"it adds to the stream that is not there at '{where}'")
            gap = apart(both[i], tried.add(where, alone, CLOSED)[i])
            require(gap == 0, f"{stream}'s update moves by {gap:.2g} at '{where}' when the other stream is not there")


def treats_tokens_before_a_stream_as_it_treats_the_stream(part: Sites) -> str | None:
    ours, other, before = part.streams(1), part.streams(2), part.prefix(3)
    told_of = False
    for start in (True, False):
        tried = part.tried(start=start)
        tried.interaction.eval()
        for where, route in product(tried.at, ROUTES):
            add = tried.update(where, ours, route, prefix=before).prefix
            changed = AV(*(tried.update(where, x, route, prefix=before).prefix for x in (ours | other, other | ours)))
            for i, stream in enumerate(STREAMS):
                if add[i] is None:
                    continue
                told_of = True
                require(where != "text", "it adds to them at 'text', where there are none")
                shape = torch.broadcast_shapes(before[i].shape, add[i].shape)
                require(shape == before[i].shape, f"to {tuple(before[i].shape)} it adds {tuple(add[i].shape)}")
                if start and tried.interaction.starts_at_zero:
                    require(not add[i].any(), f"at the start it adds {size(add[i])} to {stream}'s {told(where, route)}")
                if not route.pair[i]:
                    gap = apart(add[i], changed[i][i])
                    require(gap == 0, f"{stream}'s move by {gap:.2g} with the other stream {told(where, route)}")
    return None if told_of else "it leaves them as they are"


def takes_a_time_for_each_frame(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    tried.interaction.eval()
    frames = AV.zip(lambda t, n: t.expand(-1, n), streams.time, AV(GRID.t_v, GRID.t_a))
    for where in tried.at:
        for mixed in (frames, AV(frames.video, streams.time.audio)):
            spread = tried.add(where, streams._replace(time=mixed))
            for stream, a, b in zip(STREAMS, tried.add(where, streams), spread, strict=True):
                gap = apart(a, b)
                require(
                    gap < 1e-4 * (1 + size(a)),
                    f"{stream}'s update moves by {gap:.2g} when each frame is told the same time",
                )


def gives_the_same_with_constants_as_without(part: Sites) -> None:
    tried, streams = part.tried(), part.streams(1)
    tried.interaction.eval()
    constants = tried.interaction.constants()
    for where in tried.at:
        for route in ROUTES:
            computed, given = (tried.add(where, streams, route, constants=each) for each in (None, constants))
            for stream, a, b in zip(STREAMS, computed, given, strict=True):
                gap = apart(a, b)
                require(gap == 0, f"{stream}'s update moves by {gap:.2g} with its constants given {told(where, route)}")


def gives_every_parameter_a_gradient_on_every_route(part: Sites) -> None:
    """In training; without, processes that wait for each other's gradients would wait for ever."""
    for route in ROUTES:
        tried, total = part.tried(), torch.zeros(())
        tried.interaction.train()
        streams = part.streams(1)
        streams = streams._replace(x=streams.x.map(Tensor.requires_grad_))
        for where in tried.at:
            update = tried.update(where, streams, route)
            base = streams.q if where == "text" else streams.x
            added = AV.zip(lambda x, u: x if u is None else x + u, base, update.add)
            total = total + sum(x.square().mean() for x in added)
            total = total + sum((loss.mean() for loss in (update.losses or {}).values()), torch.zeros(()))
        if tried.at:
            total.backward()
        names = dict(tried.interaction.named_parameters()) | dict(tried.trunk.named_parameters() if tried.trunk else ())
        without = [name for name, p in names.items() if p.requires_grad and p.grad is None]
        require(not without or not tried.at, f"{first(without)} get none on {route}")


def has_an_example_of_all_that_it_needs(part: Sites) -> str | None:
    interaction = part.tried(start=True).interaction
    lacking = [name for name in interaction.needs if name not in interaction.example(GRID, CLIPS)]
    require(not lacking, f"example() has no {lacking[:1]}, which it needs: what it gives must be tried too")
    return f"it needs {', '.join(interaction.needs)}" if interaction.needs else None


def starts_alike_where_it_was_built_without_weights(part: Sites) -> None:
    """As sharded training builds it: on the meta device, and then `reset_parameters` of each of its modules."""
    made = []
    for device in ("cpu", "meta"):
        torch.manual_seed(3)
        with torch.device(device):
            module = nn.ModuleList(filter(None, (one := part.make(part.site), one.trunk())))
        if device == "meta":
            module.to_empty(device="cpu")
            for x in (*module.parameters(), *module.buffers()):
                x.data.fill_(math.nan if x.is_floating_point() else 0)
            torch.manual_seed(3)
            initialise(module)
        made.append(dict(module.named_parameters()) | dict(module.named_buffers()))
    for name, x in made[0].items():
        late, name = made[1][name], name.partition(".")[2]
        require(not late.isnan().any(), f"{name} is set by no reset_parameters()")
        require(apart(x, late) == 0, f"{name} starts as something else")


def gives_figures_of_a_grid(part: Sites) -> None:
    figures = part.tried(start=True).interaction.check(GRID)
    for name, figure in figures.items():
        require(math.isfinite(figure), f"check() gives {figure} as {name}")


def both(pair: AV[Any]) -> list[tuple[str, Tensor]]:
    return list(zip(STREAMS, pair, strict=True))


def size(x: Tensor) -> float:
    """The largest number of a tensor, whatever its sign."""
    return float(x.detach().abs().max())


def told(where: str, route: Route) -> str:
    """Place and route, in words."""
    way = {OPEN: "both ways open", CLOSED: "both ways closed", A2V: "v2a closed", V2A: "a2v closed"}[route]
    return f"at '{where}' with {way}"


def first(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


CLAUSES: tuple[Clause, ...] = (
    is_built_at_every_block,
    has_parameters_only_where_it_is_active,
    adds_exactly_zero_at_the_start,
    adds_to_each_stream_in_its_shape,
    gives_each_loss_as_a_number_a_clip_and_on_every_route,
    ignores_the_other_stream_on_a_closed_route_bit_for_bit,
    updates_a_direction_alike_whether_or_not_the_other_is_open,
    reads_the_other_stream_from_source_alone,
    leaves_an_absent_stream_out,
    treats_tokens_before_a_stream_as_it_treats_the_stream,
    takes_a_time_for_each_frame,
    gives_the_same_with_constants_as_without,
    gives_every_parameter_a_gradient_on_every_route,
    has_an_example_of_all_that_it_needs,
    starts_alike_where_it_was_built_without_weights,
    gives_figures_of_a_grid,
)
