"""The matrix of guidance rules: what it sweeps, and that each rule is itself on the model of its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccl.ablation.reading import read
from ccl.cli.parts import build
from ccl.guidance import Guidance, remark, rules
from ccl.types import OPEN
from helpers import ROOT

CLOSED_LEAVES = {"shipped": "context", "gate": "nothing"}


def test_every_named_rule_is_swept_and_is_itself_on_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "configs" / "ablation")
    matrix = read(Path("guidance.yaml"))
    swept = {row.name: build(Guidance, dict(row.guidance or {}), row.name) for row in matrix.rows}
    assert {rule.called for rule in swept.values()} >= set(rules())
    for row in matrix.rows:
        assert remark(swept[row.name], OPEN, CLOSED_LEAVES[row.run]) == ""
    for better, worse in matrix.compare:  # "ucg2-4" beside "text-4": rules of one strength
        if better.count("-") == worse.count("-") == 1:
            assert vars(swept[better])["scale"] == vars(swept[worse])["scale"]
