"""Blocks that do the same are compiled once, however many: else torch gives up after eight, and runs them slowly."""

from __future__ import annotations

import pytest

from helpers.compiled import graphs
from helpers.forked import call


@pytest.mark.slow
@pytest.mark.timeout(1200)
# Of training and of sampling; of blocks in which it acts and of the others.
@pytest.mark.parametrize(("kind", "expected"), [("cca", 2), ("some blocks", 4)])
def test_two_blocks_and_forty_are_the_same_graphs(kind: str, expected: int) -> None:
    for layers in (2, 40):
        assert call(graphs, layers, kind, "open") == (expected, {}), layers
