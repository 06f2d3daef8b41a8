"""Two processes learn what one does, whole (DDP) or sharded (FSDP2)."""

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
from helpers.fakes import GRID, make_net, make_shards, make_text
from helpers.trainings import assert_same_losses, differences, losses, train_all


@pytest.mark.timeout(300)
def test_two_processes_learn_what_one_does_for_every_task_and_interaction(tmp_path: Path) -> None:
    # 4 clips on one process or 2 on each of two: each clip draws the same noise, whoever has it. DDP would raise where
    # a task leaves a parameter unused.
    alone: list[dict[str, Any]] = []
    together: list[dict[str, Any]] = []
    kinds = {"cca": {"steps": 8}, "gate": {"steps": 8}, "cca, a task a clip": {"steps": 3, "per": "sample"}}
    for kind, more in kinds.items():
        common = {"interaction": kind.partition(",")[0], "save": 100, **more}
        alone.append(common | {"folder": str(tmp_path / kind), "size": 4})
        together.append(common | {"folder": str(tmp_path / f"{kind}-ddp"), "size": 2, "ranks": 2, "strategy": "ddp"})
    for kind in ("mova", "ltx2", "uniavgen"):  # whose blocks share a number, and layers; which has a loss of its own
        alone.append({"interaction": kind, "save": 100, "steps": 2, "size": 4, "folder": str(tmp_path / kind)})
    fsdp = {"size": 2, "ranks": 2, "strategy": "fsdp"}
    sharded = [{**one, "folder": f"{one['folder']}-fsdp", **fsdp} for one in alone[2:]]
    sharded.append({**alone[0], "folder": f"{alone[0]['folder']}-fsdp", **fsdp, "preview": True})
    train_all(tmp_path, alone, together, sharded)
    assert {row["task"] for row in losses(tmp_path / "cca")} == {"single", "a2v", "v2a", "joint"}
    for kind in kinds:
        assert_same_losses(tmp_path / f"{kind}-ddp", tmp_path / kind)
    assert {row["task"] for row in losses(tmp_path / "cca, a task a clip")} == {"mixed"}
    for kind in ("cca", "cca, a task a clip", "mova", "ltx2", "uniavgen"):
        assert_same_losses(tmp_path / f"{kind}-fsdp", tmp_path / kind)
    assert (tmp_path / "cca-fsdp/previews/step_000008/0.mp4").is_file()  # sampled from gathered weights


@pytest.mark.timeout(300)
def test_a_sharded_run_resumes_to_the_last_bit_and_is_gathered_into_one_file_that_makes_clips(tmp_path: Path) -> None:
    common = {"shards": str(make_shards(tmp_path)), "ranks": 2, "strategy": "fsdp", "size": 2, "steps": 5, "layers": 1}
    killed = common | {"folder": str(tmp_path / "killed")}
    first = [common | {"folder": str(tmp_path / "whole")}, killed | {"kill": 4}]
    # The second process alone is sent a signal, and both stop after that step, which is saved.
    then = [killed | {"stop": 4, "ckpt_path": "last"}, killed | {"ckpt_path": "last"}]
    train_all(tmp_path, first, then)
    starts = json.loads((tmp_path / "killed/run.json").read_text())["starts"]
    assert [start["from"] for start in starts] == [None, "step=000003.ckpt", "step=000004.ckpt"]
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    folders = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "killed")]
    assert all((folder / "complete").is_file() for folder in folders)
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
        argv = ["export", str(tmp_path / name), "-o", str(tmp_path / f"{name}-model"), "--dtype", "float32"]
        assert cli.main([*argv, "--trust", "helpers"]) == 0
    weights, others = (load_file(tmp_path / f"{name}-model/model.safetensors") for name in ("whole", "killed"))
    assert weights.keys() == {f"{part}.{k}" for part, net in parts().items() for k in net.state_dict()}
    assert differences(weights, others) == []
    averages = read_sharded(folders[0].resolve())
    assert all(torch.equal(value, averages.get(f"ema.{name}")) for name, value in weights.items())
    prompts = ["--prompt", 'a man says "word 1"', "--device", "cpu", "--trust", "helpers"]
    made = ["-o", str(tmp_path / "clip.mp4")]
    assert cli.main(["generate", "--ckpt", str(tmp_path / "killed-model"), *prompts, *made]) == 0
    clip = read_clip(tmp_path / "clip.mp4")
    assert clip.video.shape == (GRID.frames, GRID.height, GRID.width, 3) and len(clip.audio) == GRID.samples


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
