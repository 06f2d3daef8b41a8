"""Contracts put to the parts that ship: a test for each YAML and clause, found by looking."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ccl.cli.check import class_of, inlined
from ccl.cli.errors import read_yaml
from ccl.cli.parts import build
from ccl.contracts import Clause, Kind, kind_of, outcome, words
from helpers import ROOT


def every(folder: str) -> pytest.MarkDecorator:
    """Parametrises (part, clause) over all YAML files of a folder of configs and the clauses of their kind."""
    rows = [
        pytest.param(file, clause, id=f"{file.stem}-{words(clause).replace(' ', '-')}")
        for file in sorted((ROOT / "configs" / folder).glob("*.yaml"))
        for clause in kind_in(file).clauses
    ]
    return pytest.mark.parametrize(("part", "clause"), rows)


@cache
def cls_of(file: Path) -> type:
    return class_of(read_yaml(file))


def kind_in(file: Path) -> Kind:
    kind = kind_of(cls_of(file))
    assert kind is not None, f"{file} names no part of a kind that has a contract"
    return kind


@cache
def subject(file: Path) -> Any:
    """What the clauses are put to, made once for all of them."""
    kind = kind_in(file)
    return kind.subject(build(kind.made, inlined(read_yaml(file), file), str(file)))


def hold(part: Path, clause: Clause) -> None:
    """AssertionError, with what was seen, where the part does not keep the clause."""
    came = outcome(clause, subject(part))
    assert came.state == "ok", came.said
