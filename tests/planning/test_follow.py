"""What is watched of a followed step, against what is known of it."""

from __future__ import annotations

import gc

import pytest
import torch

from ccl.nn.attention import attention
from ccl.nn.layers import EPS, RMSNorm
from ccl.planning.follow import Live, OnGPU, inputs
from ccl.types import AV
from helpers.fakes import GRID, make_net


def test_live_bytes_are_those_of_tensors_that_live() -> None:
    known = torch.zeros(1000)
    with Live([known]) as live:
        a = torch.zeros(100)
        b = a + 1
        c = known[:10] + b[:10]
        assert live.now == 400 + 400 + 40
        del a, b
        gc.collect()
        assert live.now == 40 and live.peak == 840
        del c


def test_attention_and_norms_are_followed_as_a_gpu_computes_them() -> None:
    """In bfloat16: the output, and a float32 for each query and head; the CPU's path widens q, k and v."""
    q = torch.empty(2, 128, 4, 32, dtype=torch.bfloat16, device="meta")
    with Live([q]) as live, OnGPU():
        out = attention(q, q, q)
    assert out.dtype == torch.bfloat16
    assert live.peak == pytest.approx(q.nbytes + 4 * 2 * 128 * 4, rel=0.01)
    with torch.device("meta"), OnGPU():
        assert RMSNorm(32)(q).shape == q.shape


def test_a_norm_without_weights_is_followed_as_one_with_them_and_holds_no_more() -> None:
    x = torch.empty(2, 128, 32, device="meta", requires_grad=True)
    norm, kept = RMSNorm(32).to("meta"), []
    for weight in (norm.weight, None):
        with Live([x, norm.weight]) as live, OnGPU():
            out = torch.nn.functional.rms_norm(x, (32,), weight, EPS)
        kept.append(live.now)
        assert out.shape == x.shape
        del out
    assert kept[1] - kept[0] <= 4  # of weights that are not there, at most a number


def test_times_are_one_a_latent_frame_where_a_picture_is_given() -> None:
    x, t, states = inputs(make_net(), GRID, 3, 6)
    assert t.map(lambda t: tuple(t.shape)) == AV((3, GRID.t_v), (3, 1)) and states.shape == (3, 6, 8)
    assert len(x.audio) == 3
