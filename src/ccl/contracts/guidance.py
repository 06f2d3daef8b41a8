"""What a guidance rule promises (`ccl.guidance.base`): weights that sum to 1, and a velocity that is one.

It is tried with every route of a generation task, at times from noise to clean, and on the small network.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ccl.contracts.base import Clause, apart, given, given_pair, require
from ccl.contracts.interaction import ROUTES, size
from ccl.contracts.sites import GRID, Sites, inputs
from ccl.guidance import Guidance, check_passes, guided, occurring
from ccl.interaction import Gate, Global, Site
from ccl.model import DualStreamTransformer
from ccl.types import AV, OPEN, STREAMS, Pass, Route, Text

TIMES = (1.0, 0.7, 0.5, 0.3, 0.02)
NEAR = 1e-4  # of the largest number
BOTH = AV(True, True)

Make = Callable[[], Guidance]


def is_built(make: Make) -> None:
    rule = make()
    require(isinstance(rule, Guidance), f"it is a {type(rule).__name__}, which is no Guidance")


def gives_each_stream_weights_that_sum_to_one(make: Make) -> None:
    for route, t, weights in tables(make()):
        require(weights, f"it has no pass at time {t} on {route}")
        for i, stream in enumerate(STREAMS):
            total = sum(pair[i] for pair in weights.values())
            require(abs(total - 1) < 1e-6, f"the weights of {stream} sum to {total:.6g} at time {t} on {route}")


def weighs_nothing_where_a_stream_is_null(make: Make) -> None:
    for _, t, weights in tables(make()):
        for one, pair in weights.items():
            for stream, is_null, weight in zip(STREAMS, one.null, pair, strict=True):
                require(not (is_null and weight), f"{stream} weighs {weight:g} in a pass in which it is null, at {t}")


def gives_equal_predictions_back_as_they_are(make: Make) -> None:
    rule, (x, told, _) = make(), inputs()
    v = x.map(torch.randn_like)
    for t in TIMES:
        times = AV(*(torch.full_like(each, t) for each in told))
        weights = rule.passes(OPEN, t)
        out = given_pair(rule.combine(dict.fromkeys(weights, v), weights, x, t, times), rule, "combine", Tensor)
        for stream, ours, theirs in zip(STREAMS, out, v, strict=True):
            gap = apart(ours, theirs)
            require(gap <= NEAR * size(theirs), f"equal predictions come out {gap:.2g} apart in {stream} at time {t}")
        alone = rule.combine(dict.fromkeys(weights, AV(None, v.audio)), weights, AV(None, x.audio), t, times)
        require(alone.video is None, "it gives a velocity to a stream that is not generated")
        gap = apart(alone.audio, v.audio)
        require(gap <= NEAR * size(v.audio), f"of audio alone, equal predictions come out {gap:.2g} apart at time {t}")


def says_what_it_is_in_plain_values(make: Make) -> str:
    said = make().record()
    again = make().record()
    require(json.loads(json.dumps(said)) == said, f"{said} is another thing once it was written as JSON")
    require(said == again, f"it says {again} where it is built once more")
    return json.dumps(said)[:120]


def runs_on_a_network_as_one_batch_and_one_after_another(make: Make) -> None:
    rule = make()
    skipped = [layer for one in occurring(rule, OPEN, TIMES, BOTH) for skip in one.view.skip for layer in skip.layers]
    net = Sites(_gate, least=1 + max(skipped, default=1)).network().eval()
    velocities = [sampled(net, rule, batched=batched) for batched in (True, False)]
    for stream, a, b in zip(STREAMS, *velocities, strict=True):
        require(a.isfinite().all(), f"it makes {stream} what is no number")
        gap = apart(a, b)
        require(gap <= NEAR * size(b), f"passes of one batch make {stream} {gap:.2g} apart from single ones")


def sampled(net: DualStreamTransformer, rule: Guidance, *, batched: bool = True, t: float = 0.5) -> AV[Any]:
    """A velocity of the small network under a rule.

    Raises:
        ValueError: the network cannot be sampled with it.
    """
    x, told, text = inputs()
    check_passes(rule, occurring(rule, OPEN, TIMES, BOTH), net)
    read: tuple[Text, ...] = ("positive", "negative", "empty")
    texts: dict[Text, Any] = {name: text.roll(i, 1) for i, name in enumerate(read)}
    nulls = x.map(torch.zeros_like)
    extras = net.interaction.example(GRID, len(text))
    with torch.no_grad():
        velocity = guided(net, rule, OPEN, texts, grid=GRID, nulls=nulls, batched=batched, extras=extras)
        return velocity(x, AV(*(torch.full_like(each, t) for each in told)), t)


def tables(rule: Guidance) -> list[tuple[Route, float, dict[Pass, AV[float]]]]:
    made = [(route, t, given(rule.passes(route, t), rule, "passes", dict)) for route in ROUTES for t in TIMES]
    for _, _, weights in made:
        for one, pair in weights.items():
            given(one, rule, "passes", Pass, key="a key")
            given(pair, rule, "passes", AV, key="a weight")
    return made


def _gate(site: Site) -> Gate:
    return Gate(site, Global())


CLAUSES: tuple[Clause, ...] = (
    is_built,
    gives_each_stream_weights_that_sum_to_one,
    weighs_nothing_where_a_stream_is_null,
    gives_equal_predictions_back_as_they_are,
    says_what_it_is_in_plain_values,
    runs_on_a_network_as_one_batch_and_one_after_another,
)
