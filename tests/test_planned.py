"""A plan's clips a step are those that `ccl fit` trains on, for every stack of the documents and every spelling."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

from ccl import cli, plan
from ccl.cli.errors import UsageError
from ccl.cli.gpus import GPUS, gpu_of
from ccl.cli.plan import memory_of, planned_of, remedies, sizes_of, verdict
from ccl.cli.planned import Planned, devices_of
from ccl.grid import Grid

ROOT = Path(__file__).parent.parent
HERE = 8  # GPUs of the machine that is pretended


def stacks() -> list[str]:
    """The options of every `ccl fit` and `ccl plan` of the documents and of every trainer config.

    Once each, without what has no part in a step's clips: names, weights, folders, the interaction.
    """
    found = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text().replace("\\\n", " ")
        shell = dict(re.findall(r'^(\w+)="(.*)"$', text, flags=re.M))
        for line in re.findall(r"^(?:srun )?ccl (?:plan|fit) (.*)$", text, flags=re.M):
            while "$" in line and re.search(r"\$(\w+)", line):
                line = re.sub(r"\$(\w+)", lambda name, shell=shell: shell[name[1]], line)
            line = re.sub(r" #.*| --(gpus( \d+)+|generate)", "", line)
            line = re.sub(r" --(gpu|name|ckpt_path|model\.\S+|\S+\.shards) \S+", "", line)
            found.append(" ".join(line.split()))
    whole = "--config configs/joint.yaml"
    found += [f"{whole} --config {p.relative_to(ROOT)}" for p in sorted((ROOT / "configs" / "trainer").glob("*.yaml"))]
    return list(dict.fromkeys(found))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight GPUs, as far as Lightning and the plan look."""
    for place in ("lightning.fabric.accelerators.cuda", "lightning.pytorch.accelerators.cuda"):
        monkeypatch.setattr(f"{place}.num_cuda_devices", lambda: HERE)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: HERE)
    monkeypatch.chdir(ROOT)


def trainer(config: dict[str, Any]) -> lightning.Trainer:
    """Lightning's own, of a resolved config."""
    strategy = config["strategy"]
    if isinstance(strategy, dict):
        module, _, name = strategy["class_path"].rpartition(".")
        strategy = getattr(import_module(module), name)(**strategy.get("init_args", {}))
    taken = {key: config[key] for key in ("accelerator", "devices", "num_nodes", "accumulate_grad_batches")}
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return lightning.Trainer(**taken, strategy=strategy, **off)


@pytest.mark.parametrize("stack", stacks())
def test_a_plan_counts_the_clips_of_a_step_as_fit_does(machine: None, stack: str) -> None:
    planned = planned_of(shlex.split(stack))
    made = trainer(planned.config["trainer"])
    batch = planned.config["data"]["init_args"].get("batch_size") or 1
    assert planned.global_batch == batch * made.world_size * made.accumulate_grad_batches


@pytest.mark.parametrize("devices", [8, "8", " 2", "auto", -1, "-1", [0, 1], "0,1", "0,", "0, 3, 5"])
def test_devices_are_counted_as_lightning_counts_them(machine: None, devices: Any) -> None:
    config = {
        "strategy": "auto",
        "accelerator": "gpu",
        "devices": devices,
        "num_nodes": 1,
        "accumulate_grad_batches": 1,
    }
    assert devices_of(devices, "gpu") == trainer(config).num_devices


def test_one_machine_of_eight_is_320_clips_a_step(machine: None) -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    line = next(line for line in guide.splitlines() if "--trainer.num_nodes 1" in line)
    stack = next(stack for stack in stacks() if stack.endswith(line.split("$STAGE2 ")[1]))
    planned = planned_of(shlex.split(stack))
    assert (planned.processes, planned.accumulated, planned.global_batch) == (8, 40, 320)


def planned_with(**trainer: Any) -> Planned:
    usual = {"accelerator": "gpu", "devices": 8, "num_nodes": 1, "accumulate_grad_batches": 1, "strategy": "auto"}
    data = {"class_path": "x", "init_args": {"batch_size": 1}}
    return Planned({"trainer": {**usual, **trainer}, "data": data, "model": {}}, Grid())


@pytest.mark.parametrize(
    "sizes", [{}, {"data_parallel_size": 64, "tensor_parallel_size": 1}, {"data_parallel_size": 8}]
)
def test_processes_that_do_not_suit_the_strategy_are_refused(sizes: dict[str, int]) -> None:
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy", "init_args": sizes}
    with pytest.raises(UsageError, match=r"--trainer\.strategy\.init_args\.data_parallel_size 8 "):
        planned_with(strategy=strategy).check()
    right = {"data_parallel_size": 8, "tensor_parallel_size": 1}
    planned_with(strategy={**strategy, "init_args": right}).check()


@pytest.mark.parametrize("name", ["4090", "RTX 4090", "rtx-4090", "A100-40GB", "a100", "H100", "NVIDIA H200"])
def test_gpus_are_known_by_their_names(name: str) -> None:
    assert gpu_of(name) in GPUS.values()


def test_a_gpu_that_is_not_known_says_which_are() -> None:
    with pytest.raises(UsageError, match="there is no '4091', did you mean '4090'"):
        gpu_of("4091")


@pytest.mark.parametrize(
    "argv",
    [["--gpus", "0"], ["--gpus", "-3"], ["--gpus", "9" * 30], ["--mfu", "nan"], ["--mfu", "0"], ["--memory", "nan"],
     ["--memory", "-1"], ["--tflops", "inf"], ["--gpu", ""]],
)  # fmt: skip
def test_figures_that_mean_nothing_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--config", str(ROOT / "configs" / "joint.yaml"), *argv]) == 2
    assert f"{argv[0]} " in capsys.readouterr().err.replace(":", " ")


class Args:
    """Options of the command."""

    def __init__(self, memory: float) -> None:
        self.memory = memory


SMALL = ["--config", str(ROOT / "configs" / "joint.yaml"), "--data.init_args.batch_size", "4"]


def need(argv: list[str], gpus: int = 1) -> float:
    """Bytes of a GPU, by the functions of a plan, without its lines."""
    planned = planned_of(argv)
    sizes, ends, text = sizes_of(planned)
    peak = plan.activations(
        planned.make, planned.layers, planned.grid, batch=planned.batch, text=text.length, bf16=planned.bf16,
        checkpointing=planned.checkpointing,
    )  # fmt: skip
    return memory_of(planned, sizes, ends, peak, gpus=gpus).total


def holds(planned: Planned) -> None:
    """The verdict a little below and a little above what it needs."""
    whole = need(SMALL)
    (said,) = verdict(planned, Args(whole / 1e9 * 0.99), {1: whole}, SMALL)
    assert said.startswith("Does not fit on 1 x ")
    flags = re.search(r"try (.*): ", said)[1].split()  # type: ignore[index]
    assert need([*SMALL, *flags]) <= 0.99 * whole
    assert planned_of([*SMALL, *flags]).global_batch == planned.global_batch
    assert verdict(planned, Args(whole / 1e9 * 1.01), {1: whole}, SMALL)[0].startswith("Fits on 1 x ")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Activations that are not followed, a GB a clip or half of it; the batch sizes they were asked for."""
    asked: list[int] = []

    def activations(*args: Any, batch: int, checkpointing: bool, **rest: Any) -> int:
        asked.append(batch)
        return batch * 10**9 // (1 + checkpointing)

    monkeypatch.setattr(plan, "activations", activations)
    return asked


def test_the_verdict_names_flags_with_which_it_fits(quick: list[int]) -> None:
    holds(planned_of(SMALL))


@pytest.mark.slow
def test_the_verdict_names_flags_with_which_a_followed_step_fits() -> None:
    holds(planned_of(SMALL))


def test_a_network_is_followed_once_for_all_numbers_of_gpus(quick: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccl.cli.plan.remedies", lambda planned, gpus: remedies(planned, gpus)[:1])
    said = verdict(planned_of(SMALL), Args(1e-6), {1: 1e9, 2: 1e9, 4: 1e9}, SMALL)
    assert len(said) == 3 and all("no flags" in line for line in said)
    assert len(quick) == 1


def test_the_disk_is_that_of_latents_as_they_are_encoded() -> None:
    planned = planned_of(SMALL)
    from ccl.codecs import EmbeddedAudio, EmbeddedVideo

    grid = planned.grid
    video = EmbeddedVideo().encode(torch.zeros(1, 3, grid.frames, grid.height, grid.width))
    audio = EmbeddedAudio().encode(torch.zeros(1, grid.samples), grid.t_a)
    assert planned.stored_bytes()[0] == video.bfloat16().nbytes + audio.bfloat16().nbytes
