"""A model trained on one's own shards is scored on what it was validated on, by their captions and true clips."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ccl import cli
from ccl.callbacks import Preview
from ccl.cli.errors import UsageError
from ccl.cli.testsets import is_embedded, own_shards
from ccl.data import ShardData
from ccl.data.captions import captioned, write_clips
from ccl.data.write import Source, write_shards
from ccl.grid import Grid
from ccl.tasks import PAPER_TASKS
from helpers import ROOT
from helpers.tiny import SMALL
from helpers.tiny_clips import TINY, tiny_clip, tiny_folder

GRID = Grid(frames=17, fps=25.0, height=48, width=48)
SHAPE = ["--frames", "17", "--height", "48", "--width", "48", "--workers", "0"]
MODEL = SimpleNamespace(net=SimpleNamespace(needs=(), closed="context"), tasks=PAPER_TASKS)  # as previews look at it


@pytest.fixture
def shards(tmp_path, monkeypatch) -> Path:
    """data/shards of five clips to train on and data/val of three others."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in (("shards", range(5)), ("val", range(5, 8))):
        for number in numbers:
            clip = tiny_clip(number, GRID)
            clip.save(tmp_path / name / f"{clip.id}.mp4")
            (tmp_path / name / f"{clip.id}.txt").write_text(clip.prompt)
        assert cli.main(["shards", "make", name, "-o", f"data/{name}", *SHAPE]) == 0
    return tmp_path / "data"


def members(shard: Path) -> dict[str, bytes]:
    """A tar file as Python's tarfile reads it whole."""
    with tarfile.open(shard) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}


def test_a_run_is_scored_on_its_own_validation_shards(shards, tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(SMALL)
    fit = [f"--config={ROOT / 'configs' / name}" for name in ("joint.yaml", "data/shards.yaml")]
    fit += ["--config=small.yaml", "--name=mine", "--grid.frames=17", "--data.init_args.batch_size=1"]
    fit += [f"--data.init_args.{key}" for key in ("shards=data/shards", "val_shards=data/val", "num_workers=0")]
    assert cli.main(["fit", *fit]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "--ckpt", "runs/mine", "--limit", "2", "--metrics", "av_align", "onset"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the first 2 of 3 clips of data/val, which the run was validated on; --testset takes another" in said
    assert "shards of val, sha256 " in said
    out = tmp_path / "runs/mine/evaluation/val"
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"clip5", "clip6"} and {row["method"] for row in rows} == {"mine"}
    assert all(row["value"] is not None for row in rows if row["metric"] == "onset_acc"), "against the true clips"
    record = json.loads((out / "clips/clip6.json").read_text())
    assert record["prompt"] == tiny_clip(6).prompt
    held = members(next((shards / "val").glob("*.tar")))
    assert (out / "true/clip6.mp4").read_bytes() == held["clip6.mp4"]
    # Of what it was trained on: clips 0 to 4.
    assert Path("runs/mine/words.txt").read_text().split() == [*"01234", "clip", "number"]
    assert record["notes"] == ["this model has not learned the word '6'"]


def test_previews_show_captions_of_what_is_held_out(shards, capsys):
    data = {
        name: ShardData(f"data/{name}", GRID, val_shards=val) for name, val in (("shards", None), ("val", "data/val"))
    }
    for name, numbers in (("shards", (0, 1)), ("val", (5, 6))):
        preview = Preview()
        trainer = SimpleNamespace(datamodule=data[name], is_global_zero=True)
        preview.on_fit_start(trainer, MODEL)
        assert preview.prompts == [tiny_clip(number).prompt for number in numbers]
        assert f"previews show captions of data/{name}: 'clip number {numbers[0]}' and " in capsys.readouterr().out
    write_shards([Source("a", lambda: replace(tiny_clip(), prompt=" "))], "bare", TINY)
    preview = Preview()
    preview.on_fit_start(SimpleNamespace(datamodule=ShardData("bare", TINY), is_global_zero=True), MODEL)
    assert preview.prompts == [] and "no clip has a caption to preview" in capsys.readouterr().out


def test_a_folder_of_shards_is_a_test_set(shards, tmp_path, capsys):
    argv = ["--videos", "val", "--testset", "data/val", "--metrics", "onset", "-o", "out"]
    assert cli.main(["evaluate", *argv]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    assert {row["id"]: row["value"] for row in rows if row["metric"] == "onset_acc"}.keys() == {
        *("clip5", "clip6", "clip7"),
    }
    assert "--testset takes another" not in capsys.readouterr().out


def test_which_shards_a_run_is_scored_on_follows_from_its_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    both = {"data": {"class_path": "ccl.data.ShardData", "init_args": {"shards": "train", "val_shards": "val"}}}
    alone = {"data": {"class_path": "ccl.data.ShardData", "init_args": {"shards": "train", "val_shards": None}}}
    gone = {"data": {"class_path": "ccl.data.ShardData", "init_args": {"shards": "train", "val_shards": "gone"}}}
    world = {"data": {"class_path": "ccl.data.WorldData", "init_args": {"root": "data/world"}}}
    assert own_shards(both, trained_on=False) == (Path("val"), "which the run was validated on")
    assert own_shards(alone, trained_on=False) is None, "nothing was held out"
    folder, whose = own_shards(alone, trained_on=True)
    assert folder == Path("train") and "trained on" in whose
    assert own_shards(world, trained_on=True) is None is own_shards({"data": 5}, trained_on=True)
    with pytest.raises(UsageError, match=r"^gone, which the run was validated on, is not here; .* --testset"):
        own_shards(gone, trained_on=True)


def test_the_embedded_codec_is_found_in_configs_of_runs_and_of_models():
    part = {"video": {"class_path": "ccl.codecs.EmbeddedVideo"}}
    assert is_embedded({"codec": part}) and is_embedded({"codec": {"class_path": "x", "init_args": part}})
    for other in ({}, {"codec": None}, {"codec": "EmbeddedVideo"}, {"codec": {"video": {"class_path": "a.WanVideo"}}}):
        assert not is_embedded(other)


def test_true_clips_are_the_bytes_of_the_shards_and_damage_is_told(shards, tmp_path):
    (shard,) = (shards / "shards").glob("*.tar")
    held = members(shard)
    clips = list(captioned(shards / "shards"))
    assert [clip.id for clip in clips] == [f"clip{i}" for i in range(5)]
    assert [clip.prompt for clip in clips] == [json.loads(held[f"clip{i}.json"])["prompt"] for i in range(5)]
    files = {clip: tmp_path / f"true/{clip.id}.mp4" for clip in clips[:3]}
    write_clips(files)
    (tmp_path / "true/clip1.mp4").write_bytes(b"of other shards")
    write_clips(files)
    assert {file.name: file.read_bytes() for file in (tmp_path / "true").iterdir()} == {
        f"clip{i}.mp4": held[f"clip{i}.mp4"] for i in range(3)
    }
    data = bytearray(shard.read_bytes())
    data[data.index(held["clip4.mp4"]) + 20] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"000000\.tar: the mp4 of clip clip4 is corrupt"):
        write_clips({clip: tmp_path / f"more/{clip.id}.mp4" for clip in clips})
    shard.write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"\.tar cannot be read as a shard|\.tar"):
        list(captioned(shards / "shards"))


def test_shards_without_a_caption_are_no_test_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shards([Source("a", lambda: replace(tiny_clip(), prompt=" "))], "bare", TINY)
    tiny_folder(tmp_path / "clips", 1)
    assert cli.main(["evaluate", "--videos", "clips", "--testset", "bare", "--metrics", "onset"]) == 1
    assert "no clip of bare has a caption" in capsys.readouterr().err
