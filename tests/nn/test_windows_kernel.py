"""Windows that reach no edge of the clip go to the attention kernel without a mask, which would slow it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ccl.grid import Grid
from ccl.interaction.align import TARP
from ccl.nn import grouped as module
from ccl.nn.grouped import grouped_attention


def test_only_the_windows_at_the_edges_bring_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = TARP().groups(Grid()).a2v
    assert groups.mask is not None
    first, end = groups.whole
    count, keys = groups.mask.shape
    assert end - first > count // 2 and groups.mask[first:end].all()
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, count, n, 8, generator=g) for n in (9, keys, keys))
    asked: list[tuple[int, bool]] = []
    real = module.attention

    def told(q: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
        asked.append((len(q), mask is not None))
        return real(q, *args, mask=mask, **kwargs)

    monkeypatch.setattr(module, "attention", told)
    found = grouped_attention(q, k, v, mask=groups.mask, whole=groups.whole, backend="sdpa")
    assert asked == [(end - first, False), (count - (end - first), True)]
    torch.testing.assert_close(
        found, grouped_attention(q, k, v, mask=groups.mask, backend="naive"), rtol=1e-5, atol=1e-6
    )
