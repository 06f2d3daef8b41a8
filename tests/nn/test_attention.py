"""Attention against its definition."""

from __future__ import annotations

import pytest
import torch

from ccl.nn import attention


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    out = torch.empty_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            seen = slice(None) if mask is None else mask[b, 0, 0]
            weights = (q[b, :, h] @ k[b, seen, h].T / q.shape[-1] ** 0.5).softmax(-1)
            out[b, :, h] = weights @ v[b, seen, h]
    return out


def example(masked: bool) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 2, 8), torch.randn(3, 7, 2, 8), torch.randn(3, 7, 2, 8)
    mask = torch.rand(3, 1, 1, 7) < 0.6
    mask[..., 0] = True
    return (q, k, v, mask) if masked else (q, k, v)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "naive"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_loop_over_batch_and_heads(backend: str, masked: bool) -> None:
    q, k, v, *mask = example(masked)
    mask = mask[0] if mask else None
    out = attention(q, k, v, mask=mask, backend=backend)
    torch.testing.assert_close(out, naive(q, k, v, mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_on_a_cpu_stays_near_float32(masked: bool) -> None:
    q, k, v, *mask = example(masked)
    half = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    full = [x.detach().float().requires_grad_() for x in half]
    mask = mask[0] if mask else None
    near, exact = attention(*half, mask=mask), attention(*full, mask=mask, backend="naive")
    near.float().square().sum().backward()
    exact.square().sum().backward()
    assert near.dtype == torch.bfloat16
    for a, b in [(near, exact), *((x.grad, y.grad) for x, y in zip(half, full, strict=True))]:
        assert (a.float() - b).norm() / b.norm() < 0.02


def test_flash_that_cannot_be_had_is_refused_in_a_sentence() -> None:
    q, k, v = example(False)
    with pytest.raises(ValueError, match="'flash' needs flash-attn"):
        attention(q, k, v, backend="flash")
