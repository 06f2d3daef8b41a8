"""The paper's network, followed once for all tests of a process."""

from __future__ import annotations

import pytest
import torch

from ccl import planning
from ccl.cli.fit import resolve
from ccl.cli.planned import Planned
from ccl.grid import Grid
from ccl.types import OPEN
from helpers.plans import PAPER, argv


@pytest.fixture(scope="session")
def paper() -> Planned:
    config = resolve(argv(*PAPER))
    return Planned(config, Grid(**config["grid"]))


@pytest.fixture(scope="session")
def sizes(paper: Planned) -> dict[str, planning.Size]:
    with torch.device("meta"):
        return planning.parameters(paper.make(paper.layers), paper.text())


@pytest.fixture(scope="session")
def forward(paper: Planned) -> planning.Table:
    return planning.forward_flops(paper.make, paper.layers, paper.grid, OPEN)
