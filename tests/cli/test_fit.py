"""The main job as a user types it, at a tiny size: fit, resume, export, generate, evaluate, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccl import cli
from ccl.media import read_clip
from helpers import ROOT

JOINT = str(ROOT / "configs" / "joint.yaml")
TINY = """\
model:
  net:
    init_args:
      video: {width: 64, ffn: 64}
      audio: {width: 32, ffn: 32}
      layers: 1
      head_dim: 32
  optimizer: {schedule: constant}
  pretrained: null
  freeze: null
data:
  init_args: {root: ROOT/world, clips: 8, batch_size: 2, makers: 0}
trainer:
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.EMA
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
      init_args: {every: 2}
  enable_progress_bar: false
  enable_model_summary: false
sampling: {steps: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    (folder / "tiny.yaml").write_text(TINY.replace("ROOT", str(folder)))
    return folder


def fit(folder: Path, *more: str) -> int:
    return cli.main(["fit", "--config", JOINT, "--config", str(folder / "tiny.yaml"), "--runs_dir", str(folder), *more])


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run of two steps."""
    assert fit(folder, "--name", "a", "--trainer.max_steps", "2") == 0
    return folder / "a"


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "losses.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_config_facts_losses_and_checkpoint(run: Path) -> None:
    assert steps(run)[:2] == [1, 2]
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["net"]["init_args"]["layers"] == 1
    assert json.loads((run / "run.json").read_text())["starts"][0]["seed"] == 0
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert any((run / "tensorboard").iterdir())


def test_the_same_name_is_refused_and_nothing_changes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "losses.jsonl").read_bytes()
    assert fit(run.parent, "--name", "a", "--trainer.max_steps", "2") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is taken: resume it with --ckpt_path last, or choose another --name" in said
    assert (run / "losses.jsonl").read_bytes() == before


def test_the_saved_config_alone_goes_on_with_the_run(run: Path) -> None:
    argv = ["--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps", "3"]
    assert cli.main(["fit", *argv]) == 0
    assert steps(run) == [1, 2, 3]


def test_a_run_that_is_finished_says_so_and_how_it_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    assert cli.main(["fit", *argv]) == 0
    said = capsys.readouterr().out
    assert "run a has finished its 3 steps (it is at step 3), and nothing is left to train" in said
    assert cli.main(["fit", *argv, *said.partition("; ")[2].replace(" M goes on", " 4").split()]) == 0
    assert steps(run) == [1, 2, 3, 4]


def test_a_place_that_cannot_be_found_again_is_told_in_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning tidies up after a loader that did not start, and fails in that, too."""
    other = ["--data.init_args.shuffle", "3", "--trainer.max_steps", "9"]
    assert fit(run.parent, "--name", "order", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), *other) == 1
    said = capsys.readouterr().err
    assert "ccl: the checkpoint counts clips in the order of data.init_args.shuffle 256, and this run reads" in said


def test_another_config_under_the_same_name_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(run.parent, "--name", "a", "--ckpt_path", "last", "--model.text_dropout", "0.5") == 1
    assert "model.text_dropout was 0.1 and is 0.5" in capsys.readouterr().err


def test_what_is_printed_for_other_workers_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--data.init_args.num_workers", "1"]
    assert fit(run.parent, "--name", "a", "--ckpt_path", "last", *other) == 1
    said = capsys.readouterr().err
    assert "data.init_args.num_workers was 0 and is 1" in said
    way = said.strip().rpartition("anew: ")[2].split()
    assert way[:3] == ["--name", "OTHER", "--model.pretrained"]
    assert fit(run.parent, "--name", "workers", *way[2:], *other, "--trainer.max_steps", "1") == 0
    assert steps(run.parent / "workers") == [1]


def test_a_mistake_before_the_first_step_does_not_take_the_name(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, size, what in (
        ("video.width", 33, "the video stream's width 33 is not a multiple of head_dim 32"),
        ("layers", 0, "layers is 0; it must be a whole number from 1 to 1,024"),
    ):
        assert fit(folder, "--name", "b", f"--model.net.init_args.{key}", str(size), "--trainer.max_steps", "1") == 2
        assert f"ccl: model.net: {what}" in capsys.readouterr().err
        assert not (folder / "b").exists()
    assert fit(folder, "--name", "b", "--trainer.max_steps", "1") == 0


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        ("nmae: x", "there is no key 'nmae' in FILE, line 1 (did you mean 'name'?)"),
        ("trainer:\n  max_step: 3", "there is no key 'trainer.max_step' in FILE, line 2 (did you mean 'max_steps'?)"),
        (
            "model: {net: {init_args: {layerz: 3}}}",
            "there is no key 'model.net.init_args.layerz' in FILE, line 1 (did you mean 'layers'?)",
        ),
        (
            "model: {net: {init_args: {interaction: {init_args: {align: {init_args: {center: paper}}}}}}}",
            "there is no key 'model.net.init_args.interaction.init_args.align.init_args.center' in FILE, line 1 "
            "(did you mean 'centre'?)",
        ),
        (
            "trainer:\n  callbacks:\n    - class_path: ccl.callbacks.EMA\n      init_args: {decya: 1}",
            "there is no key 'trainer.callbacks.0.init_args.decya' in FILE, line 4 (did you mean 'decay'?)",
        ),
        ("model: {optimizer: {lrr: 1}}", "there is no key 'model.optimizer.lrr' in FILE, line 1 (did you mean 'lr'?)"),
        (
            "model: {net: {init_args: {layers: three}}}",
            "model.net.init_args.layers in FILE, line 1: it must be int, not 'three'",
        ),
        (
            "model: {tasks: {joint: {prob: 1, terms: [{route: {}, given: {video: {part: al}}}]}}}",
            "model.tasks.joint.terms.0.given.video.part in FILE, line 1: it must be one of 'all', 'first_frame', "
            "'last_frame', 'first_last', 'prefix', 'suffix', 'voice', not 'al'",
        ),
        ("model: {net: {class_path: ccl.model.Dual}}", "FILE, line 1: ccl.model ("),
        ("data: {init_args: {shardz: x}}", "there is no key 'data.init_args.shardz' in FILE, line 1"),
        (
            "trainer: {callbacks.xx: [{class_path: ccl.callbacks.LossLog}]}",
            "there is no key 'trainer.callbacks.xx' in FILE, line 1",
        ),
        ("name: x\ntrainer: {'': 3}", "the key '' in FILE, line 2 has an empty word"),
        ("grid: {frames: 78}", "grid.frames is 78; the video codec needs 4k + 1 frames"),
        (
            "class_path: ccl.guidance.TextCFG\ninit_args: {}",
            "FILE is a part, a ccl.guidance.TextCFG, and no config with keys of its own: name it where it belongs, "
            "--sampling.guidance FILE",
        ),
        ("joint: {prob: 1, terms: []}", "FILE is a part, tasks, and no config with keys of its own: name it where it "),
        ("a: [", "FILE, line 1 is not YAML"),
        ("only text", "FILE holds no keys"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_that_names_it(
    overlay: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "o.yaml"
    file.write_text(overlay)
    assert cli.main(["fit", "--config", JOINT, "--config", str(file), "--runs_dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert sentence.replace("FILE", str(file)) in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_mistake_on_the_command_line_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--config", JOINT, "--trainer.max_step", "3"]) == 2
    assert "there is no option '--trainer.max_step' (did you mean '--trainer.max_steps'?)" in capsys.readouterr().err
    assert cli.main(["fit", "--config", JOINT, "--trainer.max_steps", "x"]) == 2
    assert "trainer.max_steps on the command line: it must be int, not 'x'" in capsys.readouterr().err
    for seed in (-1, 2**32):
        assert cli.main(["fit", "--config", JOINT, f"--seed_everything={seed}"]) == 2
        assert (
            f"seed_everything is {seed}; it must be a whole number from 0 to 4,294,967,295" in capsys.readouterr().err
        )


def test_an_overlay_alone_says_that_it_follows_a_whole_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--config", str(ROOT / "configs" / "trainer" / "ddp.yaml")]) == 2
    assert "an overlay follows a whole one, such as --config configs/joint.yaml" in capsys.readouterr().err


def test_print_config_prints_what_the_files_add_up_to(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "--config", JOINT, "--trainer.max_steps", "7", "--print_config"])
    assert left.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_steps"] == 7
    assert config["model"]["net"]["init_args"]["interaction"]["class_path"] == "ccl.interaction.CCA"


def test_a_run_becomes_a_model_that_generates_and_is_scored(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "clips"
    assert cli.main(["export", str(run), "-o", str(model)]) == 0
    assert {path.name for path in model.iterdir()} == {"config.yaml", "model.safetensors"}
    assert cli.main(["generate", "--ckpt", str(model), "--prompt", 'a man says "hello"', "-o", str(out / "x.mp4")]) == 0
    clip = read_clip(out / "x.mp4")
    assert clip.video is not None and clip.video.shape == (77, 48, 48, 3)

    sound = ["--audio", str(out / "x.mp4"), "--guidance", "ucg3", "--scale", "4", "3", "--modal", "2", "2"]
    assert cli.main(["generate", "--ckpt", str(model), "--prompt", "a man", *sound, "-o", str(out / "y.mp4")]) == 0
    assert json.loads((out / "y.json").read_text())["guidance"]["rule"] == "UCG3"

    assert cli.main(["evaluate", "--videos", str(out), "--metrics", "mouth", "-o", str(tmp_path / "scores")]) == 0
    scores = [json.loads(line) for line in (tmp_path / "scores" / "scores.jsonl").read_text().splitlines()]
    assert [score["id"] for score in scores if score["metric"] == "mouth"] == ["x", "y"]


def test_a_checkpoint_generates_a_file_of_prompts(run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "one", "prompt": "a drum", "seed": 1}\n{"id": "two", "prompt": "a bell"}\n')
    ckpt = ["--ckpt", str(run / "checkpoints" / "last.ckpt")]
    guidance = ["--guidance", str(ROOT / "configs" / "guidance" / "none.yaml")]
    argv = ["generate", *ckpt, "--prompts", str(prompts), *guidance, "-o", str(tmp_path / "out")]
    assert cli.main(argv) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.json", "one.mp4", "two.json", "two.mp4"}


def test_a_bad_line_of_prompts_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
    assert cli.main(["generate", "--prompts", str(prompts), "-o", str(tmp_path / "out")]) == 1
    assert f"ccl: {prompts}, line 2: there is no key 'promt' (did you mean 'prompt'?)" in capsys.readouterr().err


def test_a_guidance_that_does_not_exist_names_those_that_do(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "generate",
        "--ckpt",
        str(run / "checkpoints" / "last.ckpt"),
        "--prompt",
        "a",
        "-o",
        str(tmp_path / "x.mp4"),
    ]
    assert cli.main([*argv, "--guidance", "ugc2"]) == 2
    assert "there is no guidance 'ugc2' (did you mean 'ucg2'?)" in capsys.readouterr().err
    assert cli.main([*argv, "--guidance", "none", "--scale", "1", "1"]) == 2
    assert "guidance 'none' has no such strength: --scale" in capsys.readouterr().err


def test_a_demo_goes_on_from_what_is_trained_and_once_more_only_measures(
    folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = ["--config", JOINT, "--config", str(folder / "tiny.yaml"), "--runs-dir", str(folder), "--name", run.name]
    argv = ["demo", *stack, "--steps", "2", "--clips", "4", "--solver-steps", "1"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert "is trained already" in said
    assert "joint: pictures and sound from the prompt" in said and "a2v: pictures for a given sound" in said
    made = {path: path.stat().st_mtime_ns for path in run.rglob("*.mp4")}
    assert len(made) == 4 * 4  # true, through the codec, joint, a2v
    with (run / "scores" / "a2v" / "summary.csv").open() as file:
        assert {line["column"] for line in csv.DictReader(file)} == {"mouth", "colours"}

    assert cli.main(argv) == 0
    assert "is trained already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.mp4")} == made


def test_a_smoke_names_no_folder_that_is_gone_and_keeps_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, str, int]] = []

    def run(configs: Any, runs_dir: Path, name: str, overrides: Any, *, clips: int, **_: Any) -> Path:
        asked.append((runs_dir, name, clips))
        return runs_dir / name

    monkeypatch.setattr("ccl.demo.run", run)
    assert cli.main(["demo", "--config", JOINT, "--smoke"]) == 0
    assert "report.html" not in (said := capsys.readouterr().out) and "nothing of it is kept" in said
    argv = ["demo", "--config", JOINT, "--smoke", "--runs-dir", str(tmp_path), "--name", "own", "--clips", "6"]
    assert cli.main(argv) == 0
    assert f"{tmp_path}/own/scores/joint/report.html" in capsys.readouterr().out
    assert not asked[0][0].exists() and asked[0][1:] == ("smoke", 4)
    assert asked[1] == (tmp_path, "own", 6)


def test_shards_are_made_of_the_world_and_encoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media, latents = tmp_path / "media", tmp_path / "latents"
    argv = ["shards", "world", "-o", str(media), "--clips", "2", "--split", "test", "--workers", "0"]
    assert cli.main(argv) == 0
    assert cli.main(["shards", "encode", str(media), "-o", str(latents), "--config", JOINT]) == 0
    assert "2 clips in 1 shard," in capsys.readouterr().out
    assert (latents / "index.json").is_file()
