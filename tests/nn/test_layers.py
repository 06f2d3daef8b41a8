"""Norms, modulation and the zero gradient, against their definitions, forward and backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ccl.nn import LayerNorm, Linear, RMSNorm, gated_add, keep_in_use, modulate


def same_with_gradients(ours, definition, *inputs: torch.Tensor) -> None:
    results = []
    for f in (ours, definition):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = f(*leaves)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y * weight).sum().backward()
        results.append((y, *(x.grad for x in leaves)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_rms_norm_is_x_over_its_root_mean_square() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 8), torch.randn(8)

    def ours(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(RMSNorm(8), {"weight": weight}, (x,))

    same_with_gradients(ours, lambda x, w: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w, x, weight)


@pytest.mark.parametrize("batch, frames", [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_modulation_and_gate_reach_the_tokens_of_their_frame(batch: int, frames: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, batch, 12, 8)
    shift, scale = torch.randn(2, batch, frames, 8)

    def spread(m: torch.Tensor) -> torch.Tensor:
        return m.repeat_interleave(12 // frames, 1)

    def modulation(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        unit = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return unit * (1 + spread(scale)) + spread(shift)

    same_with_gradients(modulate, modulation, x, shift, scale)
    same_with_gradients(gated_add, lambda x, y, gate: x + y * spread(gate), x, y, shift)


def test_norms_compute_in_float32_and_return_their_inputs_type() -> None:
    x = (100 + torch.randn(1, 2, 64)).bfloat16()
    y = LayerNorm(64).bfloat16()(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, F.layer_norm(x.float(), (64,), eps=1e-6).bfloat16())


def test_keep_in_use_gives_zero_gradients_and_changes_nothing() -> None:
    used, unused, frozen = Linear(3, 3), Linear(3, 3), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    x = torch.randn(2, 3)
    y = used(x)
    kept = keep_in_use(y, [*unused.parameters(), frozen])
    assert torch.equal(kept, y)
    kept.sum().backward()
    assert unused.weight.grad is not None and not unused.weight.grad.any() and not unused.bias.grad.any()
    assert used.weight.grad.any() and frozen.grad is None


def test_linear_says_how_it_starts() -> None:
    torch.manual_seed(0)
    assert not Linear(64, 64, init="zero").weight.any()
    assert float(Linear(64, 64, init="normal").weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    # Xavier, for a square: one over the root of the width.
    assert float(Linear(64, 64).weight.detach().std()) == pytest.approx(64**-0.5, rel=0.1)
    assert all(not Linear(8, 8, init=init).bias.any() for init in ("xavier", "normal", "zero"))
