"""Solvers against fields whose solution is known."""

import math

import pytest
import torch

from ccl.sampling import SOLVERS, Held, euler, evaluated, heun, solve, times, unipc
from ccl.types import AV


def pair(value: float = 0.0, dtype=torch.float64) -> AV:
    return AV(torch.full((1, 1, 2, 1, 1), value, dtype=dtype), torch.full((1, 1, 3), value, dtype=dtype))


def gaussian(scale: float, mean: float):
    """The exact velocity E[eps - x | x_t] for data N(mean, scale^2): a sample is mean + scale * noise."""

    def velocity(x: AV, t: float) -> AV:
        variance = (1 - t) ** 2 * scale**2 + t**2
        return x.map(lambda z: (t - (1 - t) * scale**2) / variance * (z - (1 - t) * mean) - mean)

    return velocity


def error(solver, steps: int) -> float:
    out = solver(gaussian(0.4, 0.7), pair(1.3), times(steps))
    return abs(out.video.flatten()[0].item() - (0.7 + 0.4 * 1.3))


def order(solver, steps: int) -> float:
    return math.log2(error(solver, steps) / error(solver, 2 * steps))


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_times_run_from_noise_to_data(shift):
    t = times(7, shift)
    assert t[0] == 1 and t[-1] == 0 and len(t) == 8 and (t.diff() < 0).all()


def test_shift_moves_times_towards_noise():
    assert (times(8, 3.0)[1:-1] > times(8)[1:-1]).all()


def test_no_steps_are_refused_in_words():
    with pytest.raises(ValueError, match="steps is 0"):
        times(0)


@pytest.mark.parametrize("solver", [euler, heun])
def test_cubic_velocity_integrates_to_minus_one(solver):
    out = solver(lambda x, t: x.map(lambda z: torch.full_like(z, 3 * t**2)), pair(), times(2000))
    assert out.map(lambda z: (z + 1).abs().max() < 1e-3) == AV(True, True)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_straight_field_is_exact_in_one_step(name):
    out = SOLVERS[name](lambda x, t: x.map(lambda z: torch.full_like(z, -2.0)), pair(1.0), times(1))
    torch.testing.assert_close(out.audio, pair(3.0).audio, rtol=1e-5, atol=1e-5)


def test_euler_converges_with_order_one():
    assert order(euler, 64) == pytest.approx(1, abs=0.1)


def test_heun_converges_with_order_two():
    assert order(heun, 64) == pytest.approx(2, abs=0.2)


def test_unipc_is_better_than_euler_at_equal_evaluations():
    assert all(error(unipc, n) < 0.2 * error(euler, n) for n in (16, 32, 64))


@pytest.mark.parametrize("name", list(SOLVERS))
def test_gaussian_flow_gives_its_exact_sample(name):
    torch.manual_seed(0)
    noise = AV(torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 5))
    out = SOLVERS[name](gaussian(0.5, -1.0), noise, times(200))
    torch.testing.assert_close(out.video, -1 + 0.5 * noise.video, rtol=0, atol=2e-2)
    torch.testing.assert_close(out.audio, -1 + 0.5 * noise.audio, rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_absent_stream_stays_absent(name):
    out = SOLVERS[name](gaussian(1.0, 0.0), AV(None, torch.randn(1, 2, 3)), times(3))
    assert out.video is None and out.audio.shape == (1, 2, 3)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_held_frames_stay_as_given_and_are_seen_clean_at_time_zero(name):
    seen = []

    def net(x: AV, times: AV, t: float) -> AV:
        seen.append((x, times, t))
        return x.map(lambda z: z * 0.3 + 1)

    noise = AV(torch.randn(2, 3, 4, 1, 1), torch.randn(2, 3, 5))
    clean = AV(torch.randn(2, 3, 4, 1, 1), torch.randn(2, 3, 5))
    first = torch.zeros(2, 4, dtype=torch.bool)
    first[0, 0] = True  # only the first clip has an image
    mask = AV(first, torch.ones(2, 5, dtype=torch.bool))
    out = solve(net, noise, times(4), solver=name, held=Held(clean, mask))
    assert torch.equal(out.video[0, :, 0], clean.video[0, :, 0]) and torch.equal(out.audio, clean.audio)
    assert not torch.equal(out.video[1], clean.video[1])
    assert [t for _, _, t in seen] == evaluated(times(4), name)
    for x, told, t in seen:
        assert torch.equal(x.video[0, :, 0], clean.video[0, :, 0]) and torch.equal(x.audio, clean.audio)
        assert told.video[0, 0] == 0 and (told.video.flatten()[1:] == t).all()
        assert told.audio.shape == (2,) and (told.audio == 0).all()


def test_a_solver_asks_for_velocities_once_a_step_and_heuns_at_its_end_too():
    assert evaluated(times(4), "euler") == evaluated(times(4), "unipc") == [1, 0.75, 0.5, 0.25]
    assert evaluated(times(4), "heun") == [1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("name", list(SOLVERS))
def test_frames_held_at_a_time_are_seen_as_noisy_as_it_says_and_come_out_clean(name):
    seen = []

    def net(x: AV, t: AV, _: float) -> AV:
        seen.append((x, t))
        return x.map(lambda z: z * 0.3 + 1)

    noise = AV(torch.randn(2, 3, 4, 1, 1), torch.randn(2, 3, 5))
    clean = AV(torch.randn(2, 3, 4, 1, 1), torch.randn(2, 3, 5))
    first = torch.zeros(2, 4, dtype=torch.bool)
    first[:, 0] = True
    mask = AV(first, torch.ones(2, 5, dtype=torch.bool))
    out = solve(net, noise, times(4), solver=name, held=Held(clean, mask, AV(0.2, 0.04), noise))
    assert torch.equal(out.video[:, :, 0], clean.video[:, :, 0]) and torch.equal(out.audio, clean.audio)
    for x, t in seen:
        torch.testing.assert_close(x.video[:, :, 0], 0.8 * clean.video[:, :, 0] + 0.2 * noise.video[:, :, 0])
        torch.testing.assert_close(x.audio, 0.96 * clean.audio + 0.04 * noise.audio)
        assert (
            (t.video[:, 0] == 0.2).all()
            and (t.video[:, 1:] != 0.2).all()
            and torch.equal(t.audio, torch.full((2,), 0.04))
        )


def test_without_conditions_times_are_one_a_clip():
    def net(x: AV, times: AV, t: float) -> AV:
        assert times.video.shape == (1,) and times.audio.shape == (1,)
        return x

    solve(net, pair(1.0, torch.float32), times(2))


@pytest.mark.parametrize("name", list(SOLVERS))
def test_progress_counts_every_step(name):
    calls = []
    SOLVERS[name](gaussian(1.0, 0.0), pair(1.0), times(3), lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_unknown_solver_is_refused_in_words():
    with pytest.raises(ValueError, match="no solver 'rk4'"):
        solve(lambda x, times, t: x, pair(), times(1), solver="rk4")
