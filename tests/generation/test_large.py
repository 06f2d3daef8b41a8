"""Models that do not fit beside their text encoder and codecs: parts one after the other, half the bytes, many GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl import cli
from ccl.cli.errors import UsageError
from ccl.cli.parts import share_of
from ccl.generation import Pipeline
from ccl.generation.generate import generate_files
from ccl.media import Clip, read_clip
from ccl.rows import Row
from ccl.storage.model_folder import build, load_model, save_model
from helpers.forked import start
from helpers.tiny import PROMPTS, awake, close, tiny_config, tiny_pipeline

ROWS = [Row(id=str(i), prompt=p, seed=i) for i, p in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights everywhere."""
    model = build(tiny_config(), "tiny")
    awake(model.net), awake(model.text, 1)
    parts = {"net": model.net, "text": model.text}
    state = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    path = tmp_path_factory.mktemp("large") / "model"
    save_model(path, tiny_config(), state)
    return path


def equal(a: Any, b: Any) -> bool:
    return np.array_equal(a.video, b.video) and np.array_equal(a.audio, b.audio)


# In halves


def test_matrices_in_bfloat16_give_the_clip_that_autocast_gives(folder: Path) -> None:
    half = Pipeline.load(folder, device="cpu", dtype="bfloat16")
    whole = Pipeline.load(folder, device="cpu")
    whole.half = True  # as on a GPU, where autocast is always on
    for row in ROWS[:2]:
        assert equal(half.generate([row])[0], whole.generate([row])[0])
    assert not equal(half(PROMPTS[0]), Pipeline.load(folder, device="cpu")(PROMPTS[0]))


def test_what_is_kept_in_float32_is_what_computes_in_float32(folder: Path) -> None:
    net = load_model(folder, half=True).net
    halves = {name for name, p in net.named_parameters() if p.dtype == torch.bfloat16}
    assert {
        name for name in halves if not name.startswith("blocks.") or "norm" in name or "modulation" in name
    } == set()
    of_blocks = sum(p.numel() for name, p in net.named_parameters() if name.startswith("blocks."))
    assert sum(p.numel() for name, p in net.named_parameters() if name in halves) > 0.9 * of_blocks


def test_a_loaded_model_has_the_weights_of_its_file_and_trains_on(folder: Path) -> None:
    model, pipe = load_model(folder), tiny_pipeline()
    theirs = pipe.net.state_dict()
    assert all(torch.equal(p, theirs[name]) and p.requires_grad for name, p in model.net.named_parameters())


# One after the other


class Diary:
    """Notes what a pipeline's parts do, in order."""

    def __init__(self, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        encode, forward, decode = type(pipe.text).forward, pipe.net.forward, pipe.codec.audio.decode
        self.prompts: list[str] = []

        def text(module: Any, prompts: list[str]) -> Any:
            self.note("text")
            self.prompts += prompts
            return encode(module, prompts)

        monkeypatch.setattr(type(pipe.text), "forward", text)
        monkeypatch.setattr(pipe.text, "unload", lambda: self.note("text goes"))
        monkeypatch.setattr(pipe.codec, "unload", lambda: self.note("codecs go"))
        monkeypatch.setattr(pipe.net, "forward", lambda *a, **k: self.note("net") or forward(*a, **k))
        monkeypatch.setattr(pipe.codec.audio, "decode", lambda z: self.note("codecs") or decode(z))

    def note(self, line: str) -> None:
        if self.lines[-1:] != [line]:
            self.lines.append(line)


def test_offloaded_parts_work_one_after_the_other_and_make_the_same_clips(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Pipeline.load(folder, device="cpu").generate(ROWS)
    pipe = Pipeline.load(folder, device="cpu", offload=True)
    diary = Diary(pipe, monkeypatch)
    clips = pipe.generate(ROWS)
    assert diary.lines == ["text", "text goes", "codecs go", "net", "codecs", "codecs go"]
    assert all(close(a, b) for a, b in zip(clips, usual, strict=True))


def test_the_text_encoder_comes_once_for_a_whole_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.load(folder, device="cpu", offload=True)
    diary = Diary(pipe, monkeypatch)
    generate_files(pipe, [*ROWS, Row(id="again", prompt=PROMPTS[0], negative="noise")], tmp_path, batch_size=1, steps=1)
    assert sorted(diary.prompts) == sorted(["", "noise", *PROMPTS])  # each once, the empty one too
    assert diary.lines[:2] == ["text", "text goes"] and "text" not in diary.lines[2:]
    generate_files(pipe, ROWS, tmp_path, steps=1)  # all is finished
    assert len(diary.prompts) == 5


def test_the_usual_pipeline_gives_nothing_back_and_remembers_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.load(folder, device="cpu")
    diary = Diary(pipe, monkeypatch)
    pipe.generate(ROWS[:1])
    assert "text goes" not in diary.lines and "codecs go" not in diary.lines and pipe._states == {}


# On many


def test_two_processes_make_together_what_one_makes(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": f"clip{i}", "prompt": f"number {i}"} for i in range(7)]
    rows[3]["audio"] = "voice.wav"  # cuts a batch in the middle
    Clip(None, np.sin(np.arange(5760) / 10).astype(np.float32) * 0.3).save(tmp_path / "voice.wav")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["generate", "--ckpt", str(folder), "--prompts", str(tmp_path / "prompts.jsonl"), "--batch-size", "2"]
    line += ["--device", "cpu", "--steps", "1", "-o"]
    places = [{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)} for rank in range(2)]
    makers = [start(cli.main, [*line, str(tmp_path / "alone")])]
    makers += [start(cli.main, [*line, str(tmp_path / "shared")], **place) for place in places]
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0, 0, 0]
    alone, shared = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("alone", "shared"))
    assert len(alone) == 14 and alone.keys() == shared.keys()
    # Nearly always the same bytes; but a CPU's matrix products round by how their inputs lie in memory.
    for name in (name for name in alone if alone[name] != shared[name]):
        mine, theirs = (read_clip(tmp_path / of / name) for of in ("alone", "shared"))
        assert np.abs(mine.video.astype(int) - theirs.video).max() <= 8, name
        assert np.abs(mine.audio - theirs.audio).max() < 0.01, name


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_row_belongs_to_one_process_whatever_is_finished_already(
    folder: Path, tmp_path: Path, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipeline.load(folder, device="cpu")
    made: list[str] = []
    monkeypatch.setattr(pipe, "generate", lambda rows, **kwargs: made.extend(row.id for row in rows) or [])
    rows = [Row(id=str(i), prompt="x") for i in range(9)]
    for rank in range(ranks):
        monkeypatch.setattr("ccl.generation.generate.finished", lambda path, record: path.stem in made)
        generate_files(pipe, rows, tmp_path, batch_size=2, share=(rank, ranks))
    assert sorted(made) == sorted(row.id for row in rows)


def test_torchrun_says_which_share_is_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert share_of("cpu") == ((0, 1), "cpu")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(UsageError, match="RANK is 3 and WORLD_SIZE 1"):
        share_of(None)
    monkeypatch.setenv("WORLD_SIZE", "4"), monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="process 1 of this machine, which has 1 GPUs"):
        share_of("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert share_of(None) == ((3, 4), "cuda:1")
