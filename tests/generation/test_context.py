"""Processes that make each clip together, its video tokens split over them: as one process makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccl import cli
from ccl.media import read_clip
from ccl.storage.model_folder import save_model
from helpers.forked import start
from helpers.tiny import PROMPTS, close_in_files, tiny_config, tiny_state
from helpers.trainings import free_port


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Of two video tokens a frame."""
    config = tiny_config()
    config["grid"]["width"] = 32
    save_model(tmp_path / "model", config, tiny_state())
    return tmp_path / "model"


def ccl(rank: int, *words: str) -> None:
    raise SystemExit(cli.main(["generate", *words]))


def together(size: int, *words: str | Path) -> list[int]:
    """The exit statuses of as many processes, as torchrun starts them."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    place |= {"WORLD_SIZE": str(size)}
    processes = [
        start(ccl, rank, *map(str, words), RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in range(size)
    ]
    for process in processes:
        process.join(150)
    return [process.exitcode for process in processes]


def test_a_clip_that_two_processes_make_is_that_of_one(model: Path, tmp_path: Path) -> None:
    words = ("--ckpt", model, "--prompt", PROMPTS[0], "--guidance", "ucg3", "--device", "cpu")
    assert cli.main(["generate", *map(str, words), "-o", str(tmp_path / "one.mp4")]) == 0
    assert together(2, *words, "-o", tmp_path / "two.mp4", "--context", "2") == [0, 0]
    assert close_in_files(read_clip(tmp_path / "one.mp4"), read_clip(tmp_path / "two.mp4"))


def test_groups_of_processes_share_the_rows_and_one_of_each_writes(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": f"r{i}", "prompt": text}) + "\n" for i, text in enumerate(PROMPTS)))
    words = ("--ckpt", model, "--prompts", rows, "--device", "cpu", "--batch-size", "1")
    assert cli.main(["generate", *map(str, words), "-o", str(tmp_path / "one")]) == 0
    assert together(4, *words, "-o", tmp_path / "four", "--context", "2") == [0, 0, 0, 0]
    names = sorted(path.name for path in (tmp_path / "one").glob("r*"))
    assert sorted(path.name for path in (tmp_path / "four").glob("r*")) == names and len(names) == 6
    for name in (name for name in names if name.endswith(".mp4")):
        assert close_in_files(read_clip(tmp_path / "one" / name), read_clip(tmp_path / "four" / name))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--prompt x --context 2", "--context is 2, and there is 1 process; start a multiple of 2"),
        ("--prompt x --context 2 --step-cache 0.1", "--step-cache decides by each process's own clip"),
    ],
)
def test_what_cannot_be_shared_is_told(
    words: str, said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "--ckpt", str(model), *words.split(), "-o", str(tmp_path / "x.mp4"), "--device", "cpu"]
    assert cli.main(argv) == 2
    assert said in capsys.readouterr().err


def test_one_clip_is_not_given_to_more_processes_than_share_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    argv = ["generate", "--ckpt", str(model), "--prompt", "x", "--context", "2", "-o", str(tmp_path / "x.mp4")]
    assert cli.main([*argv, "--device", "cpu"]) == 2
    assert "one clip is made by 2 processes, and there are 4" in capsys.readouterr().err
