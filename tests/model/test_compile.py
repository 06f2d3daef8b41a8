"""Blocks that do the same are compiled once, however many: else torch gives up after eight, and runs them slowly."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.forked import call


@pytest.mark.slow
@pytest.mark.timeout(1200)
# Graphs of training and of sampling together. AV-Link stands in the first half: four blocks, as a second block with it
# makes one graph more than the first, and a third none: the first block's tokens are a view of the patch embedding, and
# once blocks of two kinds have made sizes dynamic, a graph holds for tokens alone that are a view of a like one.
@pytest.mark.parametrize(("kind", "few", "expected"), [("cca", 2, 2), ("some blocks", 4, 5)])
def test_few_blocks_and_forty_are_the_same_graphs(kind: str, few: int, expected: int) -> None:
    from helpers.compiled import graphs  # the compiler is imported where these tests are asked for

    for layers in (few, 40):
        assert call(graphs, layers, kind) == (expected, {}), layers


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["cca", "mova", "ltx2", "uniavgen", "harmony"])
def test_compiled_blocks_give_what_they_give_as_they_are_where_a_pass_skips(kind: str) -> None:
    from helpers.compiled import passes

    eager, compiled, count = call(passes, 3, kind)
    assert 0 < count <= 3
    for one, other in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        whole, alone, skips = other
        assert abs(whole - skips).max() > 0.1 and abs(alone - skips).max() > 0.1
