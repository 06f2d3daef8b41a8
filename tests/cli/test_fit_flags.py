"""Every number of a training, and its names, against what none of them can mean: told before anything is built."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ccl import cli
from ccl.callbacks import Monitor, Preview, SaveCheckpoint
from ccl.cli.errors import UsageError
from ccl.cli.fit import FitCLI
from ccl.cli.planned import devices_of
from ccl.cli.trainer import NUMBERS, named_devices
from ccl.data.datamodule import NUMBERS as OF_DATA
from ccl.data.datamodule import ShardData
from ccl.flow import LogitNormal, UniformTime
from ccl.grid import Grid
from ccl.training.optimizer import OptimizerConfig
from helpers import ROOT

JOINT = str(ROOT / "configs" / "joint.yaml")
HUGE = 10**12
DEVICES = ("nan", math.inf, "", "0", 0, -2, "1.5", HUGE, str(HUGE), [], [0, 0], [-1], "x,y", ",", None)
HOSTILE: dict[str, tuple[Any, ...]] = {
    **{
        f"trainer.{key}": (fits.least - 2 if fits.least == 0 else 0, -3, HUGE, math.nan)
        for key, fits in NUMBERS.items()
    },
    **{f"data.init_args.{key}": (least - 1, 10**20, None, math.nan, 1.5) for key, (least, _) in OF_DATA.items()},
    **{f"model.optimizer.{key}": (-1.0, math.nan, math.inf) for key in ("lr", "lr_cross", "eps", "weight_decay")},
    "model.optimizer.final": (-0.1, 1.1, math.nan),
    "model.optimizer.warmup_steps": (-1, HUGE),
    "model.optimizer.decay_steps": (-1, 0, HUGE),
    "model.optimizer.betas": ((math.nan, 0.5), (1.0, 0.9), (0.9, -1.0)),
    "trainer.devices": DEVICES,
    "trainer.val_check_interval": (0, 0.0),
    "trainer.limit_train_batches": (0, 0.0),
    "checkpoint_every": (0, -1, HUGE),
    "preview_every": (0, -1, HUGE),
    "seed_everything": (-1, 2**32),
    "grid.fps": (0.0, math.nan, math.inf),
    "grid.frames": (0, -3, 2),
    "name": ("", ".", "..", "a/b", "../x", "x" * 300, "a\0b", "a\nb", "\udcff", " "),
    "runs_dir": ("", "a\0b", "x" * 300, "\ud800", "FILE", "FILE/runs"),
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> FitCLI:
    return FitCLI(["--config", JOINT, "--runs_dir", str(tmp_path_factory.mktemp("runs"))], build=False)


@pytest.mark.parametrize("key", HOSTILE)
def test_no_key_of_a_training_takes_what_means_nothing(key: str, parsed: FitCLI, tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    right = parsed.config[key]
    parsed.check()
    for value in HOSTILE[key]:
        parsed.config[key] = value.replace("FILE", str(tmp_path / "FILE")) if key == "runs_dir" else value
        try:
            with pytest.raises(UsageError) as caught:
                parsed.check()
        finally:
            parsed.config[key] = right
        said = str(caught.value)
        assert key.rpartition(".")[2] in said and "\n" not in said and len(said) < 500, (value, said)


@pytest.mark.parametrize("verb", ["fit", "plan"])
@pytest.mark.parametrize(
    ("flag", "value"),
    [("trainer.devices", "nan"), ("trainer.max_steps", "0"), ("data.init_args.batch_size", "-1"), ("name", "../x")],
)
def test_fit_and_plan_refuse_it_alike_and_leave_nothing(
    verb: str,
    flag: str,
    value: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the command line, and in a file."""
    monkeypatch.chdir(tmp_path)
    *above, last = flag.split(".")
    Path("own.yaml").write_text(
        "{" + "".join(f"{key}: {{" for key in above) + f"{last}: '{value}'" + "}" * (len(above) + 1)
    )
    if value.lstrip("-").isdigit():
        Path("own.yaml").write_text(Path("own.yaml").read_text().replace("'", ""))
    for more in ([f"--{flag}={value}"], ["--config", "own.yaml"]):
        assert cli.main([verb, "--config", JOINT, *more]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and last in said and "CCL_DEBUG" not in said, said
        assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


def test_a_plan_counts_devices_as_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    spelled = {3: (3, "3", " 3 ", [0, 2, 5], "0,2,5", "0, 2, 5,"), 8: ("auto", -1, "-1"), 1: (1, [7], "7,")}
    for count, spellings in spelled.items():
        assert [devices_of(x) for x in spellings] == [count] * len(spellings)
    for wrong in DEVICES:
        with pytest.raises(ValueError, match=r"^trainer\.devices is "):
            named_devices(wrong)


def test_constructors_name_the_number_that_they_cannot_take(tmp_path: Path) -> None:
    for make, name in (
        (lambda: SaveCheckpoint(every=HUGE), "every"),
        (lambda: SaveCheckpoint(keep=0), "keep"),
        (lambda: SaveCheckpoint(milestone=-1), "milestone"),
        (lambda: Preview(every=0), "every"),
        (lambda: Preview(steps=HUGE), "steps"),
        (lambda: Preview(shift=math.nan), "shift"),
        (lambda: Monitor(every=-1), "every"),
        (lambda: LogitNormal(shift=0.0), "shift"),
        (lambda: LogitNormal(std=-1.0), "std"),
        (lambda: UniformTime(shift=math.inf), "shift"),
        (lambda: OptimizerConfig(lr=math.nan), "lr"),
        (lambda: ShardData(str(tmp_path), Grid(), batch_size=-1), "batch_size"),
        (lambda: ShardData(str(tmp_path), Grid(), num_workers=10**6), "num_workers"),
        (lambda: ShardData(str(tmp_path), Grid(), shuffle=-1), "shuffle"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is .*; it must be"):
            make()


def test_a_folder_without_shards_is_told_with_file_and_line_before_the_run_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("data:\n  class_path: ccl.data.ShardData\n  init_args:\n    shards: None\n")
    assert cli.main(["fit", "--config", JOINT, "--config", "own.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ccl: data.init_args.shards in own.yaml, line 4: None holds no index.json; ")
    assert said.endswith("; null, not None, stands for nothing in YAML\n")
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.parametrize("verb", ["fit", "plan"])
def test_a_group_of_keys_that_is_null_is_told_with_file_and_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.yaml").write_text("sampling: 3\n")
    (tmp_path / "cut.yaml").write_text("name: x\ntrainer:\n")
    joint = str(ROOT / "configs/joint.yaml")
    assert cli.main([verb, "--config", joint, "--config", str(tmp_path / "cut.yaml")]) == 2
    assert f"trainer in {tmp_path / 'cut.yaml'}, line 2 is null" in capsys.readouterr().err
    assert cli.main([verb, "--config", joint, "--config", str(tmp_path / "odd.yaml")]) == 2
    assert "sampling" in (said := capsys.readouterr().err) and "3" in said and "traceback" not in said
    (tmp_path / "list.yaml").write_text("trainer: [[]]\n")
    flag = ["--trainer.max_steps", "2"]  # which makes a group of it again
    assert cli.main([verb, "--config", joint, "--config", str(tmp_path / "list.yaml"), *flag]) == 2
    said = f"trainer in {tmp_path / 'list.yaml'}, line 1 is [[]]; leave it out, or give it keys"
    assert said in capsys.readouterr().err


def test_a_callback_that_stands_twice_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twice.yaml").write_text(
        "trainer: {callbacks: [{class_path: ccl.callbacks.TaskRouter}, {class_path: ccl.callbacks.TaskRouter}]}\n"
    )
    argv = ["fit", "--config", JOINT, "--config", str(tmp_path / "twice.yaml"), "--runs_dir", str(tmp_path / "runs")]
    assert cli.main(argv) == 2
    assert "ccl: trainer.callbacks hold TaskRouter more than once" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
