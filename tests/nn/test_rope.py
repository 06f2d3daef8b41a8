"""Rotary positions: relative, orthogonal, and shared by both streams in time."""

from __future__ import annotations

import math

import pytest
import torch

from ccl.nn.rope import angles, rotary, rotate, split_head, temporal_angles, video_angles


@pytest.mark.parametrize("head_dim, split", [(128, (44, 42, 42)), (64, (24, 20, 20)), (32, (12, 10, 10))])
def test_head_splits_as_wan_does(head_dim: int, split: tuple[int, int, int]) -> None:
    assert split_head(head_dim) == split


def test_pairs_turn_by_their_angle() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    angle = torch.randn(5, 4, dtype=torch.float64)
    y = rotate(x, rotary(angle))
    for j in range(5):
        for i in range(4):
            a, b = x[:, j, :, 2 * i], x[:, j, :, 2 * i + 1]
            c, s = math.cos(angle[j, i]), math.sin(angle[j, i])
            torch.testing.assert_close(y[:, j, :, 2 * i], a * c - b * s, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(y[:, j, :, 2 * i + 1], a * s + b * c, rtol=1e-5, atol=1e-6)


def test_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def product(i: float, j: float) -> torch.Tensor:
        at = lambda p: rotary(angles(torch.tensor([p], dtype=torch.float64), 16))  # noqa: E731
        return (rotate(q, at(i)) * rotate(k, at(j))).sum()

    torch.testing.assert_close(product(3.0, 7.5), product(103.0, 107.5), rtol=1e-4, atol=1e-5)


def test_a_pair_with_angle_zero_passes_through_exactly() -> None:
    x = torch.randn(1, 4, 2, 32)
    y = rotate(x, rotary(temporal_angles(torch.arange(4, dtype=torch.float64), 32)))
    assert torch.equal(x[..., 12:], y[..., 12:])
    assert not torch.equal(x[:, 1:, :, :12], y[:, 1:, :, :12])


def test_audio_and_video_turn_alike_at_equal_times() -> None:
    frames = torch.arange(3, dtype=torch.float64)
    video = video_angles(frames, 2, 2, 32)[::4]  # the first token of each frame
    audio = temporal_angles(frames, 32)
    torch.testing.assert_close(video, audio)


def test_video_angles_hold_frame_row_and_column() -> None:
    table = video_angles(torch.tensor([0.0, 1.0], dtype=torch.float64), 3, 4, 32).reshape(2, 3, 4, 16)
    assert torch.equal(table[1, 2, 3, [0, 6, 11]], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


def test_rotation_stays_in_float32_far_out() -> None:
    far = torch.tensor([1e5], dtype=torch.float64)
    table = rotary(angles(far, 8))
    exact = torch.cos(far[:, None] * 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8))
    torch.testing.assert_close(table[..., 0].double(), exact, rtol=0, atol=1e-7)
