"""What a term makes of a batch's draws: whole streams, prefixes and times of their own, against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from scipy.stats import kstest

from ccl.cli.parts import build
from ccl.flow import LogitNormal
from ccl.tasks import PAPER_TASKS, Given, Task, Term
from ccl.training.draws import Draws, draw, placed
from ccl.types import AV, OPEN, Route
from helpers import ROOT
from helpers.fakes import GRID, make_batch

SIZE = 40


@pytest.fixture(scope="module")
def z() -> AV[Any]:
    return make_batch(0, range(SIZE)).latents


@pytest.fixture(scope="module")
def drawn(z: AV[Any]) -> Draws:
    return draw(
        [""] * SIZE, z, seed=0, index=0, rank=0, time=LogitNormal(), text_dropout=0.1, device="cpu"
    )  # fmt: skip


def test_a_stream_given_at_a_time_of_its_own_is_there_in_every_clip(drawn: Draws, z: AV[Any]) -> None:
    time, counted = placed(drawn, Term(Route(v2a=True, a2v=False), {"video": Given("all", time=0.04)}), z, GRID)
    assert torch.equal(time.video, torch.full((SIZE,), 0.04)) and torch.equal(time.audio, drawn.time.audio)
    assert counted.video.all() and counted.audio.all()  # its weight, not this, takes it out of the loss


def test_of_a_range_of_times_each_clip_has_its_own(drawn: Draws, z: AV[Any]) -> None:
    time, _ = placed(drawn, Term(OPEN, {"audio": Given("all", time=(0.1, 0.3))}), z, GRID)
    torch.testing.assert_close(time.audio, 0.1 + 0.2 * drawn.where)
    assert time.audio.min() < 0.15 and time.audio.max() > 0.25


@pytest.mark.parametrize(("task", "given"), [("v2a", "video"), ("a2v", "audio")])
def test_av_links_given_stream_has_a_uniform_time_where_its_tasks_say_so(
    task: str, given: str, drawn: Draws, z: AV[Any]
) -> None:
    tasks = yaml.safe_load((ROOT / "configs/tasks/avlink.yaml").read_text())
    tasks[task]["terms"][0]["given"][given]["time"] = [0.0, 1.0]
    time, _ = placed(drawn, build(dict[str, Task], tasks, "tasks")[task].terms[0], z, GRID)
    own, other = (time.video, time.audio) if given == "video" else (time.audio, time.video)
    assert kstest(own.numpy(), "uniform").pvalue > 0.05 and len(own.unique()) == SIZE
    assert torch.equal(other, drawn.time.audio if given == "video" else drawn.time.video)  # as with a fixed one


@pytest.mark.parametrize("prob", [1.0, 0.5])
def test_a_prefix_is_as_long_in_both_streams_and_does_not_count(drawn: Draws, z: AV[Any], prob: float) -> None:
    part = Given("prefix", prob=prob, seconds=(0.0, 0.3), time=0.1)
    time, counted = placed(drawn, Term(OPEN, {"video": part, "audio": part}, shared_time=True), z, GRID)
    given = 0
    for row in range(SIZE):
        seconds = 0.3 * float(drawn.where[row])
        there = bool(drawn.given[row] < prob)
        # A latent frame is given where all of its pictures are: the first has one, each later one four.
        pictures = [1 + 4 * k for k in range(GRID.t_v)]
        latents = [(k + 1) / GRID.latent_rate for k in range(GRID.t_a)]
        video = torch.tensor([there and n <= int(seconds * GRID.fps) for n in pictures])
        audio = torch.tensor([there and end <= seconds for end in latents])
        assert torch.equal(counted.video[row], (~video).float()) and torch.equal(counted.audio[row], (~audio).float())
        for own, mask in ((time.video[row], video), (time.audio[row], audio)):
            assert torch.equal(own, torch.where(mask, 0.1, drawn.time.video[row]))
        given += there
    assert given == SIZE if prob == 1 else 0 < given < SIZE


def test_a_suffix_is_what_lies_whole_within_the_last_seconds(drawn: Draws, z: AV[Any]) -> None:
    part = Given("suffix", seconds=(0.0, 0.3))
    _, counted = placed(drawn, Term(OPEN, {"video": part, "audio": part}), z, GRID)
    for row in range(SIZE):
        begins = GRID.seconds - 0.3 * float(drawn.where[row])
        # The first latent frame has picture 0, frame k the pictures 4 k - 3 to 4 k.
        pictures = [max(0, 4 * k - 3) / GRID.fps for k in range(GRID.t_v)]
        latents = [k / GRID.latent_rate for k in range(GRID.t_a)]
        for own, starts in ((counted.video[row], pictures), (counted.audio[row], latents)):
            assert own.tolist() == [float(start < begins - 1e-6) for start in starts]


@pytest.mark.parametrize(
    ("part", "places"), [("first_frame", [0]), ("last_frame", [-1]), ("first_last", [0, -1])], ids=str
)
def test_given_pictures_are_latent_frames_at_the_ends(part: Any, places: list[int], drawn: Draws, z: AV[Any]) -> None:
    term = Term(OPEN, {"video": Given(part)})
    time, counted = placed(drawn, term, z, GRID)
    expected = torch.ones(SIZE, GRID.t_v)
    expected[:, places] = 0
    assert torch.equal(counted.video, expected) and counted.audio.all()
    assert torch.equal(time.video == 0, counted.video == 0)
    _, seen = placed(drawn, term, z, GRID, shown=True)  # the network that is shown the first one generates it
    assert seen.video[:, 0].all() and torch.equal(seen.video[:, 1:], expected[:, 1:])


@pytest.mark.parametrize("name", ["prefix", "suffix"])
def test_a_prefix_or_suffix_leaves_something_to_generate(name: Any, drawn: Draws, z: AV[Any]) -> None:
    part = Given(name, seconds=(100.0, 100.0))
    _, counted = placed(drawn, Term(OPEN, {"video": part, "audio": part}), z, GRID)
    assert all(torch.equal(x.sum(1), torch.ones(SIZE)) for x in counted)


def test_a_network_that_is_shown_its_picture_is_given_no_first_frame(drawn: Draws, z: AV[Any]) -> None:
    term = Term(OPEN, {"video": Given("first_frame")})
    time, counted = placed(drawn, term, z, GRID, shown=True)
    assert time.video.shape == (SIZE,) and counted.video.all()


def test_the_terms_of_the_paper_share_every_draw(drawn: Draws, z: AV[Any]) -> None:
    times = {name: placed(drawn, task.terms[0], z, GRID)[0] for name, task in PAPER_TASKS.items()}
    assert torch.equal(times["single"].video[:, -1], drawn.time.video)
    assert torch.equal(times["single"].video, times["a2v"].video)
    assert torch.equal(times["joint"].audio, drawn.time.video) and not times["a2v"].audio.any()
