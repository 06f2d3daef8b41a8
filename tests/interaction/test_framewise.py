"""Who sees whom frame beside frame, against a loop over all pairs of tokens, over many lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ccl.grid import Grid
from ccl.interaction import Framewise
from ccl.interaction.align import audio_positions, video_positions

grids = st.builds(
    lambda t_v, rate, width: Grid(frames=4 * (t_v - 1) + 1, height=16, width=width, latent_rate=rate),
    st.integers(1, 12),
    st.floats(25.0, 120.0),
    st.sampled_from([16, 48]),
)


@settings(max_examples=60, deadline=None)
@given(grids, st.integers(0, 13))
def test_tokens_of_a_frame_see_those_of_the_frames_around_it(grid: Grid, window: int) -> None:
    a2v, v2a = Framewise(window).groups(grid)
    size = grid.h * grid.w
    near = torch.zeros(grid.s_v, grid.t_a)
    for n in range(grid.s_v):
        for j in range(grid.t_a):
            near[n, j] = abs(n // size - j * grid.t_v // grid.t_a) <= window
    assert torch.equal(a2v.seen(grid.s_v, grid.t_a), near)
    assert torch.equal(v2a.seen(grid.t_a, grid.s_v), near.T)


def test_both_streams_lie_on_the_axis_of_the_frames() -> None:
    grid = Grid(frames=17, height=32, width=32)  # t_v 5, t_a 21
    frames, tokens = Framewise().positions(grid)
    assert torch.equal(frames, video_positions(grid)) and torch.equal(tokens, audio_positions(grid, "index"))
    assert float(tokens[-1]) == pytest.approx(20 * 5 / 21)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"window": -1}, "window is -1; it must be a whole number of at least 0"),
        ({"rescale": 0.0}, "rescale is 0.0; a factor must be a positive number"),
    ],
)
def test_what_it_cannot_take_is_said(argument: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Framewise(**argument)
