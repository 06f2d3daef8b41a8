"""What a user gets wrong is one sentence that names it, before the work where that can be; nothing is overwritten."""

from __future__ import annotations

import errno
import io
import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter, save

from ccl import cli
from ccl.cli.encoders import configured
from ccl.cli.errors import UsageError, no_keys
from ccl.data.index import read_index
from ccl.data.write import write_shards
from ccl.storage.checkpoint import AtomicCheckpointIO, CheckpointError, verify
from ccl.storage.model_folder import read_source, save_model
from ccl.storage.sharded_checkpoint import IndexUnpickler, read_sharded
from ccl.tasks import Given
from helpers.fakes import make_module
from helpers.tiny import run_folder, tiny_config, tiny_state
from helpers.tiny_clips import TINY, tiny_folder, tiny_sources


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "model"
    save_model(folder, tiny_config(), tiny_state())
    return folder


def told(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str]:
    """Exit status and the one line on stderr."""
    status = cli.main([str(arg) for arg in argv])
    said = capsys.readouterr().err
    assert said.strip().count("\n") == 0 and said.startswith("ccl: "), said
    return status, said


def test_a_folder_that_cannot_be_written_is_told_before_a_clip_is_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(dir: Path) -> None:  # what root is never told
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / "tmp1234"))

    monkeypatch.setattr("ccl.files.whole.TemporaryFile", refuse)
    monkeypatch.setattr("ccl.generation.Pipeline.generate", lambda *_, **__: pytest.fail("a clip was made"))
    out = tmp_path / "shut" / "a.mp4"
    status, said = told(capsys, "generate", "--ckpt", model, "--prompt", "a", "-o", out)
    assert (status, said) == (1, f"ccl: {out.parent}: Permission denied\n")


@pytest.mark.parametrize("name", ["clip.json", "clip.wav", "clip.xyz"])
def test_a_clip_goes_to_a_file_that_can_hold_it(
    name: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(capsys, "generate", "--ckpt", model, "--prompt", "a", "-o", tmp_path / name)
    assert status == 2 and "a clip is an .mp4, or with --only audio a .wav" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device", "zz"), "--device is zz, which this machine or this torch does not have"),
        (("--guidance", "ucg2", "--scale", "nan", "1"), "--scale is nan; it must be a number from"),
        (("--guidance", "ugc2"), "did you mean 'ucg2'?"),
        (("--steps", "0"), "--steps is 0; it must be a whole number from 1 to 10,000"),
        (("--shift", "0"), "--shift is 0; it must be a number above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_told(
    flags: tuple[str, ...], words: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(capsys, "generate", "--ckpt", model, "--prompt", "a", *flags, "-o", tmp_path / "x.mp4")
    assert status in (1, 2) and words in said


@pytest.mark.parametrize("prompt", ["x" * 20_000, 'naïve 😀 日本語 "unclosed'])
def test_any_text_is_a_prompt(prompt: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.mp4"
    assert cli.main(["generate", "--ckpt", str(model), "--prompt", prompt, "--steps", "1", "-o", str(out)]) == 0
    assert out.is_file()


def test_prompts_go_to_a_folder(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "mine.txt").write_text("thesis")
    argv = ("generate", "--ckpt", model, "--prompts", tmp_path / "p.jsonl", "-o", tmp_path / "mine.txt")
    assert told(capsys, *argv)[0] == 2
    assert (tmp_path / "mine.txt").read_text() == "thesis"


def test_shards_that_are_not_there_are_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere holds no index.json; make shards with"):
        read_index(tmp_path / "nowhere" / "index.json")


def test_shards_that_cannot_be_written_are_told_before_a_clip_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccl.data.sources.read_clip", lambda *args, **kwargs: pytest.fail("read"))
    (tmp_path / "file").write_text("x")
    status = cli.main(["shards", "make", str(tiny_folder(tmp_path / "clips", 1)), "-o", str(tmp_path / "file" / "out")])
    assert status == 2
    assert f"--out is {tmp_path / 'file' / 'out'}, which lies in a file" in capsys.readouterr().err


def test_a_shard_holds_a_clip_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards of 0 clips by 0 processes cannot be"):
        write_shards(tiny_sources(1), tmp_path / "out", TINY, shard_size=0)


def test_a_grid_that_differs_comes_with_the_flags_that_would_fit(tmp_path: Path) -> None:
    from ccl.data.shards import Shards
    from ccl.grid import Grid

    write_shards(tiny_sources(1), tmp_path / "out", TINY)
    with pytest.raises(
        ValueError, match=r"train with --grid.frames 9 --grid.height 16 --grid.width 16, or make shards"
    ):
        Shards(tmp_path / "out", Grid())


def test_a_full_disk_leaves_the_old_checkpoint_and_names_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "step=000001.ckpt"
    path.write_text("old")

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672]")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(CheckpointError, match=r"checkpoint .*step=000001.ckpt cannot be written .* is the disk full"):
        AtomicCheckpointIO().save_checkpoint({}, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_run_folder_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, not a checkpoint; those of a run lie in"):
        verify(tmp_path)


def test_a_share_is_between_nothing_and_all() -> None:
    with pytest.raises(ValueError, match=r"model.text_dropout is 2; it is a share, from 0 to 1"):
        make_module(text_dropout=2.0)
    with pytest.raises(ValueError, match=r"a given part's prob is 2.0; it must be a number from 0 to 1"):
        Given("first_frame", prob=2.0)


def test_a_run_folder_is_a_model(tmp_path: Path) -> None:
    checkpoint = run_folder(tmp_path, tiny_state())
    _, state, source = read_source(checkpoint.parents[1])
    assert source == str(checkpoint) and state.keys() == tiny_state().keys()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_model_is_as_readable_as_any_other_file(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        save_model(tmp_path / "model", tiny_config(), tiny_state())
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {0o666 & ~umask}


def test_evaluate_takes_clips_or_makes_them(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text('{"id": "one", "prompt": "a", "audio": "not-here.wav"}\n')
    for argv in ((), ("--videos", tmp_path, "--ckpt", model), ("--videos", tmp_path, "--steps", 2)):
        assert told(capsys, "evaluate", *argv)[0] == 2
    out = tmp_path / "out"
    argv = ["--ckpt", model, "--testset", manifest, "--metrics", "mouth", "--steps", 1, "-o", out]
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    assert {path.name for path in (out / "clips").iterdir()} == {"one.mp4", "one.json"}
    assert (out / "table.md").is_file()


def test_the_task_of_evaluated_clips_is_one_that_was_trained(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "prompt": "a"}\n')
    made = ["evaluate", "--ckpt", model, "--testset", tmp_path / "rows.jsonl", "--metrics", "mouth", "-o", tmp_path]
    status, said = told(capsys, *made, "--task", "sideways")
    assert status == 1 and "this model knows no task 'sideways'; it knows: single" in said
    status, said = told(capsys, "evaluate", "--videos", tmp_path, "--task", "joint")
    assert status == 2 and "--task is for the clips that --ckpt makes" in said


@pytest.mark.parametrize("given", ["[]", "[1]", "null", "5"])
def test_a_group_of_keys_that_holds_none_is_told_by_file_and_line(given: str, tmp_path: Path) -> None:
    whole, own = tmp_path / "whole.yaml", tmp_path / "own.yaml"
    whole.write_text("codec: {video: {}}\n")
    own.write_text(f"name: mine\ncodec: {given}\n")
    said = f"codec in {own}, line 2 is {given}; leave it out, or give it keys"
    assert no_keys(("grid", "codec"), [whole, own], []) == said
    assert no_keys(("codec",), [own, whole], []) == ""
    assert no_keys(("codec",), [whole], ["--codec=[]"]).startswith("codec on the command line is []; ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("codec:\n  vido: {class_path: ccl.codecs.WanVideo}\n", "there is no key 'codec.vido' in {}, line 2"),
        ("grid:\n  frames: many\n", "grid.frames in {}, line 2: it must be int, not 'many'"),
        ("codec: []\n", "codec in {}, line 1 is []; leave it out, or give it keys"),
    ],
)
def test_a_mistake_in_a_config_to_encode_with_is_told_by_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        configured([file])
    assert str(error.value).startswith(said.format(file))


def test_an_index_of_a_sharded_checkpoint_leads_nowhere_else(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret.distcp", tmp_path / "step=000001.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that one process is meant
        save({"state_dict.net.x": torch.arange(3.0)}, storage_writer=FileSystemWriter(folder), no_dist=True)
    assert read_sharded(folder)["net.x"].tolist() == [0, 1, 2]
    part = next(folder.glob("*.distcp"))
    part.rename(secret)
    index = pickle.loads((folder / ".metadata").read_bytes())
    for name in ("../secret.distcp", str(secret)):
        index.storage_data = {key: replace(info, relative_path=name) for key, info in index.storage_data.items()}
        (folder / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(ValueError, match=r"\.metadata names .*secret\.\w*', which is not a plain file name"):
            read_sharded(folder)


def test_an_index_gives_members_of_enumerations_and_nothing_else_by_name() -> None:
    """Python 3.11.0 to 3.11.3 pickle an enumeration's member as getattr(class, name), as is written out here."""

    def index(module: str, kind: str, name: str) -> io.BytesIO:
        return io.BytesIO(f"cbuiltins\ngetattr\n(c{module}\n{kind}\nV{name}\ntR.".encode())

    metadata = "torch.distributed.checkpoint.metadata"
    member = IndexUnpickler(index(metadata, "_MEM_FORMAT_ENCODING", "TORCH_CONTIGUOUS_FORMAT")).load()
    assert member.name == "TORCH_CONTIGUOUS_FORMAT" and type(member).__name__ == "_MEM_FORMAT_ENCODING"
    for kind, name in (
        ("_MEM_FORMAT_ENCODING", "__init__"),
        ("Metadata", "__init__"),
        ("TensorProperties", "create_from_tensor"),
    ):
        with pytest.raises(pickle.UnpicklingError, match=f"its index names {name} of"):
            IndexUnpickler(index(metadata, kind, name)).load()
