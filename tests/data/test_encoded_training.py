"""Training on encoded shards: what they hold stands for the codec and the text encoder, and must be theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ccl.files
import ccl.media.read
from ccl import cli
from ccl.cli.fit import used
from ccl.codecs.base import Codec
from ccl.data.datamodule import ShardData
from ccl.data.encode import encode_shards
from ccl.data.filters import Cuts
from ccl.data.shards import Shards, collate
from ccl.data.write import write_shards
from ccl.media import write_clip
from ccl.tasks import PAPER_TASKS
from ccl.text.states import TextStates
from ccl.training.module import JointDiffusion
from ccl.types import AV
from ccl.weights.find import Absent
from helpers import ROOT
from helpers.encoded import contents, make_codec
from helpers.fakes import GRID, make_net, make_text
from helpers.tiny_clips import tiny_clip, tiny_folder, tiny_sources
from helpers.tiny_encoders import FrozenText, MeanAudio, MeanVideo


def test_losses_from_stored_states_are_those_of_the_encoder(clips, tmp_path):
    encode_shards(clips, tmp_path / "z", make_codec(), GRID, text=FrozenText(), dtype="float32")
    batch = collate(list(Shards(tmp_path / "z", GRID, shuffle=0, endless=False))[:6])
    module = JointDiffusion(make_net, FrozenText, make_codec(), GRID, text_dropout=0.5)
    module.configure_model()
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(parameter)))
    (stored,), _ = module.losses(batch, PAPER_TASKS["joint"], index=0)
    (direct,), _ = module.losses(replace(batch, text=None), PAPER_TASKS["joint"], index=0)
    assert all(torch.equal(a, b) for a, b in zip(stored, direct, strict=True))
    wrong = TextStates([p + 1 for p in batch.text.prompts], batch.text.empty, batch.text.length)
    (other,), _ = module.losses(replace(batch, text=wrong), PAPER_TASKS["joint"], index=0)
    assert not torch.equal(other.video, stored.video)


def test_states_of_another_encoder_are_refused(whole):
    data = ShardData(str(whole), GRID, make_codec())
    data.refuse_text(FrozenText())
    with pytest.raises(ValueError, match=r"are of frozen-1, the model's text encoder is frozen-2; encode again"):
        data.refuse_text(FrozenText("frozen-2"))
    with pytest.raises(ValueError, match=r"are of frozen-1, and the model's text encoder trains"):
        data.refuse_text(make_text())
    short = FrozenText()
    short.length = 5
    with pytest.raises(ValueError, match=r"are 6 of 8 numbers a prompt, the model's text encoder gives 5 of 8"):
        data.refuse_text(short)


def test_training_needs_no_files_of_the_text_encoder(whole):
    ShardData(str(whole), GRID, make_codec()).refuse_text(Away())


class Away(FrozenText):
    """An encoder whose files are not here."""

    @property
    def identity(self):
        raise Absent("there is no file or folder umt5")


class AwayVideo(MeanVideo):
    """A codec whose files are not here."""

    @property
    def identity(self):
        raise Absent("there is no file or folder vae")


def test_what_cannot_be_checked_is_said_in_a_line(whole, capsys):
    data = ShardData(str(whole), GRID, Codec(AwayVideo(), MeanAudio()))
    data.serve(AV(True, True), Away())
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" weights are not")[0] for line in lines] == ["the codec's", "the text encoder's"]
    assert all(str(whole) in line for line in lines) and "(mean-video+mean-audio) was not checked" in lines[0]
    assert next(iter(data.train_dataloader())).latents.video is not None
    data.serve(AV(False, True), FrozenText())  # of a codec that is not used there is nothing to check
    assert capsys.readouterr().out == ""


def test_of_two_codecs_the_one_that_is_here_is_checked(whole):
    class Other(MeanAudio):
        @property
        def identity(self):
            return "other"

    data = ShardData(str(whole), GRID, Codec(AwayVideo(), Other()))
    with pytest.raises(ValueError, match=r"are of codec mean-video\+mean-audio, the model's is other; encode again"):
        data.train_dataloader()
    data.streams = AV(True, False)
    assert next(iter(data.train_dataloader())).latents.audio is None


def test_shards_without_states_fit_any_encoder(clips):
    ShardData(str(clips), GRID).refuse_text(make_text())


FIT = """
grid: {frames: 9, height: 16, width: 16}
codec:
  video: {class_path: helpers.tiny_encoders.MeanVideo}
  audio: {class_path: helpers.tiny_encoders.MeanAudio}
model:
  pretrained: null
  freeze: null
  net:
    init_args:
      video: {width: 64, ffn: 64, channels: 4}
      audio: {width: 32, ffn: 32, channels: 6}
      layers: 1
      text_dim: 8
  optimizer: {schedule: constant}
  text: {class_path: helpers.tiny_encoders.FrozenText, init_args: {name: frozen-1}}
data:
  class_path: ccl.data.ShardData
  init_args: {shards: SHARDS, batch_size: 2}
trainer:
  callbacks:
    - class_path: ccl.callbacks.TaskRouter
    - class_path: ccl.callbacks.LossLog
    - class_path: ccl.callbacks.SaveCheckpoint
  max_steps: 2
  enable_progress_bar: false
  enable_model_summary: false
"""


def test_fit_reads_stored_states_and_refuses_those_of_another_encoder(whole, tmp_path, capsys):
    (tmp_path / "fit.yaml").write_text(FIT.replace("SHARDS", str(whole)))
    (tmp_path / "other.yaml").write_text("model: {text: {init_args: {name: frozen-2}}}")
    # An encoder whose weights are nowhere: the shards have what it would say.
    away = "model: {text: {class_path: ccl.text.umt5.UMT5, init_args: {path: nowhere, dim: 8, length: 6}}}\n"
    video = "codec: {video: {class_path: ccl.codecs.wan.WanVideo, init_args: {path: nowhere, channels: 4}}}\n"
    (tmp_path / "away.yaml").write_text(away + video)
    joint = str(ROOT / "configs/joint.yaml")

    def fit(name: str, *configs: str) -> int:
        stack = [flag for file in configs for flag in ("--config", str(tmp_path / file))]
        return cli.main(["fit", "--config", joint, *stack, "--runs_dir", str(tmp_path), "--name", name])

    assert fit("a", "fit.yaml") == 0 and fit("b", "fit.yaml", "away.yaml") == 0
    assert (tmp_path / "a/losses.jsonl").read_text() == (tmp_path / "b/losses.jsonl").read_text() != ""
    assert capsys.readouterr().out.count("was not checked") == 2
    # What could not be checked is kept: the run, and a model of it, say whose latents they were trained on.
    assert json.loads((tmp_path / "b/run.json").read_text())["starts"][0]["codec"] == "mean-video+mean-audio"
    assert (
        cli.main(["export", str(tmp_path / "b"), "-o", str(tmp_path / "model"), "--trust", "helpers.tiny_encoders"])
        == 0
    )
    assert "codec: mean-video+mean-audio" in (tmp_path / "model/config.yaml").read_text()
    capsys.readouterr()
    assert fit("c", "fit.yaml", "other.yaml") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        f"ccl: the text states in {whole} are of frozen-1, the model's text encoder is frozen-2; encode again"
    )


def test_weights_that_a_training_never_reads_need_not_be_here(clips, whole):
    config = {"trainer": {"callbacks": []}, "codec": {"video": "V", "audio": "A"}}

    def needed(net: dict, callbacks: tuple[str, ...] = (), **shards: Path) -> tuple:
        config["model"] = {"net": {"init_args": net}, "text": "T"}
        config["data"] = {"init_args": {name: str(folder) for name, folder in shards.items()}}
        config["trainer"] = {"callbacks": [{"class_path": name} for name in callbacks]}
        left = used(config)
        return left["codec"], left["model"]["text"]

    both, sound = {"video": "V", "audio": "A"}, {"audio": "A"}
    assert needed({}, shards=whole) == (None, None)
    assert needed({}, shards=clips) == (both, "T") and needed({"video": None}, shards=clips) == (sound, "T")
    assert needed({}, shards=whole, val_shards=clips) == (both, "T")
    assert needed({}, ("ccl.callbacks.Preview",), shards=whole) == (both, "T")  # makes clips
    assert needed({}, shards=Path("nowhere")) == needed({}) == (both, "T")


# Sound alone


ALONE = """
model:
  net: {init_args: {video: null, interaction: {class_path: ccl.interaction.NoInteraction}}}
  tasks: TASKS
"""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Shards of the sound of the ten clips, from their mp4s and from a file of sound."""
    folder = tiny_folder(tmp_path_factory.mktemp("sounds"), 9, GRID)
    write_clip(replace(tiny_clip(9, GRID), video=None), folder / "clip9.m4a")
    (folder / "clip9.txt").write_text("clip number 9")
    assert cli.main(["shards", "make", str(folder), "-o", str(folder / "made"), *SHAPE, "--only", "audio"]) == 0
    return folder / "made"


SHAPE = ["--frames", f"{GRID.frames}", "--fps", f"{GRID.fps:g}", "--height", "16", "--width", "16", "--shard-size", "2"]


def test_a_stream_that_is_not_learned_is_neither_decoded_nor_sent(clips, whole, monkeypatch):
    data = ShardData(str(clips), GRID, make_codec(), batch_size=3, shuffle=0)
    sound = next(iter(data.train_dataloader())).media.audio
    data.streams = AV(False, True)
    monkeypatch.setattr(ccl.media.read, "Pictures", None)  # nothing may look at pictures
    alone = next(iter(data.train_dataloader())).media
    assert alone.video is None and torch.equal(alone.audio, sound)
    data = ShardData(str(whole), replace(GRID, height=32), Codec(AwayVideo(), MeanAudio()), batch_size=3, shuffle=0)
    data.streams = AV(False, True)
    assert next(iter(data.train_dataloader())).latents.video is None


def test_shards_of_sound_alone_hold_all_sounds_and_are_refused_by_a_model_with_pictures(sounds, tmp_path):
    data = ShardData(str(sounds), replace(GRID, height=32), batch_size=10, shuffle=0)
    batch = next(iter(data.train_dataloader()))
    assert batch.id == [f"clip{n}" for n in range(10)] and batch.prompt[9] == "clip number 9"
    assert batch.media.video is None and batch.media.audio.shape == (10, GRID.samples)
    data.streams = AV(True, True)
    with pytest.raises(ValueError, match=r"hold no video, and the model learns video; train on others"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="sound alone cannot be filtered by cuts"):
        write_shards(tiny_sources(2, GRID), tmp_path / "cuts", GRID, filters=[Cuts()], sound=True)


def test_a_model_without_pictures_learns_the_same_from_sound_alone_as_from_clips(sounds, tmp_path, capsys):
    parts = [
        "--video-codec",
        "WanVideo {path: nowhere, channels: 4}",
        "--audio-codec",
        "helpers.tiny_encoders.MeanAudio",
    ]
    made = [
        "shards",
        "encode",
        str(sounds),
        "-o",
        str(tmp_path / "z"),
        *parts,
        "--text",
        "helpers.tiny_encoders.FrozenText",
    ]
    assert cli.main(made) == 0
    settings = json.loads((tmp_path / "z/index.json").read_text())["settings"]
    assert settings["codec"] == "mean-audio" and settings["streams"] == ["audio"]
    both = ROOT / "configs"
    (tmp_path / "alone.yaml").write_text(ALONE.replace("TASKS", str(both / "tasks/audio.yaml")))
    encode_shards(sounds, tmp_path / "again", make_codec(), GRID, text=FrozenText())
    assert contents(tmp_path / "again") == contents(tmp_path / "z")
    names = {"sound": sounds, "latents": tmp_path / "z"}
    for name, folder in names.items():
        (tmp_path / "fit.yaml").write_text(FIT.replace("SHARDS", str(folder)))
        stack = [both / "joint.yaml", tmp_path / "fit.yaml", tmp_path / "alone.yaml"]
        flags = [flag for file in stack for flag in ("--config", str(file))]
        assert cli.main(["fit", *flags, "--runs_dir", str(tmp_path), "--name", name]) == 0
    sound, latents = ([json.loads(x) for x in (tmp_path / n / "losses.jsonl").read_text().splitlines()] for n in names)
    assert [row["loss"] for row in sound] == pytest.approx([row["loss"] for row in latents], rel=0.02)  # bfloat16
