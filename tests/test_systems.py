"""docs/systems.md is what its script makes, and its table of rules is what happens."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest

from ccl.contracts.guidance import sampled
from helpers import ROOT

INTERACTIONS = sorted(file.stem for file in (ROOT / "configs" / "interaction").glob("*.yaml"))
AGAIN = "python docs/systems.py writes it anew"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("systems", ROOT / "docs" / "systems.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_systems_has_every_interaction_in_words_and_with_every_rule(script: ModuleType) -> None:
    written = script.PAGE.read_text()
    assert script.prose() in written and script.matrix() in written, AGAIN
    shown = {one["interaction"] for one in script.systems().values()}
    variants = {name for name in INTERACTIONS if name.endswith("_embedded")}  # of one that is shown
    assert shown | variants == set(INTERACTIONS)
    assert shown <= json.loads((ROOT / "docs" / "systems.json").read_text())["ratio"].keys(), "benchmarks/systems.py"


@pytest.mark.slow
def test_the_page_of_systems_is_what_its_script_makes(script: ModuleType) -> None:
    assert script.page() == script.PAGE.read_text(), AGAIN


@pytest.mark.slow
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_clips_are_sampled_by_every_rule_that_the_page_does_not_refuse(script: ModuleType, interaction: str) -> None:
    nets: dict[int, Any] = {}
    for name, rule in script.rules().items():
        works, said = script.told(interaction, rule)
        if not works:
            assert said
            continue
        if (blocks := script.deepest(rule)) not in nets:
            nets[blocks] = script.made(interaction, blocks).network().eval()
        velocity = sampled(nets[blocks], rule)
        assert all(z.isfinite().all() and z.any() for z in velocity), name
