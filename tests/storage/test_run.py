"""The run folder, and checkpoints that are whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ccl.files import FileError
from ccl.storage import run as run_module
from ccl.storage.checkpoint import (
    AtomicCheckpointIO,
    CheckpointError,
    finish,
    is_complete,
    last_checkpoint,
    load_checkpoint,
    sweep_checkpoints,
)
from ccl.storage.run import RunError, RunFolder
from helpers.forked import holding

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


def test_a_start_tells_changes_of_the_package_and_none_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*args: str) -> None:
        me = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *me, *args], check=True, capture_output=True)

    package = tmp_path / "src" / "mine"
    (package / "storage").mkdir(parents=True)
    for path in (file := package / "storage" / "run.py", package / "new.py", tmp_path / "README.md"):
        path.write_text("a\n")
    monkeypatch.setattr(run_module, "__file__", str(file))
    assert run_module.commit() == {"commit": None, "dirty": None}  # no checkout
    git("init", "-q")
    git("add", file, "README.md")
    git("commit", "-qm", "a")
    assert run_module.commit()["dirty"]  # a file of the package that no commit knows
    git("add", ".")
    git("commit", "-qm", "b")
    for path in (tmp_path / "README.md", tmp_path / "notes.txt", tmp_path / "src" / "other.py"):
        path.write_text("b\n")
    assert len(run_module.commit()["commit"]) == 40 and not run_module.commit()["dirty"]
    (package / "new.py").write_text("b\n")
    assert run_module.commit()["dirty"]


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


def test_going_on_with_what_was_never_saved_begins_and_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nothing\.ckpt"):
        RunFolder("new", tmp_path).open(CONFIG, str(tmp_path / "nothing.ckpt"))
    assert names(tmp_path) == []
    for _ in range(2):  # a cluster's script gives one command each time
        assert RunFolder("new", tmp_path).open(CONFIG, "last") is None


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["checkpoints/", "tensorboard/"],  # between folders and config
        ["checkpoints/.partial-host-1-ab-step=000005.ckpt", ".partial-host-1-ab-config.yaml"],
        ["checkpoints/step=000005.ckpt/__0_0.distcp", "config.yaml"],  # in the midst of the first sharded one
        ["config.yaml", "run.json"],
        ["config.yaml", "run.json", "losses.jsonl", "previews/step_000002/.partial-host-1-ab-0.mp4"],
    ],
)
def test_a_run_killed_before_its_first_checkpoint_begins_anew_without_leftovers(
    tmp_path: Path, left: list[str]
) -> None:
    run = RunFolder("a", tmp_path)
    for name in left:
        path = run.path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            content = {"config.yaml": yaml.safe_dump(CONFIG), "run.json": '{"starts": []}'}.get(name, "half")
            path.write_text(content)
    begun = "losses.jsonl" in left
    if begun or "__0_0" in str(left):
        with pytest.raises(RunError, match=r"is taken: .* --ckpt_path last"):
            run.open(CONFIG)
    else:
        assert run.open(CONFIG) is None
    assert run.open(CONFIG, "last") is None
    assert run.open(CONFIG, "last") is None
    assert not list(run.path.rglob(".partial-*")) and names(run.checkpoints) == []
    if begun:
        with pytest.raises(RunError, match=r"lr was 0.0001 and is 0.1; set that back, or choose another --name"):
            run.open(changed(model__optimizer__lr=0.1), "last")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").touch()
    for start in (None, "last"):
        with pytest.raises(RunError, match=r"is taken: it holds thesis.tex and is no run"):
            RunFolder("a", tmp_path).open(CONFIG, start)


def test_one_run_at_a_time_in_a_folder_and_a_kill_lets_the_next_one_in(run: RunFolder) -> None:
    half = run.checkpoints / ".partial-host-1-ab-step=000010.ckpt"
    with holding(run.writing) as other:
        half.write_bytes(b"being written")
        for start in (None, "last"):
            with pytest.raises(FileError, match=r"is being written by another process .*choose another --name"):
                run.open(CONFIG, start)
        assert half.exists()
        other.kill()
    assert run.open(CONFIG, "last") is not None
    assert not half.exists()


def test_going_back_makes_that_checkpoint_the_last_one(run: RunFolder) -> None:
    save(run.checkpoints, 10)
    assert run.open(CONFIG, str(run.checkpoints / "step=000005.ckpt")) is not None
    # Killed before its next checkpoint, it goes on from there, and not from what it had turned its back on.
    assert run.open(CONFIG, "last") == str(run.checkpoints.resolve() / "step=000005.ckpt")
    other = RunFolder("b", run.path.parent)
    assert other.open(CONFIG, str(run.checkpoints / "step=000010.ckpt")) is not None
    assert names(other.checkpoints) == []
    assert run.start("last") == run.checkpoints.resolve() / "step=000005.ckpt"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "[]"),
        ("run.json", '{"starts": 3}'),
        ("run.json", '{"starts": [4]}'),
        ("run.json", '{"starts": [{"codec": ["a"]}]}'),
        ("run.json", '{"starts": [{"data": ["a"]}]}'),
        ("run.json", '{"starts": [{"data": {"a": 3}}]}'),
        ("run.json", '{"starts": [{"pretrained": {"a": 3}}]}'),
        ("run.json", "{"),
        ("run.json", b"\xff"),
        ("config.yaml", "[1, 2"),
        ("config.yaml", "- 1"),
        ("config.yaml", b"\xe9"),
    ],
)
def test_a_run_whose_facts_are_damaged_names_the_file(run: RunFolder, name: str, content: str | bytes) -> None:
    path = run.path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(
        FileError,
        match=rf"{name}(, line \d)? (cannot be read as the facts of a run \(|is not YAML|is not UTF-8|holds no keys)",
    ):
        run.open(CONFIG, "last")


def test_what_changes_the_last_bits_is_told(run: RunFolder) -> None:
    record = run.path / "run.json"
    assert run.open(CONFIG, "last") and run.changed == ()
    facts = json.loads(record.read_text())
    facts["starts"][-1]["threads"] += 1
    facts["starts"][-1]["versions"]["torch"] = "1.0"
    record.write_text(json.dumps(facts))
    assert run.open(CONFIG, "last")
    threads = torch.get_num_threads()
    assert run.changed[0] == f"{threads} threads, not {threads + 1}" and run.changed[1].endswith(", not 1.0")


def test_resuming_with_another_config_names_what_differs(run: RunFolder) -> None:
    other = changed(model__optimizer__lr=1e-3, data__init_args__num_workers=2)
    with pytest.raises(RunError, match=r"lr was 0.0001 and is 0.001; .*num_workers was 0 and is 2; set that back, or"):
        run.open(other, "last")
    with pytest.raises(RunError, match=r"trainer.callbacks.EMA.init_args.decay was 0.9 and is 0.8"):
        run.open(changed(trainer__callbacks__0__init_args={"decay": 0.8}), "last")
    assert yaml.safe_load(run.config.read_text()) == CONFIG


def test_a_run_of_an_older_version_goes_on_as_another_and_its_old_key_is_told(run: RunFolder, tmp_path: Path) -> None:
    old = changed(model__image_prob=0.5)
    run.config.write_text(yaml.safe_dump(old))
    sentence = (
        r"made by an older version: the key model.image_prob is of .*--name OTHER --ckpt_path .*step=000005.ckpt$"
    )
    with pytest.raises(RunError, match=sentence):
        run.open(CONFIG, "last")
    assert yaml.safe_load(run.config.read_text()) == old
    other = RunFolder("b", tmp_path)
    assert other.open(CONFIG, str(run.checkpoints / "step=000005.ckpt")) is not None


def test_a_resumed_run_may_be_longer_and_save_more_often(run: RunFolder) -> None:
    longer = changed(trainer__max_steps=20, trainer__callbacks__1__init_args={"every": 2})
    assert run.open(longer, "last") is not None
    assert yaml.safe_load(run.config.read_text()) == longer


def test_a_cosine_that_ends_with_the_run_fixes_its_length(tmp_path: Path) -> None:
    run = RunFolder("b", tmp_path)
    run.open(changed(model__optimizer__schedule="cosine"))
    save(run.checkpoints, 5)
    longer = {"model__optimizer__schedule": "cosine", "trainer__max_steps": 20}
    with pytest.raises(RunError, match=r"decay_steps was 10 and is 20; .* --name OTHER --ckpt_path .*step=000005.ckpt"):
        run.open(changed(**longer), "last")
    # The same curve, said in so many words.
    assert run.open(changed(**longer, model__optimizer__decay_steps=10), "last") is not None


def test_a_codec_that_changed_since_training_is_refused(tmp_path: Path) -> None:
    run = RunFolder("c", tmp_path)
    run.open(CONFIG, codec="basis-1")
    save(run.checkpoints, 5)
    for start in ("last", str(run.checkpoints / "last.ckpt")):
        with pytest.raises(
            RunError, match=r"was trained with the codec basis-1, as .*run.json says, and this config gives basis-2, "
        ):
            run.open(CONFIG, start, codec="basis-2")
    with pytest.raises(RunError, match=r"trained with the codec basis-1"):  # nor under another name
        RunFolder("d", tmp_path).open(CONFIG, str(run.checkpoints / "last.ckpt"), codec="basis-2")
    assert run.open(CONFIG, "last", codec="basis-1") is not None


def test_other_clips_in_the_folder_of_a_run_are_refused_with_what_to_do(run: RunFolder) -> None:
    data = {"data/clips": "a" * 64, "data/val": "b" * 64}
    assert run.open(CONFIG, "last", data=data)  # its first start knew of none: those of a world that was not made yet
    for folder in data:
        other = data | {folder: "c" * 64}
        with pytest.raises(
            RunError, match=rf"clips in {folder} are not those that run a was .*--model.pretrained \S+5.ckpt"
        ):
            run.open(CONFIG, "last", data=other)
    assert run.open(CONFIG, "last", data=data) and run.open(CONFIG, "last")
    assert json.loads(run.record.read_text())["starts"][1]["data"] == data


def test_a_run_that_has_saved_nothing_begins_with_what_clips_there_are(tmp_path: Path) -> None:
    run = RunFolder("a", tmp_path)
    run.open(CONFIG, data={"data/clips": "a" * 64})
    assert run.open(CONFIG, "last", data={"data/clips": "b" * 64}) is None


@pytest.mark.parametrize("name", ["", "a/b", ".."])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="must be a plain folder name"):
        RunFolder(name, tmp_path)


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    assert RunFolder("a", tmp_path).open(CONFIG) is None
    assert not (tmp_path / "a").exists()


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
    with pytest.raises(CheckpointError, match=r"step=000005.ckpt (cannot be read as a checkpoint|is damaged)"):
        load_checkpoint(path)


def test_any_flipped_bit_of_a_checkpoint_is_told_and_whatever_a_parser_raises_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    assert torch.equal(load_checkpoint(path)["state_dict"]["x"], torch.ones(3))
    unsealed = whole[:-73] + bytes(2)  # as checkpoints were before they had sums
    for sealed in (True, False):
        for place in rng.integers(0, len(unsealed), 150):
            data = bytearray(whole if sealed else unsealed)
            data[place] ^= 1 << rng.integers(8)
            path.write_bytes(data)
            try:
                load_checkpoint(path)
                assert not sealed, f"bit flipped at {place}"
            except CheckpointError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
    path.write_bytes(unsealed)
    assert torch.equal(load_checkpoint(path)["state_dict"]["x"], torch.ones(3))


@pytest.mark.parametrize(
    "content", [{"state_dict": 3}, {"state_dict": {"x": 3}}, {"state_dict": {3: torch.ones(1)}}, []]
)
def test_a_file_of_something_else_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "step=000005.ckpt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"step=000005.ckpt cannot be read as a checkpoint \(its? "):
        load_checkpoint(path)


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"no checkpoint that a training can go on from: it holds no batches"):
        AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize(("key", "value"), [("loops", 3), ("callbacks", "x")])
def test_a_checkpoint_whose_parts_are_of_another_type_is_damaged(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "step=000005.ckpt"
    parts = {"batches": 1, "epoch": 0, "global_step": 5, "loops": {}, "lr_schedulers": [], "optimizer_states": []}
    torch.save({"state_dict": {"x": torch.ones(1)}, "callbacks": {}, **parts, key: value}, path)
    with pytest.raises(CheckpointError, match=rf"step=000005.ckpt is damaged: its {key} are a {type(value).__name__}"):
        AtomicCheckpointIO().load_checkpoint(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, 5, {"state_dict": {}, "x": Evil()})
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "evil").exists()
