"""What `ccl bench` measures, and what it says of it."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccl import cli
from ccl.bench import subject
from ccl.bench.measure import here, peak_of, task_flops, work
from ccl.bench.result import lines, memory_rows, summary
from ccl.bench.sampled import sample
from ccl.bench.timed import PARTS, Gauge, attends
from ccl.callbacks import EMA
from ccl.cli.errors import UsageError
from ccl.cli.plan import measured
from ccl.cli.planned import Needs, Planned, planned_of
from helpers import ROOT
from helpers.plans import argv

MB = 1e6


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("bench") / "small.yaml"
    file.write_text(
        "grid: {frames: 9, height: 16, width: 16}\n"
        "model: {net: {init_args: {video: {width: 64, ffn: 64}, audio: {width: 32, ffn: 32}, layers: 3}}}\n"
        "data: {init_args: {batch_size: 2}}\n"
    )
    return [*argv(), "--config", str(file)]


@pytest.fixture(scope="module")
def benched(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of the command, of two of three blocks."""
    out = tmp_path_factory.mktemp("bench") / "found.json"
    assert cli.main(["bench", *small, "--steps", "3", "--layers", "2", "-o", str(out)]) == 0
    return json.loads(out.read_text())


def test_a_step_is_told_by_its_parts_and_what_it_did(benched: dict[str, Any]) -> None:
    mode = benched["modes"]["eager"]
    steps = mode["each"][-3:]
    assert mode["steps"] == 3 and len(mode["each"]) == 5 and set(mode["seconds"]) == set(PARTS)
    whole = sum(step[part] for step in steps for part in PARTS)
    assert mode["clips_per_second"] == pytest.approx(2 * 3 / whole)
    assert 0 < mode["mfu"] < 1 and sum(mode["tasks"].values()) == 3
    work = sum(benched["flops"][name] * share * 2 for step in steps for name, share in step["tasks"].items())
    assert mode["flops_per_second"] == pytest.approx(work / whole)
    assert any(attends(kernel["name"]) for kernel in mode["kernels"])


def test_what_is_not_measured_is_extrapolated_by_its_flops_and_marked(
    benched: dict[str, Any], small: list[str]
) -> None:
    assert benched["slice"] == {"layers": 2, "of": 3}
    mode = benched["modes"]["eager"]
    whole = task_flops(planned_of(small), Needs())
    ratio = sum(whole[name] * n for name, n in mode["tasks"].items()) / sum(
        benched["flops"][name] * n for name, n in mode["tasks"].items()
    )
    assert 1.3 < ratio < 1.6  # a third block, and what is outside the blocks stays
    assert mode["whole"]["seconds_a_step"] == pytest.approx(mode["seconds_a_step"] * ratio)
    said = "\n".join(lines(benched))
    assert "2 of 3 blocks" in said and f"~{mode['whole']['seconds_a_step']:.3g}" in said
    assert "SaveCheckpoint" in said  # what is left out is told


def test_a_measurement_says_how_fast_its_fastest_mode_was(benched: dict[str, Any], tmp_path: Path) -> None:
    eager = benched["modes"]["eager"]
    faster = {**eager, "flops_per_second": 2 * eager["flops_per_second"]}
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({**benched, "modes": {"eager": eager, "compile": faster}}))
    words, tera = measured(file, generate=False)
    assert tera == pytest.approx(2 * eager["flops_per_second"] / 1e12) and words.endswith(", compile")


@pytest.mark.slow
def test_a_measurement_plans(benched: dict[str, Any], small: list[str], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(benched))
    assert cli.main(["plan", *small, "--gpus", "1", "--measured", str(file)]) == 0
    said = capsys.readouterr().out
    words, tera = measured(file, generate=False)
    assert words in said
    clips = float(said[said.index("GPUs  weights") :].splitlines()[1].split()[11])
    work = (
        tera * 1e12 / clips
    )  # FLOPs of a clip, the mean over tasks: those of three blocks, of which two were measured
    two = list(benched["flops"].values())
    assert 1.2 * min(two) < work < 1.6 * max(two)


def test_a_measurement_of_another_kind_is_refused(benched: dict[str, Any], small: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(benched))
    with pytest.raises(ValueError, match="was made by `ccl bench` without --generate"):
        measured(file, generate=True)
    file.write_text("[1]")
    with pytest.raises(ValueError, match="is not what `ccl bench -o` writes"):
        measured(file, generate=False)
    file.write_text(json.dumps({**benched, "modes": {"eager": {"error": "out of memory"}}}))
    with pytest.raises(ValueError, match="no mode that was measured"):
        measured(file, generate=False)
    file.write_text(json.dumps({**benched, "format": 99}))
    with pytest.raises(ValueError, match="is of format 99"):
        measured(file, generate=False)


class OwnAverage(EMA):
    """As a user may have it."""


def test_a_callback_of_a_kind_that_holds_memory_stays_whatever_its_name(small: list[str]) -> None:
    planned = planned_of(small)
    planned.config["trainer"]["callbacks"].append({"class_path": f"{__name__}.OwnAverage", "init_args": {}})
    found = subject.subject(planned, Needs(), layers=1, devices=1, steps=1)
    names = [callback["class_path"].rpartition(".")[2] for callback in found.config["trainer"]["callbacks"]]
    assert names == ["TaskRouter", "EMA", "OwnAverage"]


def test_the_evaluations_of_a_clip_are_timed_one_by_one(small: list[str], tmp_path: Path) -> None:
    measured = subject.subject(planned_of(small), Needs(), layers=2, devices=1, steps=1)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(measured.config))
    found = sample({"config": str(file), "steps": 3, "memory": True})
    assert len(found["seconds"]) == 3 and all(x > 0 for x in found["seconds"])
    assert found["memory"]["peak"] >= found["memory"]["built"] >= 0


@pytest.mark.slow
def test_a_clip_is_measured_evaluation_by_evaluation(small: list[str], tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "found.json"
    assert cli.main(["bench", *small, "--generate", "--steps", "2", "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    mode = found["modes"]["eager"]
    assert found["slice"] is None and mode["evaluations"] == 30
    assert mode["seconds_a_clip"] == pytest.approx(30 * mode["seconds_an_evaluation"])
    assert cli.main(["plan", *small, "--generate", "--gpus", "1", "--measured", str(out)]) == 0
    minutes = next(line for line in capsys.readouterr().out.splitlines() if "minutes a clip" in line)
    assert "measured on" in minutes


def test_what_there_is_not_is_refused(small: list[str], capsys: Any) -> None:
    assert cli.main(["bench", *small, "--layers", "9"]) == 2
    assert "--layers is 9, and the network has 3" in capsys.readouterr().err
    assert cli.main(["bench", *small, "--modes", "fast"]) == 2
    assert "--modes has 'fast'; there are eager, compile" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "error"), [("one\\ntwo\\n", "two"), ("", "its process ended with status 3")])
def test_a_worker_that_fails_says_why(
    said: str, error: str, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    assert work(planned_of(small)) == {"error": error}


def test_as_many_blocks_are_kept_as_memory_holds(small: list[str]) -> None:
    planned, needs = planned_of(small), Needs()

    def total(one: Planned) -> float:
        return float(one.config["model"]["net"]["init_args"]["layers"])

    assert [subject.fitting(planned, needs, room, total) for room in (1.0, 2.5, 9.0)] == [1, 2, 3]
    with pytest.raises(UsageError, match="not even one of 3 blocks fits"):
        subject.fitting(planned, needs, 0.5, total)


STACKS = sorted(p.name for p in (ROOT / "configs" / "model").glob("*.yaml"))
OFTEN = ("wan1_3b.yaml", "ovi.yaml", "ltx2.yaml")  # one kind of network each


@pytest.mark.parametrize("stack", [pytest.param(x, marks=[pytest.mark.slow][x in OFTEN :]) for x in STACKS])
def test_each_stack_of_the_papers_sizes_can_be_measured_in_part(stack: str) -> None:
    """Of two blocks it builds, without weights, and needs no file."""
    planned, needs = here(planned_of(argv(f"model/{stack}"))), Needs()
    one = subject.subject(planned, needs, layers=2, devices=1, steps=3)
    with torch.device("meta"):
        net = one.make()
    assert len(net.blocks) == 2 and one.config["model"]["pretrained"] is None
    assert "wan2.1" not in json.dumps([one.config["codec"], one.config["model"]])


def test_memory_is_told_by_what_it_is_for() -> None:
    planned = {"weights": 4.0, "average": 4.0, "gradients": 4.0, "optimizer": 8.0, "gathered": 2.0, "activations": 6.0}
    rows = memory_rows({"built": 8, "kept": 21, "peak": 30}, planned)
    assert [(name, said, found) for name, said, found in rows] == [
        ("weights, average", 8.0, 8),
        ("gradients, AdamW", 12.0, 13),
        ("a step's activations", 8.0, 9),
        ("all", 28.0, 30),
    ]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells a process of its memory")
def test_the_gauge_sees_what_a_process_holds_and_held() -> None:
    gauge = Gauge(torch.device("cpu"))
    with mmap.mmap(-1, int(100 * MB)) as some:  # no tensor: earlier tests may have left the allocator room for one
        for _ in range(100):
            some.write(bytes(int(MB)))
        held = gauge.now()
    assert held == pytest.approx(100 * MB, abs=10 * MB) and gauge.peak() == pytest.approx(100 * MB, abs=12 * MB)
    assert abs(gauge.now()) < 20 * MB


def test_seconds_that_warm_up_are_not_counted() -> None:
    step = {"data": 0.0, "forward": 1.0, "backward": 2.0, "update": 1.0, "tasks": {"joint": 1.0}}
    slow = {**step, "forward": 50.0}
    found = {"steps": [slow, slow, step, step], "processes": 2}
    one = summary(found, {"joint": 8.0}, batch=3, peak=60.0, warm=2)
    assert one["seconds_a_step"] == 4 and one["first_step"] == 53 and one["clips_per_second"] == 1.5
    assert one["flops_per_second"] == 6 and one["mfu"] == 0.1


@pytest.mark.parametrize(
    ("name", "tera"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H200", 989)],
)
def test_a_gpu_is_known_by_its_own_name(name: str, tera: float) -> None:
    peak, _ = peak_of({"products": None, "device": {"name": name}}, None)
    assert peak == tera * 1e12


def test_a_gpu_without_a_sheet_has_no_share_of_its_peak() -> None:
    peak, words = peak_of({"products": None, "device": {"name": "NVIDIA GB999"}}, None)
    assert peak is None and "give --tflops" in words
    assert peak_of({"products": None, "device": {"name": "NVIDIA GB999"}}, 2.0) == (2e12, "--tflops")
