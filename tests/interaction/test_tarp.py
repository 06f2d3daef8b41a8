"""Windows and positions of TARP against five-line loops, over many lengths."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccl.grid import Grid
from ccl.interaction import TARP, Global
from ccl.interaction.align import audio_positions


def grid_of(t_v: int, rate: float, fps: float = 25.0) -> Grid:
    return Grid(frames=4 * (t_v - 1) + 1, fps=fps, latent_rate=rate)


# rate / fps tokens a picture; the first frame holds one picture, so at least 1 keeps t_a >= t_v.
grids = st.builds(grid_of, st.integers(1, 40), st.floats(25.0, 200.0))


def seen(tarp: TARP, grid: Grid) -> list[list[int]]:
    keys, inside = tarp.windows(grid)
    return [row[ok].tolist() for row, ok in zip(keys, inside, strict=True)]


@settings(max_examples=60, deadline=None)
@given(grids)
def test_paper_windows_are_previous_own_and_next_chunk(grid: Grid) -> None:
    c = grid.t_a // grid.t_v
    for i, window in enumerate(seen(TARP("paper"), grid)):
        assert window == [j for j in range(grid.t_a) if c * (i - 1) <= j < c * (i + 2)]


@settings(max_examples=60, deadline=None)
@given(grids)
def test_proportional_windows_lie_around_their_share_and_leave_nothing_out(grid: Grid) -> None:
    c = grid.t_a // grid.t_v
    for i, window in enumerate(seen(TARP("proportional"), grid)):
        m = int((i + 0.5) * grid.t_a / grid.t_v + 1e-9)
        assert window == [j for j in range(m - 3 * c // 2, m - 3 * c // 2 + 3 * c) if 0 <= j < grid.t_a]
    assert TARP("proportional").report(grid).unattended == ()


@settings(max_examples=60, deadline=None)
@given(grids)
def test_true_centres_lie_under_the_middle_of_the_pictures(grid: Grid) -> None:
    for i, m in enumerate(TARP("true").centres(grid)):
        first, last = (0, 1) if i == 0 else (4 * i - 3, 4 * i + 1)
        seconds = (first + last) / 2 / grid.fps
        assert abs((m + 0.5) / grid.latent_rate - seconds) <= 1.01 / grid.latent_rate + 1e-6


@settings(max_examples=60, deadline=None)
@given(grids, st.sampled_from(["paper", "proportional", "true"]))
def test_every_query_of_v2a_meets_its_nearest_frame(grid: Grid, centre: str) -> None:
    groups = TARP(centre).groups(grid).v2a
    flat = groups.queries.flatten()
    for j in range(grid.t_a):
        assert groups.back[j] // groups.queries.shape[1] == j * grid.t_v // grid.t_a
        assert flat[groups.back[j]] == j


@settings(max_examples=40, deadline=None)
@given(grids, st.sampled_from(["paper", "proportional", "true"]), st.sampled_from(["mask", "shift", "clamp"]))
def test_no_window_is_empty_and_none_leaves_the_clip(grid: Grid, centre: str, edges: str) -> None:
    keys, inside = TARP(centre, edges).windows(grid)
    assert keys.shape == (grid.t_v, 3 * grid.c)
    assert int(keys.min()) >= 0 and int(keys.max()) < grid.t_a
    assert bool(inside.any(1).all())


def test_edges_mask_shift_or_repeat() -> None:
    grid = grid_of(5, 31.25)  # t_a 21, c 4
    assert seen(TARP("paper"), grid)[0] == list(range(8))
    assert seen(TARP("paper", "shift"), grid)[0] == list(range(12))
    assert seen(TARP("paper", "clamp"), grid)[0] == [0] * 4 + list(range(8))


# method.md, section 2: frames, fps, rate -> t_v, t_a, c, unattended tokens, drift of the last frame in seconds
TABLE = [
    (81, 16.0, 31.25, 21, 158, 7, range(154, 158), -0.35),
    (121, 24.0, 31.25, 31, 157, 5, range(0), -0.08),
    (241, 24.0, 31.25, 61, 313, 5, range(310, 313), -0.27),
    (121, 25.0, 31.25, 31, 151, 4, range(128, 151), -0.84),
    (81, 16.0, 43.07, 21, 218, 10, range(0), -0.17),
]


@pytest.mark.parametrize("frames, fps, rate, t_v, t_a, c, unattended, drift", TABLE)
def test_paper_centres_drift_as_tabled(frames, fps, rate, t_v, t_a, c, unattended, drift) -> None:
    grid = Grid(frames=frames, fps=fps, latent_rate=rate)
    assert (grid.t_v, grid.t_a, grid.c) == (t_v, t_a, c)
    report = TARP("paper").report(grid)
    assert report.unattended == tuple(unattended)
    assert report.drift == pytest.approx(drift, abs=0.01)
    assert report.half_window == pytest.approx(1.5 * c / rate)
    assert abs(TARP("proportional").report(grid).drift) <= 0.03


def test_paper_centres_that_leave_tokens_unseen_warn_with_the_numbers() -> None:
    grid = Grid(frames=121, fps=25.0)
    with pytest.warns(
        UserWarning, match=r"23 of 151 audio tokens \(128-150\).*-0.84 s off, more than its half \(0.19 s\)"
    ):
        figures = TARP("paper").check(grid)
    assert figures["window/unattended"] == 23


def test_windows_that_fit_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TARP("proportional").check(Grid())
        assert Global().check(Grid()) == {}


def test_audio_positions_share_the_frames_axis() -> None:
    grid = Grid(frames=121, fps=24.0)
    j = torch.arange(157, dtype=torch.float64)
    torch.testing.assert_close(audio_positions(grid), j * 31 / 157)
    torch.testing.assert_close(audio_positions(grid, "duration"), j * 0.19676, rtol=1e-4, atol=0)  # Ovi's factor
    torch.testing.assert_close(audio_positions(grid, "none"), j)
    for align in (TARP, Global):
        with pytest.raises((ValueError, TypeError), match="rescale"):  # the types of the tests refuse it, too
            align(rescale="idnex")
