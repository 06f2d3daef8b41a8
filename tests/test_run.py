"""The run folder, and checkpoints that are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ccl.checkpoint import (
    AtomicCheckpointIO,
    CheckpointError,
    finish,
    is_complete,
    last_checkpoint,
    load_checkpoint,
    sweep_checkpoints,
)
from ccl.files import replacing, write_whole
from ccl.run import RunError, RunFolder

CONFIG: dict[str, Any] = {
    "name": "a",
    "seed_everything": 0,
    "model": {"optimizer": {"lr": 1e-4, "schedule": "constant", "decay_steps": None}},
    "data": {"init_args": {"batch_size": 4, "num_workers": 0}},
    "trainer": {
        "max_steps": 10,
        "callbacks": [
            {"class_path": "ccl.callbacks.EMA", "init_args": {"decay": 0.9}},
            {"class_path": "ccl.callbacks.SaveCheckpoint", "init_args": {"every": 5}},
        ],
    },
}


def changed(**leaves: Any) -> dict[str, Any]:
    """CONFIG with dotted leaves replaced ('/' for '.')."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in leaves.items():
        node = config
        *parents, last = key.split("__")
        for part in parents:
            node = node[int(part)] if part.isdigit() else node[part]
        node[last] = value
    return config


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has begun and saved step 5."""
    run = RunFolder("a", tmp_path)
    assert run.open(CONFIG) is None
    save(run.checkpoints, 5)
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(folder: Path, step: int, state: Any = None) -> Path:
    path = folder / f"step={step:06d}.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"x": torch.ones(3)}} if state is None else state, path)
    finish(path)
    return path


def test_a_run_begins_with_its_config_and_facts(run: RunFolder) -> None:
    assert yaml.safe_load(run.config.read_text()) == CONFIG
    start = json.loads((run.path / "run.json").read_text())["starts"][0]
    assert start["seed"] == 0 and start["versions"]["torch"] and set(start) >= {"commit", "dirty", "from"}


def test_a_taken_name_is_refused_with_both_ways_out(run: RunFolder) -> None:
    with pytest.raises(RunError, match="is taken: resume it with --ckpt_path last, or choose another --name"):
        run.open(CONFIG)


def test_resuming_finds_the_last_checkpoint_and_notes_the_start(run: RunFolder) -> None:
    save(run.checkpoints, 10)
    assert run.open(CONFIG, "last") == str(run.checkpoints.resolve() / "step=000010.ckpt")
    assert [start["from"] for start in json.loads((run.path / "run.json").read_text())["starts"]] == [
        None,
        "step=000010.ckpt",
    ]


def test_resuming_what_was_never_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .* to resume from"):
        RunFolder("new", tmp_path).open(CONFIG, "last")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nothing\.ckpt"):
        RunFolder("new", tmp_path).open(CONFIG, str(tmp_path / "nothing.ckpt"))


def test_resuming_with_another_config_names_what_differs(run: RunFolder) -> None:
    other = changed(model__optimizer__lr=1e-3, data__init_args__num_workers=2)
    with pytest.raises(RunError, match=r"lr was 0.0001 and is 0.001; .*num_workers was 0 and is 2; choose"):
        run.open(other, "last")
    with pytest.raises(RunError, match=r"trainer.callbacks.EMA.init_args.decay was 0.9 and is 0.8"):
        run.open(changed(trainer__callbacks__0__init_args={"decay": 0.8}), "last")
    assert yaml.safe_load(run.config.read_text()) == CONFIG


def test_a_resumed_run_may_be_longer_and_save_more_often(run: RunFolder) -> None:
    longer = changed(trainer__max_steps=20, trainer__callbacks__1__init_args={"every": 2})
    assert run.open(longer, "last") is not None
    assert yaml.safe_load(run.config.read_text()) == longer


def test_a_cosine_that_ends_with_the_run_fixes_its_length(tmp_path: Path) -> None:
    run = RunFolder("b", tmp_path)
    run.open(changed(model__optimizer__schedule="cosine"))
    save(run.checkpoints, 5)
    with pytest.raises(RunError, match=r"trainer.max_steps was 10 and is 20"):
        run.open(changed(model__optimizer__schedule="cosine", trainer__max_steps=20), "last")


def test_a_codec_that_changed_since_training_is_refused(tmp_path: Path) -> None:
    run = RunFolder("c", tmp_path)
    run.open(CONFIG, codec="basis-1")
    save(run.checkpoints, 5)
    for start in ("last", str(run.checkpoints / "last.ckpt")):
        with pytest.raises(RunError, match=r"was trained with the codec basis-1, and this config gives basis-2, "):
            run.open(CONFIG, start, codec="basis-2")
    with pytest.raises(RunError, match=r"trained with the codec basis-1"):  # nor under another name
        RunFolder("d", tmp_path).open(CONFIG, str(run.checkpoints / "last.ckpt"), codec="basis-2")
    assert run.open(CONFIG, "last", codec="basis-1") is not None


@pytest.mark.parametrize("name", ["", "a/b", ".."])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="must be a plain folder name"):
        RunFolder(name, tmp_path)


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    assert RunFolder("a", tmp_path).open(CONFIG) is None
    assert not (tmp_path / "a").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(InterruptedError), replacing(path) as file:
        file.write(b"half")
        raise InterruptedError
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_half_written_checkpoint_is_swept_and_never_picked_up(run: RunFolder) -> None:
    (run.checkpoints / ".partial-1-step=000010.ckpt").write_bytes(b"half")
    sharded = run.checkpoints / "step=000010.ckpt"
    sharded.mkdir()
    (sharded / "__0_0.distcp").write_bytes(b"half")
    assert last_checkpoint(run.checkpoints).name == "step=000005.ckpt"
    with pytest.raises(CheckpointError, match="was never finished"):
        run.open(CONFIG, str(sharded))
    sweep_checkpoints(run.checkpoints)
    assert names(run.checkpoints) == ["last.ckpt", "step=000005.ckpt"]


def test_a_sharded_checkpoint_counts_once_it_is_marked(tmp_path: Path) -> None:
    sharded = tmp_path / "step=000010.ckpt"
    sharded.mkdir()
    assert not is_complete(sharded)
    finish(sharded)
    assert last_checkpoint(tmp_path) == sharded.resolve()


def test_the_checkpoint_written_last_is_the_last_one(tmp_path: Path) -> None:
    save(tmp_path, 30)
    save(tmp_path, 20)  # after going back
    assert last_checkpoint(tmp_path).name == "step=000020.ckpt"
    (tmp_path / "last.ckpt").unlink()
    assert last_checkpoint(tmp_path).name == "step=000030.ckpt"


@pytest.mark.parametrize("size", [0, 100, -10])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, size: int) -> None:
    path = save(tmp_path, 5)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"step=000005.ckpt is damaged or no checkpoint"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, 5, {"state_dict": {}, "x": Evil()})
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "evil").exists()
