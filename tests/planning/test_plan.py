"""The command, and what the guide prints of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ccl import __version__, cli
from ccl.cli import costs
from ccl.cli.errors import UsageError
from ccl.tasks import PAPER_TASKS
from helpers import ROOT
from helpers.plans import GB, PAPER, argv


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def call(*args: str) -> list[list[str]]:
        assert cli.main(["plan", *args]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    yield call


TRAINING = (*argv(), "--gpus", "1", "3", "--memory", "12")
SAMPLING = (*argv("model/wan1_3b.yaml"), "--generate", "--gpus", "2", "5")
PLANNED: dict[str, Any] = {}  # each of these once


def once(name: str, make: Callable[..., Any], *args: Any) -> Any:
    if name not in PLANNED:
        PLANNED[name] = make(*args)
    return PLANNED[name]


@pytest.fixture
def both(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A plan in words, as JSON, and what the second says on stderr; steps are not followed, a GB a clip."""
    monkeypatch.setattr("ccl.planning.activations", lambda *args, batch, **how: batch * 10**9)
    for name in ("training", "sampling"):
        made = getattr(costs, name)
        monkeypatch.setattr(costs, name, partial(once, name, made))

    def call(*args: str) -> tuple[str, dict[str, Any], str]:
        assert cli.main(["plan", *args]) == 0
        words = capsys.readouterr().out
        assert cli.main(["plan", *args, "--json"]) == 0
        out, err = capsys.readouterr()
        return words, json.loads(out), err

    return call


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


def test_a_script_reads_the_numbers_that_a_plan_of_training_prints(both: Any) -> None:
    words, told, notes = both(*TRAINING)
    assert (told["ccl"], told["plan"]) == (__version__, "training")
    assert told["configs"] == argv()[1::2]
    table = [line.split() for line in words.splitlines() if re.match(r" +\d", line)]
    lines = ("weights", "gradients", "optimizer", "average", "gathered", "activations")
    for row, on in zip(table, told["on"], strict=True):
        sizes = [on["memory"][line] for line in lines]
        assert list(on["memory"]) == list(lines) and sum(sizes) == pytest.approx(on["total"])
        together = f"{on['total'] / GB:.1f}" + "!" * (on["total"] > 12 * GB)
        assert row[:8] == [str(on["gpus"]), *(f"{size / GB:.1f}" for size in sizes), together]
        assert row[9:12] == [f"{on['accumulate']:g}", f"{on['seconds']:.3g}", f"{on['clips_per_second']:.3g}"]
        assert row[12] == f"{on['hours'] / 24:.3g}"
    for part, size in told["parameters"].items():
        assert re.search(rf"^  {part} +{size['all'] / 1e6:.3f} M", words, flags=re.M), part
    for part, flops in told["flops"]["forward"].items():
        assert re.search(rf"^  {part} +{flops / 1e9:.2f} G", words, flags=re.M), part
    for one in told["checkpoints"]:
        assert f"{one['one'] / GB:.1f} GB a checkpoint, {one['kept']} kept and {one['milestones']}" in words
    said = [line for line in words.splitlines() if re.match("Fits|Does not fit", line)]
    for line, verdict in zip(said, told["verdicts"], strict=True):
        assert line.startswith("Fits") == verdict["fits"]
        assert f"{' '.join(verdict['advice']['flags'])}: {verdict['advice']['total'] / GB:.1f} GB" in line
    assert notes == "note: a global batch of 16 does not divide among 3 GPUs\n" and notes[6:] in words
    assert [on["divides"] for on in told["on"]] == [True, False]


def test_the_flops_of_tasks_have_the_mean_that_a_plan_prints(both: Any) -> None:
    words, told, _ = both(*TRAINING)
    flops = told["flops"]
    assert set(flops["tasks"]) == set(PAPER_TASKS)
    mean = sum(PAPER_TASKS[name].prob * each for name, each in flops["tasks"].items())
    assert flops["mean"] == pytest.approx(mean)
    assert f"mean over tasks       {mean / 1e9:9.2f} G; trained {flops['step'] / mean:.2f} times that" in words


def test_a_script_reads_the_numbers_that_a_plan_of_a_clip_prints(both: Any) -> None:
    words, told, notes = both(*SAMPLING)
    assert told["plan"] == "sampling" and told["fits"]
    for name, key in (("network in bfloat16", "network"), ("tokens, text, caches", "rest"), ("together", "total")):
        assert re.search(rf"^  {name} +{told[key] / GB:.1f} GB", words, flags=re.M)
    offloaded = told["offloaded"]
    assert f"{offloaded['memory'] / GB:.1f} GB; hidden where {offloaded['block'] / GB:.2g} GB a block" in words
    assert re.search(rf"minutes a clip +{told['seconds'] / 60:.2f}, {told['gpu']['speed']}", words)
    assert ", ".join(f"{on['clips_per_hour']:.0f} on {on['gpus']}" for on in told["on"]) in words
    assert notes == f"note: {words.splitlines()[-1]}\n" and f"{told['text_encoder'] / GB:.1f} GB" in notes


def test_the_guide_names_every_key_that_a_script_reads(both: Any) -> None:
    guide = (ROOT / "docs" / "training.md").read_text()

    def keys(told: Any) -> Iterator[str]:
        for key, value in told.items():
            yield key
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict) and key not in ("parameters", "forward", "tasks", "not_here"):
                    yield from keys(each)

    for plan in (TRAINING, SAMPLING):
        told = both(*plan)[1]
        assert [key for key in keys(told) if f"`{key}`" not in guide] == []


def test_the_command_is_clear_about_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan"]) == 2
    assert "it needs a config" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--mfu", "2"]) == 2
    assert "--mfu is 2; it must be a number above 0 and 1 at most" in capsys.readouterr().err
    assert cli.main(["plan", *argv(), "--trainer.max_step", "2"]) == 2
    assert "there is no option '--trainer.max_step'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="4k"):
        cli.run(["plan", *argv(), "--grid.frames", "78"])


def test_without_a_number_of_gpus_it_is_that_of_the_configs_processes(said: Any) -> None:
    for devices in ("1", "4"):
        lines = said(*argv(), "--trainer.devices", devices)
        (head,) = (number for number, line in enumerate(lines) if line[:1] == ["GPUs"])
        assert lines[head + 1][0] == devices and not lines[head + 2][0].isdigit()
