"""OWNER/NAME of the hub wherever a verb takes a model: what is fetched, where results go, and what may not run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import save_file

from ccl import cli
from ccl.callbacks.words import known_to
from ccl.cli.fit import resolve
from ccl.model.load import stream_state
from ccl.rows import write_rows
from ccl.storage.model_folder import build, from_run, save_model
from ccl.storage.source import located
from ccl.training.start import begin, fetched
from helpers import ROOT
from helpers.fakes import make_module
from helpers.hub_server import COMMIT, TOKEN, Hub, serving_tiny
from helpers.tiny import PROMPTS, awake, tiny_config, tiny_model, tiny_state

ROW = {"id": "c0", "prompt": PROMPTS[0]}
OTHER = "f" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds user/tiny, and a working directory with a test set, and a module that must not run."""
    with serving_tiny(tmp_path, monkeypatch) as found:
        Path("rows.jsonl").write_text(write_rows([ROW]))
        Path("planted.py").write_text("raise RuntimeError('the planted module has run')")
        yield found
    sys.modules.pop("planted", None)


EVALUATE = ["--testset", "rows.jsonl", "--metrics", "av_align"]
DOORS: dict[str, list[str]] = {
    "generate": ["generate", "--prompt", "x", "-o", "x.mp4", "--ckpt"],
    "evaluate": ["evaluate", *EVALUATE, "--ckpt"],
    "export": ["export", "-o", "exported"],
    "inspect words": ["inspect", "words", "--ckpt"],
    "inspect attention": ["inspect", "attention", "-o", "inside", "--ckpt"],
    "inspect quantized": ["inspect", "quantized", "--ckpt"],
    "inspect route": ["inspect", "route", "--ckpt"],
    "inspect voice": ["inspect", "voice", "--ckpt"],
    "inspect seams": ["inspect", "seams", "--world", "1", "--ckpt"],
    "serve": ["serve", "--ckpt"],
}


def door(name: str) -> list[str]:
    if name == "serve":
        pytest.importorskip("gradio", reason="the page needs the extra ccl[demo]")
    return DOORS[name]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one sentence of a command that is refused."""
    assert cli.main(list(argv)) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccl: ")]
    assert len(lines) == 1, lines
    return lines[0]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", DOORS)
def test_a_path_that_is_not_here_is_told_by_every_verb_and_asks_nobody(
    name: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no checkpoint" in said(capsys, *door(name), "./user/tiny")
    assert hub.asked == []


@pytest.mark.parametrize("name", DOORS)
def test_a_model_of_the_hub_runs_no_code_but_that_of_ccl(
    name: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((hub.folder / "config.yaml").read_text())
    config["text"] = {"class_path": "planted.Text"}
    (hub.folder / "config.yaml").write_text(yaml.safe_dump(config))
    refusal = said(capsys, *door(name), "user/tiny")
    assert "names 'planted.Text', which is no class of ccl" in refusal and "--trust planted" in refusal
    assert "planted" not in sys.modules
    assert "the planted module has run" in said(capsys, *door(name), "user/tiny", "--trust", "planted")


@pytest.mark.parametrize("name", DOORS)
def test_a_model_that_the_hub_has_not_is_told_by_every_verb(
    name: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "user/other here and no repository of that name on the hub" in said(capsys, *door(name), "user/other")


def test_scores_of_a_model_of_the_hub_lie_in_the_working_directory(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", *EVALUATE, "--ckpt", "user/tiny@v1"]) == 0
    out = Path("scores/user/tiny@v1/evaluation/rows")
    assert {path.name for path in out.iterdir()} >= {"clips", "scores.jsonl", "table.md", "results.json"}
    assert {json.loads(line)["method"] for line in (out / "scores.jsonl").read_text().splitlines()} == {"user/tiny@v1"}
    assert {path.name for path in files(tmp_path / "cache" / "models--user--tiny" / "snapshots")} == {
        "config.yaml",
        "model.safetensors",
    }
    made = (out / "clips" / "c0.mp4").stat().st_mtime_ns
    # The same model in a folder made these very clips: nothing is made again, or refused as another's.
    assert cli.main(["evaluate", *EVALUATE, "--ckpt", str(hub.folder), "-o", str(out), "--name", "mine"]) == 0
    assert (out / "clips" / "c0.mp4").stat().st_mtime_ns == made


def test_who_sees_whom_in_a_model_of_the_hub(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "route", "--ckpt", "user/tiny@v1"]) == 0
    assert "a2v" in capsys.readouterr().out and any("/revision/v1" in path for path in hub.asked)


# Training ------------------------------------------------------------------------------------------------------------


def start(pretrained: Any) -> dict[str, torch.Tensor]:
    """The weights that a training of the tiny model begins with."""
    model = build(tiny_config(), "tiny")
    awake(model.net, 5), awake(model.text, 6)
    begin(model.net, model.text, pretrained)
    return model.net.state_dict()


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_training_begins_with_a_stream_of_a_model_of_the_hub(stream: Any, hub: Hub) -> None:
    begun, fresh, theirs = start({stream: "user/tiny@v1"}), start({}), tiny_model().net.state_dict()
    taken = stream_state(begun, stream)
    assert taken and all(torch.equal(value, stream_state(theirs, stream)[name]) for name, value in taken.items())
    other = "video" if stream == "audio" else "audio"
    kept = stream_state(begun, other)
    assert kept and all(torch.equal(value, stream_state(fresh, other)[name]) for name, value in kept.items())
    asked = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert asked == {"config.yaml", "model.safetensors"}


def test_training_begins_with_a_whole_model_of_the_hub_and_knows_its_words(hub: Hub) -> None:
    config = yaml.safe_load((hub.folder / "config.yaml").read_text())
    config["provenance"]["words"] = ["ball", "bell"]
    (hub.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert all(torch.equal(value, tiny_model().net.state_dict()[name]) for name, value in start("user/tiny").items())
    assert known_to("user/tiny") == ["ball", "bell"]


def test_a_folder_here_is_begun_with_before_a_repository_there(hub: Hub) -> None:
    save_model("user/tiny", tiny_config(), tiny_state(2.0))
    assert fetched({"audio": "user/tiny"}) == {} and hub.asked == []
    taken = stream_state(start({"audio": "user/tiny"}), "audio")
    assert all(
        torch.equal(value, 2 * stream_state(tiny_model().net.state_dict(), "audio")[n]) for n, value in taken.items()
    )


def test_a_backbone_that_was_fetched_whole_is_none_of_ours_and_asks_nobody(hub: Hub) -> None:
    from huggingface_hub import snapshot_download

    for file in hub.folder.iterdir():
        file.unlink()
    save_file({"head.head.weight": torch.zeros(3, 3)}, hub.folder / "diffusion_pytorch_model.safetensors")
    snapshot_download("user/tiny")
    hub.asked.clear()
    assert fetched("user/tiny") == {} and located("user/tiny") == Path("user/tiny") and hub.asked == []
    with pytest.raises(ValueError, match=r"^user/tiny"):
        start({"video": "user/tiny"})


def test_names_of_the_table_of_weights_are_not_asked_of_the_hub(hub: Hub) -> None:
    assert fetched({"video": "Wan-AI/Wan2.1-T2V-14B-Diffusers", "audio": "wan2.1-t2v-14b", "text": None}) == {}
    assert hub.asked == []


def not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.name = "user/other"


def private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private = True


def wrong_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")


def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def no_model(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub.folder / "config.yaml").unlink()


FAULTS: dict[Callable[[Hub, pytest.MonkeyPatch], None], str] = {
    not_there: "there is no checkpoint user/tiny here and no repository of that name on the hub",
    private: "a private one needs `hf auth login`",
    wrong_token: "the hub refuses the token (HTTP 401)",
    offline: "the hub cannot be reached (or HF_HUB_OFFLINE is set); `hf download user/tiny` fetches it",
    no_model: "user/tiny on the hub is no model folder of ccl: it has no config.yaml; a published backbone is fetched "
    "whole, with `hf download user/tiny`",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_start_that_cannot_be_had_is_told_with_its_key(fault: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(hub, monkeypatch)
    with pytest.raises(ValueError, match=r"^model\.pretrained\.audio: ") as told:
        fetched({"video": None, "audio": "user/tiny"})
    assert FAULTS[fault] in str(told.value) and "\n" not in str(told.value)


def test_a_private_start_is_fetched_with_its_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert fetched({"audio": "user/tiny@v1"}) == {"user/tiny@v1": f"user/tiny@{COMMIT}"}


def test_streams_of_another_size_are_told(hub: Hub) -> None:
    for name, stream in (("video", "video"), ("audio", "audio")):
        module = make_module(pretrained={name: "user/tiny"})
        with pytest.raises(ValueError, match=rf"model\.pretrained: user/tiny .*model's {stream} stream"):
            module.configure_model()


def test_of_a_model_to_begin_with_weights_alone_are_read(hub: Hub) -> None:
    config = yaml.safe_load((hub.folder / "config.yaml").read_text())
    config["text"] = config["net"] = {"class_path": "planted.Text"}
    (hub.folder / "config.yaml").write_text(yaml.safe_dump(config))
    start({"audio": "user/tiny"})
    assert "planted" not in sys.modules


JOINT = str(ROOT / "configs" / "joint.yaml")
SMALL = """\
grid: {frames: 77, fps: 25.0, height: 64, width: 64}
model:
  net:
    init_args: {video: {width: 48, ffn: 64}, audio: {width: 24, ffn: 32}, layers: 1, head_dim: 12, text_dim: 16}
  text: {init_args: {dim: 16, length: 16, layers: 1, heads: 2, buckets: 64}}
  optimizer: {schedule: constant}
  pretrained: null
  freeze: null
data:
  init_args: {root: WORLD, clips: 2, batch_size: 2, makers: 0}
trainer:
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.SaveCheckpoint
  enable_progress_bar: false
  enable_model_summary: false
"""


def test_a_run_says_which_commit_it_began_with_and_goes_on_from_that(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("small.yaml").write_text(SMALL.replace("WORLD", str(Path("world").absolute())))
    argv = ["--config", JOINT, "--config", "small.yaml", "--model.pretrained.audio", "user/tiny", "--name", "a"]
    config = from_run(resolve(argv))
    model = build(config, "small")
    awake(model.net), awake(model.text, 1)
    parts = {"net": model.net, "text": model.text}
    shutil.rmtree(hub.folder)
    save_model(hub.folder, config, {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()})
    assert cli.main(["fit", *argv, "--trainer.max_steps", "1"]) == 0
    assert f"user/tiny@{COMMIT}: " in (out := capsys.readouterr().out) and "tensors of the audio stream" in out
    began = json.loads(Path("runs/a/run.json").read_text())["starts"][0]["pretrained"]
    assert began == {"user/tiny": f"user/tiny@{COMMIT}"}
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["model"]["pretrained"]["audio"] == "user/tiny"
    hub.name = "user/gone"  # what it began with lies here, whatever becomes of the name
    hub.asked.clear()
    assert cli.main(["fit", *argv, "--trainer.max_steps", "2", "--ckpt_path", "last"]) == 0
    assert hub.asked == []


def test_a_start_that_the_hub_has_not_is_told_before_anything_is_built(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = said(capsys, "fit", "--config", JOINT, "--model.pretrained.audio", "user/other")
    assert refusal.startswith("ccl: model.pretrained.audio: there is no checkpoint user/other here and no repository")
    assert not Path("runs").exists()
