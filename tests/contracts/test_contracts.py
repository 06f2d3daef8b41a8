"""The contracts see what is wrong: parts that break one promise each, and the clause that names it."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ccl.contracts import Clause, outcome, outcomes, words
from ccl.contracts import interaction as alone
from ccl.contracts import network as within
from ccl.contracts.sites import Sites
from ccl.interaction import Interaction, Seen, Site, Update
from ccl.nn.layers import Linear, keep_in_use
from ccl.types import AV, OPEN


class Mean(Interaction):
    """Adds to each stream a projection of the other's mean: the smallest interaction that keeps its contract."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.a2v = Linear(site.audio, site.video, init="zero")
        self.v2a = Linear(site.video, site.audio, init="zero")

    def one(self, project: nn.Module, x: Tensor | None, source: Tensor | None, is_open: bool) -> Tensor | None:
        if x is None:
            return None
        if not is_open or source is None:
            return keep_in_use(x.new_zeros(()), project.parameters())
        return project(source.mean(1, keepdim=True))

    def forward(self, where: str, seen: Seen) -> Update:
        x, source, route = seen.x, seen.source, seen.route
        video = self.one(self.a2v, x.video, source.audio, route.a2v)
        return Update(AV(video, self.one(self.v2a, x.audio, source.video, route.v2a)))


class Leaks(Mean):
    """A closed direction that still reads a little."""

    def forward(self, where: str, seen: Seen) -> Update:
        add = super().forward(where, seen).add
        if seen.x.video is None or seen.source.audio is None:
            return Update(add)
        return Update(AV(add.video + 1e-6 * self.a2v(seen.source.audio.mean(1, keepdim=True)), add.audio))


class StartsAbove(Mean):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.a2v = Linear(site.audio, site.video)


class InTurn(Mean):
    """Video reads audio as it is after its own update."""

    def forward(self, where: str, seen: Seen) -> Update:
        audio = super().forward(where, seen).add.audio
        if seen.source.audio is not None and audio is not None:
            seen = seen._replace(source=AV(seen.source.video, seen.source.audio + audio))
        return Update(AV(super().forward(where, seen).add.video, audio))


class InertWithParameters(Mean):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.active = site.layer == 0


class ReadsX(Mean):
    """The other stream as it is, where it may have come detached."""

    def forward(self, where: str, seen: Seen) -> Update:
        return super().forward(where, seen._replace(source=seen.x))


class Unused(Mean):
    """A closed direction computes nothing, and its parameters get no gradient."""

    def one(self, project: nn.Module, x: Tensor | None, source: Tensor | None, is_open: bool) -> Tensor | None:
        return super().one(project, x, source, is_open) if is_open else None


class StoredLoss(Mean):
    """A loss of one direction alone."""

    def forward(self, where: str, seen: Seen) -> Update:
        update = super().forward(where, seen)
        return update._replace(losses={"close": seen.x.video.mean((1, 2))}) if seen.route == OPEN else update


class Draws(Mean):
    """Drops numbers at random, which a recomputation draws anew."""

    def forward(self, where: str, seen: Seen) -> Update:
        add = super().forward(where, seen).add
        return Update(add.map(lambda x: torch.dropout(x, 0.5, self.training)))


class MixesTheBatch(Mean):
    def forward(self, where: str, seen: Seen) -> Update:
        return Update(super().forward(where, seen).add.map(lambda x: x.mean(0, keepdim=x.ndim > 0)))


class Uninitialised(Mean):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.scale = nn.Parameter(torch.ones(site.video))

    def forward(self, where: str, seen: Seen) -> Update:
        add = super().forward(where, seen).add
        return Update(AV(None if add.video is None else add.video * self.scale, add.audio))


class Needy(Mean):
    """Multiplies by what the batch brings, and cannot do without."""

    needs = ("loudness",)

    def example(self, grid: Any, clips: int) -> dict[str, Any]:
        return {"loudness": torch.linspace(0.5, 1, clips)}

    def forward(self, where: str, seen: Seen) -> Update:
        assert seen.extras is not None
        by = seen.extras["loudness"][:, None, None]
        return Update(super().forward(where, seen).add.map(lambda x: x * by))


class LeaksBefore(Mean):
    """Tokens that stand before the sound see the pictures, whatever the route."""

    def forward(self, where: str, seen: Seen) -> Update:
        add, pictures = super().forward(where, seen).add, seen.source.video
        if pictures is None or seen.prefix.audio is None:
            return Update(add)
        return Update(add, prefix=AV(None, self.v2a(pictures.mean(1, keepdim=True))))


class Forgetful(Needy):
    def example(self, grid: Any, clips: int) -> dict[str, Any]:
        return {}


class KeepsAside(Mean):
    """A number that no state dict holds."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.lasting = next(SEVERAL)

    def forward(self, where: str, seen: Seen) -> Update:
        return Update(super().forward(where, seen).add.map(lambda x: x * self.lasting))


SEVERAL = count(1)
WRONG = [
    (Leaks, alone.ignores_the_other_stream_on_a_closed_route_bit_for_bit, "video's update moves by .* 'after'"),
    (StartsAbove, alone.adds_exactly_zero_at_the_start, "adds 0.* to video at 'after' with both ways open"),
    (StartsAbove, within.leaves_the_streams_as_they_are_at_the_start, "apart in video's velocity"),
    (InTurn, alone.updates_a_direction_alike_whether_or_not_the_other_is_open, "video's .* other direction is closed"),
    (InertWithParameters, alone.has_parameters_only_where_it_is_active, "block 1 it is not active and has 4 param"),
    (ReadsX, alone.reads_the_other_stream_from_source_alone, "video's update moves"),
    (Unused, alone.gives_every_parameter_a_gradient_on_every_route, "a2v.weight.*get none on .*a2v=False"),
    (StoredLoss, alone.gives_each_loss_as_a_number_a_clip_and_on_every_route, r"losses are \[\] .*and \['close'\]"),
    (Draws, within.has_the_same_gradients_with_checkpointing_as_without, "that of .* is another one"),
    (MixesTheBatch, within.treats_each_clip_of_a_batch_as_it_does_it_alone, "a clip is .* apart in"),
    (Uninitialised, alone.starts_alike_where_it_was_built_without_weights, "scale is set by no reset_parameters"),
    (Needy, within.refuses_to_train_without_what_it_needs_and_samples_without, "it raises KeyError: 'loudness'"),
    (KeepsAside, within.comes_back_from_its_state_dict, "the network that was loaded is .* apart"),
    (
        LeaksBefore,
        alone.treats_tokens_before_a_stream_as_it_treats_the_stream,
        "audio's move by .* with the other stream",
    ),
    (Forgetful, alone.has_an_example_of_all_that_it_needs, r"example\(\) has no \['loudness'\]"),
]


@pytest.mark.parametrize(("make", "clause", "seen"), WRONG, ids=[f"{row[0].__name__}" for row in WRONG])
def test_a_wrong_interaction_is_told_by_the_clause_that_it_breaks(make: type, clause: Clause, seen: str) -> None:
    came = outcome(clause, Sites(make))
    assert came.state == "FAILED" and came.clause == words(clause)
    assert re.search(seen, came.said), came.said


class Number(Mean):
    def forward(self, where: str, seen: Seen) -> Any:
        return 3


class Bare(Mean):
    """A pair that does not say which is which."""

    def forward(self, where: str, seen: Seen) -> Update:
        return Update(tuple(super().forward(where, seen).add))  # type: ignore[arg-type]


class Words(Mean):
    def forward(self, where: str, seen: Seen) -> Update:
        return Update(AV("none", None))


KINDLESS = [
    (Number, "what Number.forward gives is 3; it must be of type Update"),
    (Bare, "what Bare.forward gives as add is of type tuple; it must be of type AV"),
    (Words, "what Words.forward gives as add.video is 'none'; it must be of type Tensor or None"),
]


@pytest.mark.parametrize(("make", "said"), KINDLESS, ids=[row[0].__name__ for row in KINDLESS])
def test_an_answer_of_another_type_is_told_once_and_ends_the_check(make: type, said: str) -> None:
    *before, last = outcomes(alone.CLAUSES + within.CLAUSES, Sites(make))
    assert {came.state for came in before} == {"ok"} and (last.state, last.said) == ("FAILED", said)


@pytest.mark.parametrize("make", [Mean], ids=["Mean"])
def test_a_right_interaction_of_ones_own_keeps_every_clause(make: type) -> None:
    clauses = alone.CLAUSES + within.CLAUSES
    assert [came for came in outcomes(clauses, Sites(make)) if came.state != "ok"] == []
