"""The command, and what the guide prints of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ccl import cli
from ccl.cli.errors import UsageError
from helpers import ROOT
from helpers.plans import PAPER, argv


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def call(*args: str) -> list[list[str]]:
        assert cli.main(["plan", *args]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    yield call


@pytest.mark.parametrize(("stage", "begins"), [(PAPER, "Parameters"), ((*PAPER, "audio.yaml"), "Training")])
def test_the_guide_prints_what_the_command_does(
    stage: tuple[str, ...], begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *argv(*stage), "--gpus", "8", "32", "64"]) == 0
    guide, said = (ROOT / "docs" / "training.md").read_text(), capsys.readouterr().out
    assert f"```text\n{said[said.index(begins) :]}```" in guide


def test_every_plan_of_the_guide_is_a_stack_that_resolves() -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    shell = dict(re.findall(r'^(DATA|STAGE1|STAGE2)="(.*)"$', guide, flags=re.M))
    lines = re.findall(r"^ccl (?:plan|fit) (.*)$", guide, flags=re.M)
    assert len(lines) >= 8
    for line in lines:
        while "$" in line:
            line = re.sub(r"\$(\w+)", lambda found: shell[found[1]], line)
        files = re.findall(r"--config (\S+)", line)
        assert files[0] == "configs/joint.yaml" and all((ROOT / file).is_file() for file in files), line


@pytest.mark.slow
def test_the_command_says_what_adapters_leave_to_train(said: Any) -> None:
    lines = said(*argv("trainer/lora.yaml"), "--gpus", "1")
    parts = {line[0]: " ".join(line[1:]) for line in lines[: lines.index([])]}
    assert parts["video"].endswith("frozen") and parts["text"].endswith("frozen")
    assert "frozen" not in parts["adapters"] and "frozen" not in parts["A2V"]


def test_the_command_prints_minutes_a_clip(said: Any) -> None:
    lines = said(*argv(), "--generate", "--mfu", "0.1")
    assert any(line[:3] == ["minutes", "a", "clip"] for line in lines)


def test_the_command_is_clear_about_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan"]) == 2
    assert "it needs a config" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--mfu", "2"]) == 2
    assert "--mfu is 2; it must be a number above 0 and 1 at most" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--trainer.max_step", "2"]) == 2
    assert "there is no option '--trainer.max_step'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="4k"):
        cli.run(["plan", *argv(), "--grid.frames", "78"])
