"""The paper's network, followed once for all tests of a process."""

from __future__ import annotations

import pytest

from ccl import planning
from ccl.cli.fit import resolve
from ccl.cli.planned import Model, Needs, Planned
from ccl.grid import Grid
from helpers.plans import PAPER, argv


@pytest.fixture(scope="session")
def paper() -> Planned:
    config = resolve(argv(*PAPER))
    return Planned(config, Grid(**config["grid"]))


@pytest.fixture(scope="session")
def model(paper: Planned) -> Model:
    return Needs().model(paper)


@pytest.fixture(scope="session")
def sizes(model: Model) -> dict[str, planning.Size]:
    return model.sizes


@pytest.fixture(scope="session")
def forward(paper: Planned, model: Model) -> planning.Table:
    return planning.forward_flops(model.short, paper.grid)
