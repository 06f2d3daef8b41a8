"""Contracts of the other kinds: embedded parts keep theirs, and wrong ones are told by the clause that they break."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ccl.codecs import EmbeddedAudio, EmbeddedVideo
from ccl.contracts import alignment, codec, guidance, kind_of, metric, outcome, outcomes, text, words
from ccl.evaluation import Column, Measured, Metric
from ccl.guidance import Guidance, table
from ccl.interaction import TARP, Framewise, Global
from ccl.interaction.align import Directions, Groups
from ccl.text import EmbeddedText
from ccl.types import ALONE, AV, NEGATIVE, POSITIVE, Pass, Route, View
from helpers.fakes import TinyAudio, TinyVideo


class Above(Guidance):
    """Weights that sum to 1.1."""

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return table((Pass(POSITIVE, View(route)), AV(2.1, 2.1)), (Pass(NEGATIVE, ALONE), AV(-1.0, -1.0)))


class Whole(Guidance):
    """The conditional prediction."""

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        return table((Pass(POSITIVE, View(route)), AV(1.0, 1.0)))


class Drifts(Whole):
    """Adds something of its own to what the passes say."""

    def combine(self, v: Any, weights: Any, x: Any, t: float, times: Any) -> AV[Any]:
        return super().combine(v, weights, x, t, times).map(lambda z: z + 0.01 * t)


class Keeps(Above):
    def __init__(self) -> None:
        self.net = nn.Linear(1, 1)


class Loudness(Metric):
    name = "loudness"
    columns = (Column("rms", "RMS", better=""),)

    def prepare(self, film: Any) -> np.ndarray:
        return film.audio

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        return [Measured({"rms": float(np.sqrt(np.mean(sound**2)))}) for sound in inputs]


class InDecibels(Loudness):
    """Raises where there is no sound to take a logarithm of."""

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        if any(not sound.any() for sound in inputs):
            raise ZeroDivisionError("float division by zero")
        return super().measure(inputs)


class Relative(Loudness):
    """To the loudest of a batch."""

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        given = [result.values["rms"] for result in super().measure(inputs)]
        return [Measured({"rms": rms / (max(given) or 1.0)}) for rms in given]


class Unnamed(Loudness):
    columns = (Column("wer", "WER"),)


class Renamed(TinyVideo):
    built = count()

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self.built)

    @property
    def identity(self) -> str:
        return f"tiny-{self.number}"


class Normalised(TinyVideo):
    """By the statistics of whatever it is given."""

    def encode(self, video: Tensor) -> Tensor:
        z = super().encode(video)
        return z - z.mean()


class Learns(TinyAudio):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def encode(self, audio: Tensor, length: int) -> Tensor:
        return super().encode(audio, length) * self.gain


class Cuts(TinyAudio):
    """As many latents as the sound fills, whatever was asked for."""

    def encode(self, audio: Tensor, length: int) -> Tensor:
        return torch.nn.functional.avg_pool1d(audio[:, None], 512)[..., :length].expand(-1, self.channels, -1)


class Forgets(TARP):
    """The last token asks nobody: its answer is the one before it."""

    def groups(self, grid: Any) -> Any:
        found = super().groups(grid)
        back = found.v2a.back.clone()
        back[-1] = back[-2] if len(back) > 1 else back[-1]
        return found._replace(v2a=Groups(found.v2a.num, found.v2a.queries, back))


class Empties(EmbeddedText):
    """The empty prompt as zeros."""

    def forward(self, prompts: list[str]) -> Tensor:
        states = super().forward(prompts)
        return states * torch.tensor([float(bool(prompt)) for prompt in prompts])[:, None, None]


def tiny_text(kind: type = EmbeddedText) -> EmbeddedText:
    return kind(dim=8, length=24, layers=1, heads=2, buckets=64)


RIGHT = [
    EmbeddedVideo,
    lambda: EmbeddedAudio(iterations=4),
    tiny_text,
    TARP,
    Framewise,
    Global,
    lambda: TARP("paper", "clamp"),
    Loudness,
]


@pytest.mark.parametrize("make", RIGHT, ids=lambda make: getattr(make, "__name__", "made"))
def test_parts_of_every_kind_keep_its_contract(make: Any) -> None:
    kind = kind_of(type(make()))
    assert kind is not None
    assert [came for came in outcomes(kind.clauses, make) if came.state != "ok"] == []


WRONG = [
    (Above, guidance.gives_each_stream_weights_that_sum_to_one, "the weights of video sum to 1.1 at time 1.0 on Route"),
    (Above, guidance.gives_equal_predictions_back_as_they_are, "come out .* apart in video"),
    (Drifts, guidance.gives_equal_predictions_back_as_they_are, "come out 0.01 apart in video at time 1"),
    (Keeps, guidance.says_what_it_is_in_plain_values, "Keeps keeps a Linear as `net`, which no record"),
    (InDecibels, metric.gives_every_clip_its_numbers_or_a_reason,
     r"of a clip silent it raises ZeroDivisionError: .* \(test_parts.py, line \d+\); a reason is an Unscorable"),
    (Relative, metric.gives_the_same_in_any_order_and_company, "rms is .* alone, and .* among others"),
    (Unnamed, metric.is_built_with_a_name_and_columns, "the column 'wer' is that of wer"),
    (Renamed, codec.names_its_latent_space_alike_whenever_it_is_built, "is 'tiny-.', and built once more 'tiny"),
    (Normalised, codec.encodes_a_clip_alike_in_any_batch, "a clip's latents are .* apart alone and beside another"),
    (Normalised, codec.encodes_the_first_picture_whatever_follows, "the first latent frame moves by"),
    (TinyVideo, codec.refuses_pictures_and_latents_that_do_not_fit, "it takes .* and gives"),
    (Learns, codec.keeps_no_gradients, r"encode\(\) gives what asks for gradients"),
    (Cuts, codec.encodes_sound_to_as_many_latents_as_it_is_asked_for, r"sound that is too short becomes \(2, 6, 15\)"),
    (Forgets, alignment.groups_every_token_once, "v2a: what comes back is not the answer of each token"),
    (lambda: tiny_text(Empties), text.fills_with_zeros_after_the_last_token, "the empty prompt is zeros alone"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "clause", "seen"), WRONG, ids=[row[1].__name__ for row in WRONG])
def test_a_wrong_part_is_told_by_the_clause_that_it_breaks(make: Any, clause: Any, seen: str) -> None:
    came = outcome(clause, make)
    assert (came.state, came.clause) == ("FAILED", words(clause))
    assert re.search(seen, came.said), came.said


def gives(kind: type, method: str, answer: Any) -> Any:
    """A part of that class, one of whose methods gives something else."""
    return type("Mine", (kind,), {method: lambda *_: answer})


KINDLESS = [
    (gives(Above, "passes", [1]), "passes gives is of type list; it must be of type dict"),
    (gives(Above, "passes", {"text": AV(1.0, 1.0)}), "passes gives as a key is 'text'; it must be of type Pass"),
    (
        gives(Above, "passes", {Pass(POSITIVE): (1.0, 1.0)}),
        "passes gives as a weight is of type tuple; it must be of type AV",
    ),
    (gives(Whole, "combine", 1.0), "combine gives is 1.0; it must be of type AV"),
    (gives(Loudness, "measure", 4), "measure gives is 4; it must be of type Sequence"),
    (gives(Loudness, "measure", [0.5]), "measure gives as a result is 0.5; it must be of type Measured or Failed"),
    (gives(EmbeddedText, "forward", ["x"]), "forward gives is of type list; it must be of type Tensor"),
    (gives(EmbeddedVideo, "encode", None), "encode gives is None; it must be of type Tensor"),
    (gives(EmbeddedVideo, "decode", None), "decode gives is None; it must be of type Tensor"),
    (gives(EmbeddedAudio, "encode", None), "encode gives is None; it must be of type Tensor"),
    (gives(EmbeddedAudio, "decode", None), "decode gives is None; it must be of type Tensor"),
    (gives(TARP, "groups", None), "groups gives is None; it must be of type Directions"),
    (gives(TARP, "groups", Directions(1, 1)), "groups gives as a2v is 1; it must be of type Groups"),
    (gives(TARP, "positions", None), "positions gives is None; it must be of type AV"),
]


@pytest.mark.parametrize(("make", "said"), KINDLESS, ids=[row[1] for row in KINDLESS])
def test_an_answer_of_another_type_is_told_once_and_ends_the_check(make: Any, said: str) -> None:
    kind = kind_of(make)
    assert kind is not None
    *before, last = outcomes(kind.clauses, lambda: tiny_text(make) if issubclass(make, EmbeddedText) else make())
    assert {came.state for came in before} == {"ok"}
    assert (last.state, last.said) == ("FAILED", f"what Mine.{said}")
