"""Two processes learn what one does, whole (DDP), sharded (FSDP2), or with each clip split over both (Ulysses)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ccl import cli
from ccl.files import FileError
from ccl.media import read_clip
from ccl.storage.sharded_checkpoint import read_sharded
from helpers.fakes import GRID, WIDE, make_net, make_shards, make_text
from helpers.mixed import make_mixed
from helpers.trainings import assert_same_losses, differences, losses, train_all

KINDS = {"cca": {"steps": 8}, "gate": {"steps": 8}, "cca, a task a clip": {"steps": 3, "per": "sample"}}
# Whose blocks share a number, and layers; which has a loss of its own; a path that no clip takes.
OTHERS = {"mova": {"steps": 2}, "ltx2": {"steps": 2}, "uniavgen": {"steps": 2}, "harmony": {"steps": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: a process takes seconds to find how to shard each operation, so as few as can be make the sharded ones.

    4 clips on one process or 2 on each of two: each clip draws the same noise, whoever has it. DDP would raise where a
    task leaves a parameter unused.
    """
    folder = tmp_path_factory.mktemp("trainings")
    fsdp = {"size": 2, "ranks": 2, "strategy": "fsdp"}
    alone: list[dict[str, Any]] = []
    together: list[dict[str, Any]] = []
    sharded: list[dict[str, Any]] = []
    for kind, own in (KINDS | OTHERS).items():
        one = {"interaction": kind.partition(",")[0], "save": None, **own}
        alone.append(one | {"folder": str(folder / kind), "size": 4})
        if kind in KINDS:
            together.append(one | {"folder": str(folder / f"{kind}-ddp"), "size": 2, "ranks": 2, "strategy": "ddp"})
        if kind != "gate":
            more = {"preview": kind == "cca", "save": 100 if kind in OTHERS else None}
            sharded.append(one | fsdp | more | {"folder": str(folder / f"{kind}-fsdp")})
    quota = {"both": 2, "video": 1, "audio": 1}
    mixed = {
        "shards": str(make_mixed(folder / "data", 8, 4, 4)),
        "quota": quota,
        "accumulate": 4,
        "steps": 2,
        "save": None,
    }
    unused = mixed | {"size": 2, "ranks": 2, "strategy": "ddp_find_unused_parameters_true"}
    together.append(unused | {"folder": str(folder / "mixed-ddp")})
    sharded.append(mixed | fsdp | {"folder": str(folder / "mixed-fsdp")})
    common = {"shards": str(make_shards(folder)), **fsdp, "steps": 5, "layers": 1}
    killed = common | {"folder": str(folder / "killed")}
    first = [common | {"folder": str(folder / "whole")}, killed | {"kill": 4}]
    # The second process alone is sent a signal, and both stop after that step, which is saved.
    then = [killed | {"stop": 4, "ckpt_path": "last"}, killed | {"ckpt_path": "last"}]
    train_all(folder, alone, together, sharded + first, then)
    return folder


@pytest.mark.timeout(400)
def test_two_processes_learn_what_one_does_for_every_task_and_interaction(folder: Path) -> None:
    assert {row["task"] for row in losses(folder / "cca")} == {"single", "a2v", "v2a", "joint"}
    assert {row["task"] for row in losses(folder / "cca, a task a clip")} == {"mixed"}
    for kind in KINDS:
        assert_same_losses(folder / f"{kind}-ddp", folder / kind)
    for kind in (KINDS | OTHERS).keys() - {"gate"}:
        assert_same_losses(folder / f"{kind}-fsdp", folder / kind)
    assert all((folder / f"{kind}-fsdp/checkpoints/last.ckpt/complete").is_file() for kind in OTHERS)
    assert {row["task"] for row in losses(folder / "mixed-ddp")} >= {"single_video", "single_audio"}
    assert_same_losses(folder / "mixed-fsdp", folder / "mixed-ddp")  # of clips that leave a stream without gradients
    assert (folder / "cca-fsdp/previews/step_000008/0.mp4").is_file()  # sampled from gathered weights


@pytest.mark.timeout(400)
def test_a_sharded_run_resumes_to_the_last_bit_and_is_gathered_into_one_file_that_makes_clips(folder: Path) -> None:
    starts = json.loads((folder / "killed/run.json").read_text())["starts"]
    assert [start["from"] for start in starts] == [None, "step=000003.ckpt", "step=000004.ckpt"]
    assert losses(folder / "whole") == losses(folder / "killed")
    folders = [folder / name / "checkpoints" / "last.ckpt" for name in ("whole", "killed")]
    assert all((path / "complete").is_file() for path in folders)
    assert_same_shards(*folders)

    # Each file's sum stands in the marker, and a flipped bit of one is told before anything is made of it.
    parts_written = {path.name for path in folders[1].iterdir()} - {"complete"}
    checked = subprocess.run(
        ["sha256sum", "-c", "complete"], cwd=folders[1], capture_output=True, text=True, check=True
    )
    assert {line.removesuffix(": OK") for line in checked.stdout.splitlines()} == parts_written
    part = folders[1] / "__1_0.distcp"
    whole = part.read_bytes()
    part.write_bytes(whole[:-40] + bytes([whole[-40] ^ 4]) + whole[-39:])
    with pytest.raises(FileError, match=r"__1_0.distcp is damaged: its bytes are not those"):
        read_sharded(folders[1].resolve())
    part.write_bytes(whole[:100])
    (folders[1] / "complete").write_text("")  # as before there were sums
    with pytest.raises(FileError, match=r"cannot be read as a sharded checkpoint"):
        read_sharded(folders[1].resolve())
    part.write_bytes(whole)

    # What was trained by two becomes one file, the same from either, and clips.
    for name in ("whole", "killed"):
        argv = ["export", str(folder / name), "-o", str(folder / f"{name}-model"), "--dtype", "float32"]
        assert cli.main([*argv, "--trust", "helpers"]) == 0
    weights, others = (load_file(folder / f"{name}-model/model.safetensors") for name in ("whole", "killed"))
    assert weights.keys() == {f"{part}.{k}" for part, net in parts().items() for k in net.state_dict()}
    assert differences(weights, others) == []
    averages = read_sharded(folders[0].resolve())
    assert all(torch.equal(value, averages.get(f"ema.{name}")) for name, value in weights.items())
    prompts = ["--prompt", 'a man says "word 1"', "--device", "cpu", "--trust", "helpers"]
    made = ["-o", str(folder / "clip.mp4")]
    assert cli.main(["generate", "--ckpt", str(folder / "killed-model"), *prompts, *made]) == 0
    clip = read_clip(folder / "clip.mp4")
    assert clip.video.shape == (GRID.frames, GRID.height, GRID.width, 3) and len(clip.audio) == GRID.samples


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sharded_run_of_adapters_whose_clips_are_split_learns_what_one_process_does_and_resumes(
    tmp_path: Path,
) -> None:
    shards = str(make_shards(tmp_path, grid=WIDE))
    common = {"shards": shards, "size": 2, "steps": 6, "lora": True, "wide": True}
    split = common | {"ranks": 2, "context": 2, "strategy": "fsdp"}
    killed = split | {"folder": str(tmp_path / "killed")}
    each = common | {"per": "sample", "save": None}
    each_split = split | {"per": "sample", "save": None, "folder": str(tmp_path / "each-split")}
    train_all(
        tmp_path,
        [common | {"folder": str(tmp_path / "one")}, each | {"folder": str(tmp_path / "each")}],
        [split | {"folder": str(tmp_path / "split")}, each_split, killed | {"kill": 4}],
        [killed | {"ckpt_path": "last"}],
        timeout=800,
    )
    assert len(losses(tmp_path / "one")) == 6
    assert_same_losses(tmp_path / "split", tmp_path / "one")
    assert_same_losses(tmp_path / "each-split", tmp_path / "each")  # tasks are drawn for a clip, not for a process
    starts = json.loads((tmp_path / "killed/run.json").read_text())["starts"]
    assert [start["from"] for start in starts] == [None, "step=000003.ckpt"]
    assert losses(tmp_path / "killed") == losses(tmp_path / "split")
    assert_same_shards(*(tmp_path / name / "checkpoints/last.ckpt" for name in ("killed", "split")))
    # Its export is whole, and knows nothing of how it was trained.
    argv = ["export", str(tmp_path / "killed"), "-o", str(tmp_path / "model"), "--dtype", "float32"]
    assert cli.main([*argv, "--trust", "helpers"]) == 0
    made = ["-o", str(tmp_path / "clip.mp4"), "--device", "cpu", "--trust", "helpers"]
    assert cli.main(["generate", "--ckpt", str(tmp_path / "model"), "--prompt", "a bell", *made]) == 0


def parts() -> dict[str, torch.nn.Module]:
    return {"net": make_net(layers=1), "text": make_text()}


def assert_same_shards(folder: Path, other: Path) -> None:
    """Weights, averages and moments of two sharded checkpoints are the same to the last bit."""
    states = []
    for path in (folder, other):
        dcp_to_torch_save(path.resolve(), path.resolve().with_suffix(".pt"))
        states.append(torch.load(path.resolve().with_suffix(".pt"), weights_only=True))
    assert any(key.startswith("ema.net.") for key in states[0]["state_dict"])
    assert differences(*states) == []
