"""A plan's clips a step are those that `ccl fit` trains on, for every stack of the documents and every spelling."""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

from ccl import cli, planning
from ccl.cli.costs import sampled
from ccl.cli.errors import UsageError
from ccl.cli.gpus import GPUS, gpu_of
from ccl.cli.planned import Needs, Planned, devices_of, not_here, planned_of
from ccl.cli.remedies import changed, remedies, sharded_over, verdict
from ccl.grid import Grid
from ccl.guidance import Guidance
from helpers import ROOT

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
            line = re.sub(r" --(gpu|measured|name|ckpt_path|model\.\S+|\S+\.shards) \S+", "", line)
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
    sharing = getattr(made.strategy, "_tensor_parallel_size", 1)  # that many read the same clips
    assert planned.global_batch == batch * made.world_size // sharing * made.accumulate_grad_batches


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


def test_processes_that_share_a_clip_count_once() -> None:
    strategy = {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}
    sizes = {"data_parallel_size": 8, "tensor_parallel_size": 2}
    with pytest.raises(
        UsageError, match=r"data_parallel_size 4 --trainer\.strategy\.init_args\.tensor_parallel_size 2"
    ):
        planned_with(strategy={**strategy, "init_args": sizes}).check()
    planned = planned_with(strategy={**strategy, "init_args": sizes | {"data_parallel_size": 4}})
    planned.check()
    assert (planned.processes, planned.context, planned.global_batch) == (8, 2, 4)


@pytest.mark.parametrize("name", ["4090", "RTX 4090", "rtx-4090", "A100-40GB", "a100", "H100", "NVIDIA H200"])
def test_gpus_are_known_by_their_names(name: str) -> None:
    assert gpu_of(name) in GPUS.values()


def test_a_gpu_that_is_not_known_says_which_are() -> None:
    with pytest.raises(UsageError, match=r"there is no '4091' \(did you mean '4090'"):
        gpu_of("4091")


@pytest.mark.parametrize(
    "argv",
    [["--gpus", "0"], ["--gpus", "-3"], ["--gpus", "9" * 30], ["--mfu", "nan"], ["--mfu", "0"], ["--memory", "nan"],
     ["--memory", "-1"], ["--tflops", "inf"], ["--gpu", ""]],
)  # fmt: skip
def test_figures_that_mean_nothing_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--config", str(ROOT / "configs" / "joint.yaml"), *argv]) == 2
    assert f"{argv[0]} " in capsys.readouterr().err.replace(":", " ")


FEW = ["--model.net.init_args.layers", "2"]
SMALL = ["--config", str(ROOT / "configs" / "joint.yaml"), "--data.init_args.batch_size", "4", *FEW]
LORA = ["--config", str(ROOT / "configs" / "joint.yaml"), "--config", str(ROOT / "configs/trainer/lora.yaml"), *FEW]


@cache
def of(*argv: str) -> Planned:
    return planned_of(list(argv))


def holds(argv: list[str], share: float, gpus: int = 1) -> list[str]:
    """The flags that a verdict names where a GPU holds `share` of what is needed, planned again here."""
    planned = of(*argv)
    whole = Needs().memory(planned, gpus).total / 1e9
    (said,) = map(str, verdict(planned, Needs(), [gpus], whole * share, argv, 0.1))
    found = re.fullmatch(rf"Does not fit on {gpus} x \S+ GB; try (.*): ([\d.]+) GB a GPU", said)
    assert found is not None, said
    other = of(*argv, *found[1].split())
    taken = Needs().memory(other, gpus).total / 1e9
    assert taken <= share * whole and float(found[2]) == pytest.approx(taken, abs=0.05)
    assert other.global_batch == planned.global_batch
    assert str(verdict(planned, Needs(), [gpus], whole * 1.01, argv, 0.1)[0]).startswith(f"Fits on {gpus} x ")
    return found[1].split()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Activations that are not followed, a GB a clip or a part of it; the batch sizes they were asked for."""
    asked: list[int] = []

    def activations(*args: Any, batch: int, checkpointing: Any, **rest: Any) -> int:
        asked.append(batch)
        return int(batch * 10**9 / {False: 1, "attention": 1.5, True: 2}[checkpointing])

    monkeypatch.setattr(planning, "activations", activations)
    return asked


AGAIN = ["--model.net.init_args.checkpointing", "true"]
ONE = ["--data.init_args.batch_size", "1", "--trainer.accumulate_grad_batches", "4", *AGAIN]
LEAST = ["--model.lora.rank", "8", "--model.net.init_args.interaction.init_args.own_projections", "false"]


@pytest.mark.parametrize(
    ("argv", "share", "gpus", "first"),
    [
        (SMALL, 0.9, 1, "--model.net.init_args.checkpointing attention"),
        (SMALL, 0.6, 1, "--model.net.init_args.checkpointing true"),
        (SMALL, 0.3, 1, "--data.init_args.batch_size 1 --trainer.accumulate_grad_batches 4"),
        ([*SMALL, *ONE], 0.97, 2, "--trainer.strategy"),
        ([*LORA, *AGAIN], 0.999, 1, "--model.lora.rank 8"),
        ([*LORA, *AGAIN, *LEAST], 0.999, 1, "--model.optimizer.bits 8"),
        ([*LORA, *AGAIN, *LEAST, "--model.optimizer.bits", "8"], 0.99, 1, "--trainer.precision bf16-true"),
    ],
    ids=["attention", "checkpointing", "batch", "sharded", "rank", "moments", "precision"],
)
def test_the_verdict_names_flags_with_which_it_fits(
    quick: list[int], machine: None, argv: list[str], share: float, gpus: int, first: str
) -> None:
    assert " ".join(holds(argv, share, gpus)).startswith(first)


def test_the_verdict_says_where_there_is_room_to_keep_attention(quick: list[int], machine: None) -> None:
    planned, needs = planned_of([*SMALL, *AGAIN]), Needs()
    kept = needs.memory(planned, 1, checkpointing="attention").total / 1e9
    (fits,) = map(str, verdict(planned, needs, [1], kept * 1.01, [*SMALL, *AGAIN], 0.2))
    assert fits.endswith(
        f"and with --model.net.init_args.checkpointing attention: {kept:.1f} GB a GPU, 20.0% less to compute"
    )
    (fits,) = map(str, verdict(planned, needs, [1], kept * 0.99, [*SMALL, *AGAIN], 0.2))
    assert fits == f"Fits on 1 x {kept * 0.99:g} GB"


@pytest.mark.slow
def test_the_verdict_names_flags_with_which_a_followed_step_fits() -> None:
    holds(SMALL, 0.99)


def test_more_gpus_are_named_where_no_flags_help_on_these(quick: list[int], machine: None) -> None:
    # Only its own 16 GPUs, of which 8 are a machine, hold this one.
    argv = [*SMALL, *ONE, "--model.freeze", "backbones", "--trainer.precision", "bf16-true"]
    argv += ["--trainer.accumulate_grad_batches", "16"]
    sixteen = Needs().memory(changed(of(*argv), sharded_over(16)), 16).total
    (said,) = map(str, verdict(of(*argv), Needs(), [2], sixteen * 1.0001 / 1e9, argv, 0.1))
    assert re.search(r"try 16 GPUs: --trainer\.strategy .* --trainer\.num_nodes 2 .*: 0\.\d GB a GPU", said), said


@pytest.mark.parametrize(("gpus", "nodes"), [(8, 1), (9, 3), (13, 13), (12, 2), (64, 8)])
def test_gpus_are_spread_over_machines_of_as_many_each(gpus: int, nodes: int) -> None:
    settings = sharded_over(gpus)
    assert settings["trainer.num_nodes"] == nodes and settings["trainer.devices"] * nodes == gpus


def test_a_rank_that_a_file_of_adapters_has_is_not_changed(tmp_path: Path) -> None:
    def asked(*argv: str) -> list[str]:
        return [key for change in remedies(of(*LORA, *argv), 1) for key in change]

    assert "model.lora.rank" in asked()
    assert "model.lora.rank" not in asked("--model.lora.start", "adapters.safetensors")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (SMALL, "model.quantize is int8, which keeps frozen weights in 8 bits, and here they train; give model.lora"),
        ([*LORA, "--trainer.callbacks+", "ccl.callbacks.EMA"], "model.quantize int8 goes with no EMA"),
        ([*LORA, "--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy"], "not with FSDP2"),
    ],
    ids=["trains", "average", "sharded"],
)
def test_eight_bits_are_planned_where_a_training_takes_them(machine: None, argv: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        planned_of([*argv, "--model.quantize", "int8"])
    planned_of([*LORA, "--model.quantize", "int8"])


def test_a_network_is_followed_once_for_all_numbers_of_gpus(quick: list[int]) -> None:
    said = verdict(of(*SMALL), Needs(), [1, 2, 4], 1e-6, SMALL, 0.1)
    assert len(said) == 3 and all("no flags" in str(one) for one in said)
    assert len(quick) == 1  # for their own needs; that the states alone are too large, no step has to tell


def test_sizes_that_no_network_has_are_told_by_their_part() -> None:
    for part, said in (("net", "layers is 1000000000; it"), ("text", "text layers is 1000000000; it")):
        with pytest.raises(UsageError, match=rf"^model\.{part}: {said} must be a whole number from 1 to 1,024$"):
            Needs().model(planned_of([*SMALL, f"--model.{part}.init_args.layers", str(10**9)]))


def test_a_plan_without_a_task_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.tasks has no task of a prob above 0"):
        _ = planned_of([*SMALL, "--model.tasks", "{}"]).tasks


def test_text_states_that_the_network_does_not_read_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.text has a dim of 64 and model\.net a text_dim of 128; "):
        Needs().model(planned_of([*SMALL, "--model.text.init_args.dim", "64"]))


def test_what_costs_the_same_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that differ in strength alone, and trainings of one network by other tasks."""
    planned, needs, followed = of(*SMALL), Needs(), []

    def clip(short: Any, size: Any, grid: Any, rule: Guidance, *_: Any, **__: Any) -> planning.Clip:
        followed.append(rule.called)
        return planning.Clip(0.0, 0.0, 0.0, 1.0, 1)

    monkeypatch.setattr(planning, "clip", clip)
    for rule, video, steps in (
        *(("UCG2", 3.0, 3), ("UCG2", 7.0, 3), ("UCGStatic", 3.0, 3), ("TextCFG", 3.0, 3), ("UCG2", 3.0, 4)),
        *(("UCG2", 2.0, 4), ("TextCFG", 5.0, 3)),
    ):
        node = {"class_path": f"ccl.guidance.{rule}", "init_args": {"scale": {"video": video, "audio": 3.0}}}
        config = planned.config | {"sampling": planned.config["sampling"] | {"guidance": node, "steps": steps}}
        sampled(Planned(config, planned.grid), needs)
    assert followed == ["ucg2", "ucg_static", "text_cfg", "ucg2"]
    model = planned.config["model"]
    other = planned.config | {"model": model | {"tasks": {"joint": model["tasks"]["joint"]}}}
    assert needs.model(planned) is needs.model(Planned(other, planned.grid))


def test_what_a_stack_lacks_of_its_system_is_read_of_its_head(tmp_path: Path) -> None:
    said = not_here(ROOT / "configs" / "model" / "mova.yaml")
    assert said.startswith("its second expert (one of Wan2.2-I2V-A14B's") and said.endswith("the weights of its bridge")
    assert not_here(ROOT / "configs" / "joint.yaml") == ""
    file = tmp_path / "own.yaml"
    file.write_text("# Mine. Not here: its 2.1 B\n# of weights. More.\ngrid: {} # Not here: a\n")
    assert not_here(file) == "its 2.1 B of weights"


def test_the_disk_is_that_of_latents_as_they_are_encoded() -> None:
    planned = of(*SMALL)
    from ccl.codecs import EmbeddedAudio, EmbeddedVideo

    grid = planned.grid
    video = EmbeddedVideo().encode(torch.zeros(1, 3, grid.frames, grid.height, grid.width))
    audio = EmbeddedAudio().encode(torch.zeros(1, grid.samples), grid.t_a)
    model = Needs().model(planned)
    assert planned.stored_bytes(model.short.net, model.text)[0] == video.bfloat16().nbytes + audio.bfloat16().nbytes
