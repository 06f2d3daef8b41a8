"""Attention in groups, every way of computing it, against a loop over groups."""

from __future__ import annotations

import pytest
import torch

from ccl.interaction.align import longest_run
from ccl.nn.grouped import grouped_attention

B, H, G, Q, K, N, D = 2, 3, 5, 4, 6, 7, 8


def inputs():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, G, n, D, generator=g) for n in (Q, K, K))
    shared = torch.randn(N, H, D, generator=g), torch.randn(N, H, D, generator=g)
    mask = torch.ones(G, K, dtype=torch.bool)
    mask[0, :4], mask[G - 1, 2:] = False, False
    return q, k, v, shared, mask


def naive(q, k, v, shared, mask):
    out = torch.empty_like(q)
    for b in range(B):
        for h in range(H):
            for g in range(G):
                seen = torch.ones(K, dtype=torch.bool) if mask is None else mask[g]
                keys, values = k[b, h, g][seen], v[b, h, g][seen]
                if shared is not None:
                    keys, values = torch.cat([keys, shared[0][:, h]]), torch.cat([values, shared[1][:, h]])
                out[b, h, g] = (q[b, h, g] @ keys.T / D**0.5).softmax(-1) @ values
    return out


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("common", [False, True])
def test_groups_equal_a_loop_over_them(backend, masked, common) -> None:
    q, k, v, shared, mask = inputs()
    shared, mask = shared if common else None, mask if masked else None
    for whole in [(0, 0), (1, G - 1)] if masked else [(0, 0)]:
        out = grouped_attention(q, k, v, shared=shared, mask=mask, whole=whole, backend=backend)
        torch.testing.assert_close(out, naive(q, k, v, shared, mask), rtol=1e-5, atol=1e-6)


def test_gradients_are_the_same_either_way() -> None:
    found = []
    for backend in ("auto", "sdpa"):
        q, k, v, shared, mask = inputs()
        leaves = [x.requires_grad_() for x in (q, k, v, *shared)]
        grouped_attention(q, k, v, shared=shared, mask=mask, whole=(1, 4), backend=backend).square().sum().backward()
        found.append([x.grad for x in leaves])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_float32_and_float64_in_float64() -> None:
    q, k, v, shared, mask = inputs()
    exact = naive(q, k, v, shared, mask)
    half = [x.bfloat16() for x in (q, k, v)]
    near = grouped_attention(*half, shared=tuple(x.bfloat16() for x in shared), mask=mask)
    assert near.dtype == torch.bfloat16 and (near.float() - exact).norm() / exact.norm() < 0.01
    double = grouped_attention(q.double(), k.double(), v.double(), shared=tuple(x.double() for x in shared), mask=mask)
    assert double.dtype == torch.float64 and (double - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("fits", "run"),
    [
        ([True] * 3, (0, 3)),
        ([False, True, True, False], (1, 3)),
        ([False], (0, 0)),
        ([True, False, True, True], (2, 4)),
    ],
)
def test_the_longest_run_of_whole_groups(fits, run) -> None:
    assert longest_run(fits) == run
