"""Tests that read a part of a config once a process read what is read anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, Namespace

from ccl.cli.errors import UsageError
from ccl.cli.fit import resolve
from ccl.cli.parts import build
from ccl.guidance import Guidance
from helpers import ROOT, parsed

FILES = ("model/wan14b.yaml", "data/shards.yaml", "trainer/stage2.yaml", "trainer/fsdp.yaml")
GIVEN = {"class_path": "ccl.guidance.UCG2", "init_args": {"scale": {"video": 2.0, "audio": 3.0}}}


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """jsonargparse as it is to a user, until it is undone."""
    for name in ("parse_object", "dump"):
        monkeypatch.setattr(ArgumentParser, name, getattr(ArgumentParser, name).__wrapped__)
    return monkeypatch


def test_a_stack_of_configs_is_what_it_is_read_anew(anew: pytest.MonkeyPatch) -> None:
    argv = [arg for file in ("joint.yaml", *FILES) for arg in ("--config", str(ROOT / "configs" / file))]
    argv += ["--checkpoint_every", "7", "--model.net.init_args.interaction.init_args.num_context_video", "3"]
    users = resolve(argv)
    anew.undo()
    assert resolve(argv) == users == resolve(argv)


def test_what_was_read_is_given_as_a_copy_and_what_is_wrong_is_wrong_again() -> None:
    reads: list[str] = []

    def read(self: Any, obj: dict[str, Any]) -> Namespace:
        reads.append(str(obj))
        if "wrong" in obj:
            raise ValueError("wrong")
        return Namespace(inner=Namespace(obj), numbers=[1])

    once, parser = parsed.remembered(read), ArgumentParser()
    once(parser, {"a": 1}), once(parser, {"a": 1})
    assert len(reads) == 2  # a parser of no class's arguments, which may be gone tomorrow, and another in its place
    parser._inner_parser = True
    first = once(parser, {"a": 1})
    first.inner.a, first.numbers[0] = 5, 5
    second = once(parser, {"a": 1})
    assert (second.inner.a, second.numbers, len(reads)) == (1, [1], 3)
    once(parser, {"a": True})  # which equals 1
    for obj in ({"a": "x/y"}, {"a": "own.yaml"}, {"a": object()}, {"a": {"class_path": "mine.Rule"}}):
        once(parser, obj), once(parser, obj)
    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            once(parser, {"wrong": 1})
    assert len(reads) == 3 + 1 + 4 * 2 + 2


def test_a_part_that_was_right_does_not_hide_a_wrong_one() -> None:
    for _ in range(2):
        assert build(Guidance, GIVEN, "x").scale.audio == 3.0
        with pytest.raises(UsageError, match="x: "):
            build(Guidance, GIVEN | {"init_args": {"scale": {"video": "loud", "audio": 3.0}}}, "x")


def test_a_class_that_is_written_anew_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("strength", "force"):
        monkeypatch.delitem(sys.modules, "mine_again", raising=False)
        (tmp_path / "mine_again.py").write_text(
            f"from ccl.guidance import NoGuidance\nclass Rule(NoGuidance):\n"
            f"    def __init__(self, {name}: float = 1.0) -> None:\n        self.given = {name}\n"
        )
        node = {"class_path": "mine_again.Rule", "init_args": {name: 2.0}}
        assert build(Guidance, node, "x").given == 2.0
