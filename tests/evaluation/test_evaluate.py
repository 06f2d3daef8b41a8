"""`ccl evaluate` as a user types it: checkpoints and folders, what comes out, what is said when something is wrong."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import ccl
from ccl import cli
from ccl.evaluation import METRICS, Colours, Metric
from ccl.evaluation.metrics.colours import PAINTS, SHIRTS, WALLS, pale
from ccl.files import sha256
from ccl.generation import Pipeline
from ccl.media import Clip, read_natural
from ccl.model.adapter import LoRA
from ccl.model.save_lora import save_comfyui
from ccl.rows import Row, write_rows
from ccl.storage.model_folder import save_model
from faults import process
from helpers import ROOT
from helpers.forked import call
from helpers.tiny import awake, close_in_files, tiny_config, tiny_pipeline, tiny_state
from helpers.tiny_clips import tiny_clip

PROMPT = 'A man with black hair and a green shirt in front of a blue wall says "hello"'
LIGHT = ["--metrics", "mouth,colours", "av_align"]
ROWS = [{"id": f"c{i}", "prompt": PROMPT, "subset": "easy" if i < 3 else "hard"} for i in range(6)]


def room(i: int = 0) -> Clip:
    """A room with a shirt in it, and a tone."""
    video = np.empty((5, 48, 48, 3), np.uint8)
    video[:] = pale("blue").astype(np.uint8)
    video[:, 36:, 8:40] = PAINTS["green"]
    return Clip(video, (0.1 * (i + 1) * np.sin(np.arange(3200) / 5)).astype(np.float32), prompt=PROMPT, id=f"c{i}")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rooms") / "clips"
    for i in range(4):
        (room(i) if i < 3 else replace(room(i), audio=None)).save(folder / f"c{i}.mp4")
    (folder / "c4.mp4").write_text("no film")
    return folder


@pytest.fixture
def folder(rooms, tmp_path) -> Path:
    """c0 to c2 are fine, c3 has no sound, c4 is text, c5 is missing; rows.jsonl asks for all of them."""
    (tmp_path / "rows.jsonl").write_text(write_rows(ROWS))
    return Path(shutil.copytree(rooms, tmp_path / "clips"))


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The sentence on stderr of a command line that is at fault."""
    assert cli.main(["evaluate", *map(str, argv)]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert error.startswith("ccl: ") and "\n" not in error
    return error


def test_a_folder_becomes_scores_tables_and_a_page(folder, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--videos", str(folder), "--testset", str(tmp_path / "rows.jsonl"), *LIGHT, "-o", str(out)]
    assert cli.main(["evaluate", *argv]) == 0
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert all(row.keys() >= {"method", "id", "metric", "value", "reason"} for row in rows)
    assert all((row["value"] is None) == (row["reason"] is not None) for row in rows)
    found = {(row["id"], row["metric"]): row for row in rows}
    assert found["c0", "colours"]["value"] == found["c3", "colours"]["value"] == 1.0
    assert found["c3", "mouth"]["reason"] == "no audio stream"
    assert "no media file" in found["c4", "mouth"]["reason"]
    assert found["c5", "colours"]["reason"] == "there is no such clip"
    for name in ("table.md", "table.csv", "table.tex", "report.html"):
        assert "clips" in (out / name).read_text(), name
    assert "there is no such clip" in (out / "report.html").read_text()
    assert str(out / "report.html") in capsys.readouterr().out
    with (out / "table.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["colours.mean"], line["colours.mean.scored"], line["colours.mean.failed"]) == ("1.0", "4", "2")


def test_a_table_says_what_was_scored_with_what_and_when(folder, tmp_path):
    file = tmp_path / "rows.jsonl"
    argv = ["--videos", folder, "--testset", file, "--metrics", "colours", "--device", "cpu", "-o", tmp_path / "out"]
    assert cli.main(["evaluate", *map(str, argv), "--limit", "2"]) == 0
    text = (tmp_path / "out/table.md").read_text()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"- test set: rows, rows.jsonl sha256 {digest[:16]}, the first 2 of each subset; 4 rows\n" in text
    assert f"- ccl: {ccl.__version__}\n- device: cpu\n- date: {date.today().isoformat()}\n" in text


def test_onsets_are_those_of_the_reference_folder(folder, tmp_path):
    argv = ["--videos", folder, "--metrics", "onset", "--reference", folder, "-o", tmp_path / "out"]
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    found = {row["id"]: row["value"] for row in rows if row["metric"] == "onset_acc" and row["method"] == "clips"}
    assert found["c0"] == found["c1"] == 1.0 and found["c3"] is None  # which has no sound


def test_several_systems_stand_in_one_table(folder, tmp_path):
    other = tmp_path / "other"
    for i in range(6):
        replace(room(i), video=room(i).video[:, ::-1].copy()).save(other / f"c{i}.mp4")
    argv = ["--methods", f"ours={folder}", "--methods", f"theirs={other}", "--metrics", "colours"]
    argv += ["--testset", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out")]
    assert cli.main(["evaluate", *argv]) == 0
    table = (tmp_path / "out/table.md").read_text()
    assert "ours" in table and "theirs" in table


def test_a_checkpoint_that_does_not_fit_as_it_is_makes_the_clips_that_generate_makes(tmp_path, monkeypatch):
    folder, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    whole = tiny_pipeline()
    parts = {"net": whole.net, "text": whole.text}
    save_model(
        folder, tiny_config(), {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    )
    rows.write_text(write_rows(ROWS[:2]))
    loaded, load = [], Pipeline.load

    def spy(*args, **how):
        loaded.append((how["dtype"], how["offload"]))
        return load(*args, **how)

    monkeypatch.setattr(Pipeline, "load", spy)
    fits = ["--dtype", "bfloat16", "--offload", "--device", "cpu"]
    argv = ["--testset", str(rows), "--give", "text", "--metrics", "av_align", "-o", str(tmp_path / "out"), *fits]
    (leftover := tmp_path / "out/clips/.partial-host-1-abcd-c0.mp4").parent.mkdir(parents=True)
    leftover.write_bytes(b"of a kill")
    assert cli.main(["evaluate", "--ckpt", str(folder), *argv]) == 0
    assert not leftover.exists()
    made = ["--prompts", str(rows), "--give", "text", "-o", str(tmp_path / "made"), *fits]
    assert cli.main(["generate", "--ckpt", str(folder), *made]) == 0
    assert loaded == [("bfloat16", True)] * 2
    # Not to the byte: where arrays lie in memory decides how sums are vectorised, and a pixel may round otherwise.
    for row in ROWS[:2]:
        ours, theirs = (read_natural(tmp_path / place / f"{row['id']}.mp4")[0] for place in ("out/clips", "made"))
        assert close_in_files(ours, theirs)


def test_a_checkpoint_is_scored_with_a_lora_and_by_another_rule(tmp_path, capsys):
    folder, rows, lora = tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "style.safetensors"
    save_model(folder, tiny_config(), tiny_state())
    rows.write_text(write_rows(ROWS[:1]))
    adapted = LoRA(rank=2).adapt(copy.deepcopy(tiny_pipeline().net))
    awake(adapted, 4)
    save_comfyui(lora, adapted.state_dict(), LoRA(rank=2), dtype=torch.float32)
    argv = ["evaluate", "--ckpt", str(folder), "--testset", str(rows), "--give", "text", "--metrics", "av_align"]
    argv += ["--device", "cpu", "--guidance", "text_cfg", "--scale", "4", "3", "-o", str(tmp_path / "out")]
    assert cli.main([*argv, "--lora", f"{lora}=0.5"]) == 0
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out/clips").glob("*.json"))
    assert record["guidance"]["rule"] == "TextCFG" and record["guidance"]["scale"] == {"video": 4, "audio": 3}
    assert [(one["file"], one["scale"]) for one in record["loras"]] == [("style.safetensors", 0.5)]
    assert f"LoRA {sha256(lora)[:12]} x 0.5, TextCFG (scale 4 3)" in (tmp_path / "out/table.md").read_text()
    capsys.readouterr()
    assert cli.main(argv) == 1  # without it they would be other clips
    said = capsys.readouterr().err
    assert "was made with another loras" in said and "give another folder with -o" in said and said.count("\n") == 1


def test_names_and_folders_may_hold_equals_signs(folder, tmp_path):
    (folder.parent / "a=b").symlink_to(folder)
    argv = ["--methods", f"cfg=4={folder}", f"x={folder.parent}/a=b", "--metrics", "colours"]
    assert cli.main(["evaluate", *argv, "-o", str(tmp_path / "out")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} == {"cfg=4", "x"}


def test_all_clips_of_a_folder_are_scored_without_a_test_set(folder, tmp_path):
    assert cli.main(["evaluate", "--videos", str(folder), "--metrics", "av_align"]) == 0
    rows = [json.loads(line) for line in (folder / "scores/scores.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"c0", "c1", "c2", "c3", "c4"}


def test_other_conventions_come_from_a_protocol(folder, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("av_align:\n  init_args: {height: 24}\n")
    argv = ["--videos", folder, "--metrics", "av_align", "--protocol", tmp_path / "own.yaml", "-o", tmp_path / "out"]
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    assert json.loads((tmp_path / "out/state.json").read_text())["metrics"]["av_align"]["height"] == 24
    (tmp_path / "own.yaml").write_text("av_align:\n  init_args: {hight: 24}\n")
    assert "metric av_align has no 'hight' (did you mean 'height'?)" in told(capsys, *argv)


def test_a_metric_of_ones_own_lies_beside_its_protocol(folder, tmp_path, monkeypatch, capsys):
    """The one of CONTRIBUTING, as it stands there; the value by PyAV's samples and numpy."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code, config = (re.search(rf"```{kind}\n(.*?)```", text, re.S)[1] for kind in ("python", "yaml"))
    home = tmp_path / "mine"
    home.mkdir()
    (home / "loudness.py").write_text(code)
    (home / "own.yaml").write_text(config + "colours:\n")
    argv = ["--videos", folder, "--protocol", home / "own.yaml", "-o", tmp_path / "out", "--metrics"]
    before = list(sys.path)
    assert cli.main(["evaluate", *map(str, argv), "loudness,colours"]) == 0
    assert sys.path == before
    rows = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    found = {row["id"]: row for row in rows if row["metric"] == "rms"}
    with av.open(folder / "c1.mp4") as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).mean(axis=0)
    assert found["c1"]["value"] == pytest.approx(2 * np.sqrt(np.mean(sound**2)), rel=0.02)
    assert found["c3"]["reason"] == "no audio stream"
    assert "loudness: scale 2.0, class loudness.Loudness, code sha256 " in (tmp_path / "out/table.md").read_text()
    (home / "own.yaml").write_text(config.replace("scale: 2.0", "scalee: 2.0"))
    assert "metric loudness has no 'scalee' (did you mean 'scale'?)" in told(capsys, *argv, "loudness")
    (home / "own.yaml").write_text(config.replace("loudness.Loudness", "loudness.Loudnes"))
    assert "has no 'Loudnes' (did you mean 'Loudness'?)" in told(capsys, *argv, "loudness")
    (home / "broken.py").write_text("import numpy\nraise RuntimeError('no')\n")
    (home / "own.yaml").write_text("broken: {class_path: broken.Broken}\n")
    assert "broken cannot be imported: broken.py, line 2: RuntimeError: no" in told(capsys, *argv, "broken")
    monkeypatch.chdir(home)  # the working directory will do as well
    (tmp_path / "own.yaml").write_text(config)
    argv[3] = tmp_path / "own.yaml"
    assert cli.main(["evaluate", *map(str, argv), "loudness"]) == 0


MISTAKES = {
    "nothing to score": [],
    "there is no folder of clips gone": ["--videos", "gone"],
    "it must be NAME=DIR": ["--methods", "clips"],
    "there is no metric 'av_aling' (did you mean 'av_align'?)": ["--videos", "clips", "--metrics", "av_aling"],
    "there is no test set 'papre' (did you mean 'paper'?)": ["--videos", "clips", "--testset", "papre"],
    "there are no weights called 'yunt' (did you mean 'yunet'?)": ["--videos", "clips", "--weights", "yunt=x"],
    "there is no file x, given as the weights of yunet": ["--videos", "clips", "--weights", "yunet=x"],
    "--steps is for the clips that --ckpt makes": ["--videos", "clips", "--steps", "3"],
    "--shift is for the clips that --ckpt makes": ["--videos", "clips", "--shift", "3"],
    "--lora is for the clips that --ckpt makes": ["--videos", "clips", "--lora", "a.safetensors"],
    "--scale is for the clips that --ckpt makes": ["--videos", "clips", "--scale", "4", "3"],
    "there is no guidance 'ucg4' (did you mean 'ucg3'?)": ["--ckpt", "--guidance", "ucg4"],
    "--dtype is for the clips that --ckpt makes": ["--videos", "clips", "--dtype", "bfloat16"],
    "--offload is for the clips that --ckpt makes": ["--videos", "clips", "--offload"],
    "--ckpt makes clips and --videos scores": ["--videos", "clips", "--ckpt", "clips"],
    "there is no option '--video' (did you mean '--videos'?)": ["--video", "clips"],
    "there is no --reference folder gone": ["--videos", "clips", "--reference", "gone"],
    "two systems are called 'clips'": ["--videos", "clips", "--methods", "clips=clips"],
    "--limit is 0; it must be a whole number from 1": ["--videos", "clips", "--limit", "0"],
    "--steps is 0; it must be a whole number from 1": ["--ckpt", "--steps", "0"],
    "--embed-mb is nan; it must be a number from 0": ["--videos", "clips", "--embed-mb", "nan"],
    "--metrics names none; there are: ": ["--videos", "clips", "--metrics", ","],
    "--weights is yunet; it must be NAME=FILE": ["--videos", "clips", "--weights", "yunet"],
    "--out: nothing is given": ["--videos", "clips", "-o", ""],
    "--videos: nothing is given": ["--videos", ""],
    "--out is rows.jsonl, a file; a folder is needed": ["--videos", "clips", "--metrics", "mouth", "-o", "rows.jsonl"],
    "no system can be called 'ceiling'": ["--methods", "ceiling=clips", "--reference", "clips"],
    "rows.jsonl has a prompt for 'c0', which the test set does not know": [
        "--ckpt",
        "--testset",
        "world",
        "--give",
        "text",
        "--prompts",
        "rows.jsonl",
    ],
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_a_mistake_is_one_sentence(sentence, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    assert sentence in told(capsys, *MISTAKES[sentence])
    assert sorted(p.name for p in folder.parent.iterdir()) == ["clips", "rows.jsonl"], "nothing was written"


PROTOCOLS = {
    "metric av_align must have init_args": "av_align: 5",
    "metric av_align must have init_args: {...}, and": "av_align: {height: 24}",
    "there is no metric '1'; one of your own needs class_path": "1: {}",
    "there is no metric 'wre' (did you mean 'wer'?)": "wre: {init_args: {}}",
    "there is no module 'nowhere' for nowhere.Loud; looked for among what is installed and in": (
        "loud: {class_path: nowhere.Loud}"
    ),
    "has no 'Loud'": "loud: {class_path: json.Loud}",
    "is json.JSONDecoder, which is no ccl.evaluation.Metric": "loud: {class_path: json.JSONDecoder}",
    "calls itself 'onset'; give both one name": "loud: {class_path: ccl.evaluation.Onset}",
    "metric av_align, height: it must be int, not 'abc'": "av_align: {init_args: {height: abc}}",
    "metric av_align is ccl.evaluation.metrics.AVAlign, not os.system": "av_align: {class_path: os.system}",
    "is not YAML: could not determine a constructor": "av_align: !!python/object:os.system {}",
    "holds no keys": "",
}


def test_metrics_have_the_names_that_the_command_line_knows():
    from ccl.cli.metrics import NAMES
    from ccl.evaluation.metrics import METRICS

    assert tuple(METRICS) == NAMES


@pytest.mark.parametrize("asked", ["LSE-C", "lse_d", "sync_c", "Sync-D", "sync"])
def test_lip_sync_is_known_by_its_other_names(asked):
    from argparse import Namespace

    from ccl.cli.metrics import ALIASES, NAMES, names_of

    assert names_of(Namespace(metrics=[f"wer,{asked}"], protocol=None)) == ["wer", "sync"]
    also = {column.also.lower() for metric in METRICS.values() for column in metric.columns if column.also}
    assert also <= set(ALIASES) and not set(ALIASES) & set(NAMES)


def test_what_is_not_usual_is_measured_where_it_is_asked_for(monkeypatch):
    from ccl.cli.evaluate import parse
    from ccl.cli.metrics import metrics_of

    def names(*asked: str) -> list[str]:
        return [metric.name for metric in metrics_of(parse(["--videos", "x", *asked]), [Row("a")])]

    assert "av_align" in names() and "dnsmos" in names()
    monkeypatch.setattr(METRICS["av_align"], "usual", False)
    assert "av_align" not in names() and "dnsmos" in names()
    assert names("--metrics", "av_align") == ["av_align"]


@pytest.mark.parametrize("sentence", PROTOCOLS)
def test_a_protocol_that_cannot_be_is_one_sentence(sentence, folder, tmp_path, capsys):
    (file := tmp_path / "own.yaml").write_text(PROTOCOLS[sentence] + "\n")
    said = told(capsys, "--videos", folder, "--protocol", file, "-o", tmp_path / "out")
    assert str(file) in said and sentence in said and not (tmp_path / "out").exists()


def test_brackets_in_names_are_no_markup(folder, tmp_path, capsys):
    out = tmp_path / "[bold]out[/red]"
    argv = ["--methods", f"[/red]a={folder}", "--metrics", "mouth,mouth", "-o", str(out)]
    assert cli.main(["evaluate", *argv]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    assert len((out / "scores.jsonl").read_text().splitlines()) == 5 * len(METRICS["mouth"].columns)


def test_a_full_disk_names_the_file(folder, tmp_path, monkeypatch, capsys):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    said = told(capsys, "--videos", folder, "--metrics", "colours", "-o", tmp_path / "out")
    assert said == f"ccl: {tmp_path / 'out/scores.jsonl'}: No space left on device"


def test_a_folder_of_other_peoples_files_is_scored(folder, tmp_path):
    (folder / "c0.json").write_text("[1, 2]")
    (folder / "c1.json").write_text("{")
    (folder / "x.json").mkdir()
    (folder / "sub.mp4").mkdir()
    (folder / "._c0.mp4").write_bytes(b"of a Mac")
    shutil.copy(folder / "c0.mp4", folder / "Big Clip.MP4")
    assert cli.main(["evaluate", "--videos", str(folder), "--metrics", "mouth", "-o", str(tmp_path / "out")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"Big Clip", "c0", "c1", "c2", "c3", "c4"}
    assert next(row for row in rows if row["id"] == "Big Clip")["reason"] is None


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path):
    """SIGKILL in the middle, then the same command again: byte for byte what a run without the kill gives."""
    for i in range(24):
        tiny_clip(i, seconds=0.5).save(tmp_path / f"clips/c{i:02}.mp4")
    command = f"evaluate --videos clips --batch-size 4 {' '.join(LIGHT)} -o "
    whole = call(process.run, command + "whole", tmp_path)
    scores = (tmp_path / "whole/scores.jsonl").read_bytes()
    killed = call(process.run, command + "killed", tmp_path, at_change=whole.changes // 2)
    assert 0 < len((tmp_path / "killed/scores.jsonl").read_bytes().splitlines()) < len(scores.splitlines())
    again = call(process.run, command + "killed", tmp_path)
    assert (whole.status, killed.status, again.status) == (0, -9, 0), (whole, killed, again)
    assert (tmp_path / "killed/scores.jsonl").read_bytes() == scores
    assert (tmp_path / "killed/table.csv").read_bytes() == (tmp_path / "whole/table.csv").read_bytes()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_the_contract(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    metric = METRICS[name]()
    assert isinstance(metric, Metric) and metric.name == name and metric.batch_size >= 1
    assert metric.columns and len({column.name for column in metric.columns}) == len(metric.columns)
    reason = metric.missing()
    if reason:
        assert ("ccl weights fetch" in reason or "pip install" in reason) and "\n" not in reason
        with pytest.raises(ValueError, match="needs"):
            metric.update([room()])
    else:
        json.dumps(metric.protocol())
    # Nothing at all, and a single silent picture: a reason or a value, never an error.
    empty = Clip(None, None, id="empty")
    single = Clip(np.zeros((1, 48, 48, 3), np.uint8), np.zeros(640, np.float32), id="single")
    if not reason:
        for result in metric.score([empty, single, tmp_path / "gone.mp4"]):
            if not hasattr(result, "reason"):
                assert all(np.isfinite(value) for value in result.values.values())
            else:
                assert result.reason and ": " not in result.reason[:12], result.reason


def test_colours_are_those_of_the_world():
    scene = pytest.importorskip("ccl.data.world.scene")
    script = pytest.importorskip("ccl.data.world.script")
    assert all(scene.COLOURS[name] == paint for name, paint in PAINTS.items())
    assert set(SHIRTS) == set(script.SHIRT) and set(WALLS) == set(script.WALL)
    assert all(np.allclose(scene.wall(name), pale(name), atol=0.01) for name in WALLS)


def colours(clip: Clip) -> float | str:
    (result,) = Colours().score([clip])
    return result.values["colours"] if hasattr(result, "values") else result.reason


def test_wrong_colours_are_seen():
    asked = "a woman with white hair and a yellow shirt in front of a blue wall"
    assert colours(replace(room(), prompt=asked)) == 0.5


def test_long_hair_is_not_taken_for_the_shirt():
    video = room().video.copy()
    video[:, 24:36, 4:44] = PAINTS["white"]
    asked = "A woman with white hair and a green shirt in front of a blue wall"
    assert colours(replace(room(), video=video, prompt=asked)) == 1.0


def test_a_prompt_without_colours_is_a_failure():
    assert "asks for no colour" in str(colours(replace(room(), prompt="a drum")))


# Real clips in every odd form --------------------------------------------------------------------------------------


SAMPLES = 37_120  # 2.32 s at 16 kHz


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """Files of all kinds that people hand in, cut from a real clip."""
    data = os.environ.get("CCL_TEST_DATA")
    if not data:
        pytest.skip("needs CCL_TEST_DATA with clips/ and weights/")
    folder = tmp_path_factory.mktemp("odd")
    clips = Path(data) / "clips"
    talk = (clips / "versebench_syncnet_1.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(talk[: len(talk) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no film")
    shutil.copy(clips / "jfk.flac", folder / "sound.flac")
    from ccl.media import read_clip

    film = read_clip(clips / "versebench_syncnet_1.mp4")
    blows = read_clip(clips / "condfoley_hitting_bag.mp4")
    fps15 = replace(blows, video=blows.video[:35, ::4, ::4][:, :84, :150], audio=blows.audio[:SAMPLES], times=None)
    fps15.save(folder / "fps15.mp4")
    small = film.video[:, ::4, ::4][:, :120, :192]
    Clip(small[:1], film.audio[:640], film.fps, id="one").save(folder / "one_picture.mp4")
    Clip(small[:58], film.audio[:SAMPLES], film.fps, id="short").save(folder / "short.mp4")
    Clip(small[:50], None, film.fps, id="mute").save(folder / "mute.mp4")
    Clip(small[:50], np.zeros(SAMPLES, np.float32), film.fps, id="silent").save(folder / "silent.mp4")
    return folder


def test_odd_files_each_give_a_value_or_a_reason(odd, tmp_path):
    data = Path(os.environ["CCL_TEST_DATA"]) / "weights"
    out = tmp_path / "out"
    rows = [{"id": path.stem, "prompt": "p", "speech": "hello there"} for path in sorted(odd.iterdir())]
    (tmp_path / "rows.jsonl").write_text(write_rows(rows))
    argv = ["--videos", odd, "--testset", tmp_path / "rows.jsonl", "-o", out, "--whisper", data / "whisper-tiny.en.pt"]
    argv += ["--metrics", "wer,av_align,sync,desync,ib,audiobox"]
    argv += ["--weights", f"yunet={data / 'face_detection_yunet_2026may.onnx'}"]
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    found = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    columns = {column.name for name in argv[9].split(",") for column in METRICS[name].columns}
    assert {(row["id"], row["metric"]) for row in found} == {(Row(**row).id, c) for row in rows for c in columns}
    assert all((row["value"] is None) != (row["reason"] is None) for row in found)
    reason = {(row["id"], row["metric"]): row["reason"] for row in found}
    value = {(row["id"], row["metric"]): row["value"] for row in found}
    assert "truncated" in reason["truncated", "av_align"]
    assert "no media file" in reason["empty", "wer"] and "no media file" in reason["text", "wer"]
    assert reason["mute", "wer"] == "no audio stream"
    assert reason["sound", "av_align"] == "no video stream"
    assert 0 <= value["fps15", "av_align"] <= 1
    assert value["silent", "wer"] is not None


def test_odd_files_are_rated_or_tell_why(odd):
    """By DNSMOS alone, whose networks take longer than all others together."""
    empty, mute, sound = METRICS["dnsmos"]().score([odd / name for name in ("empty.mp4", "mute.mp4", "sound.flac")])
    assert "no media file" in empty.reason and mute.reason == "no audio stream"
    assert sound.values["dnsmos_p808"] > 2.5


PICTURES = {
    "--images: nothing is given": ["--images", ""],
    "--pipeline: nothing is given": ["--pipeline", ""],
    "--out: nothing is given": ["--images", "pics", "-o", ""],
    "of 16 to 8192 pixels a side": ["--images", "pics", "--size", "99999999x99999999"],
    "pics lacks 1 of 1 pictures": ["--images", "pics"],
}


@pytest.mark.parametrize("sentence", PICTURES)
def test_pictures_that_cannot_be_made_leave_nothing(sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    (tmp_path / "rows.jsonl").write_text(write_rows([{"id": "c0", "prompt": "p", "image_prompt": "p"}]))
    assert cli.main(["testset", "images", "--testset", "rows.jsonl", "-o", "out", *PICTURES[sentence]]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert sentence in error and "\n" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pics", "rows.jsonl"]
