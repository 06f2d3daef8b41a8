"""Encoding: a shard is the unit of work, done once and whole, by any number of workers that may die at any time."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import ccl.files
import ccl.media.read
from ccl import cli
from ccl.cli.errors import UsageError, one_sentence
from ccl.codecs.base import Codec
from ccl.data.archive import sample_files, write_tar
from ccl.data.datamodule import ShardData
from ccl.data.encode import encode_shards
from ccl.data.shards import EMPTY, Shards, collate
from ccl.data.write import write_shards
from ccl.text.states import valid
from ccl.types import AV
from helpers import TESTS
from helpers.encoded import contents, make_codec
from helpers.fakes import GRID, make_text
from helpers.tiny_clips import tiny_folder, tiny_sources
from helpers.tiny_encoders import Dying, FrozenText, MeanAudio, MeanVideo


def test_states_are_stored_without_padding_and_read_back_as_the_encoder_gives_them(whole):
    samples = list(Shards(whole, GRID, shuffle=0, endless=False))
    text, prompts = FrozenText(), [sample["prompt"] for sample in samples]
    assert all(len(sample["text"].prompts[0]) == len(sample["prompt"].split()) + 1 for sample in samples)
    batch = collate(samples)
    expected = text(prompts).bfloat16().float()
    assert torch.equal(batch.text.read(prompts), expected)
    dropped = ["" if row % 2 else prompt for row, prompt in enumerate(prompts)]
    assert torch.equal(batch.text.read(dropped), text(dropped).bfloat16().float())


def test_states_keep_zeros_that_stand_before_the_last_token():
    states = torch.zeros(5, 2)
    states[0], states[2] = 1, -1
    assert valid(states).shape == (3, 2) and valid(torch.zeros(4, 2)).shape == (1, 2)


def test_an_encoder_that_trains_is_not_stored(clips, tmp_path):
    with pytest.raises(ValueError, match="trains with the model, so its states cannot be stored"):
        encode_shards(clips, tmp_path / "z", make_codec(), GRID, text=make_text())


def test_damaged_states_of_the_empty_prompt_are_named(clips, tmp_path):
    encode_shards(clips, tmp_path, make_codec(), GRID, text=FrozenText())
    data = (tmp_path / EMPTY).read_bytes()
    (tmp_path / EMPTY).write_bytes(data[:-1] + b"!")
    with pytest.raises(ValueError, match=r"empty.safetensors is corrupt"):
        Shards(tmp_path, GRID)
    (tmp_path / EMPTY).unlink()
    with pytest.raises(ValueError, match=r"empty.safetensors, the states of the empty prompt, is missing"):
        Shards(tmp_path, GRID)


# Stopping and going on


def test_a_stopped_run_goes_on_with_the_shards_it_lacks(clips, whole, tmp_path, monkeypatch):
    encoded = []

    def stops(self, video, at: int):
        encoded.append(len(video))
        if len(encoded) == at:
            raise RuntimeError("the power went")
        return MeanVideo.__dict__["encode"](self, video)

    codec = make_codec()
    monkeypatch.setattr(codec.video, "encode", partial(stops, codec.video, at=4))
    with pytest.raises(RuntimeError):
        encode_shards(clips, tmp_path / "z", codec, GRID, text=FrozenText())
    assert not (tmp_path / "z/index.json").exists()
    with pytest.raises(ValueError, match=r"holds no index.json"):
        Shards(tmp_path / "z", GRID)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "z").glob("*.tar")}
    assert len(before) == 3
    encoded.clear()
    monkeypatch.setattr(codec.video, "encode", partial(stops, codec.video, at=-1))
    report = encode_shards(clips, tmp_path / "z", codec, GRID, text=FrozenText())
    assert len(encoded) == 2 and report.written == 10 and not report.reused
    assert all((tmp_path / "z" / name).stat().st_mtime_ns == time for name, time in before.items())
    assert contents(tmp_path / "z") == contents(whole)
    assert encode_shards(clips, tmp_path / "z", codec, GRID, text=FrozenText()).reused and len(encoded) == 2


def test_a_shard_without_its_line_is_never_used(clips, whole, tmp_path, monkeypatch):
    codec = make_codec()
    monkeypatch.setattr(codec.video, "encode", lambda video: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encode_shards(clips, tmp_path, codec, GRID, text=FrozenText())
    (tmp_path / "shard-000000.tar").write_bytes(b"half a shard")
    (tmp_path / "shard-000001.tar").write_bytes(b"half a shard")
    (tmp_path / "shard-000001.line.json").write_text('{"name": "shard-000001.tar", "samples": 2, "bytes": 20480')
    (tmp_path / ".partial-1-shard-000002.tar").write_bytes(b"half a shard")
    encode_shards(clips, tmp_path, make_codec(), GRID, text=FrozenText())
    assert contents(tmp_path) == contents(whole)


def test_two_workers_one_of_them_killed_leave_what_one_run_leaves(clips, whole, tmp_path):
    (tmp_path / "books").mkdir()
    out, codec = tmp_path / "z", Codec(Dying(tmp_path / "books"), MeanAudio())
    with pytest.raises(
        ccl.files.MachineError, match=r"a working process died .* what was finished is kept, so run it again"
    ):
        encode_shards(clips, out, codec, GRID, text=FrozenText(), devices=("cpu", "cpu"))
    assert (tmp_path / "books/killed").exists() and not (out / "index.json").exists()
    assert encode_shards(clips, out, codec, GRID, text=FrozenText(), devices=("cpu", "cpu")).written == 10
    assert contents(out) == contents(whole)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(clips, whole, tmp_path, monkeypatch):
    syncs = []
    sync = os.fsync

    def full(descriptor):
        syncs.append(descriptor)
        if len(syncs) >= 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(ccl.files.whole.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        encode_shards(clips, tmp_path, make_codec(), GRID, text=FrozenText())
    assert one_sentence(caught.value).endswith(": No space left on device")
    assert str(tmp_path) in one_sentence(caught.value)
    names = contents(tmp_path).keys()
    assert "index.json" not in names and not any("partial-" in name for name in names)
    reference = contents(whole)
    assert all(digest == reference[name] for name, digest in contents(tmp_path).items() if name in reference)
    monkeypatch.undo()
    encode_shards(clips, tmp_path, make_codec(), GRID, text=FrozenText())
    assert contents(tmp_path) == reference


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_that_is_really_full(clips, whole, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(OSError) as caught:
            encode_shards(clips, tmp_path / "z", make_codec(), GRID, text=FrozenText())
        assert one_sentence(caught.value).endswith(": No space left on device")
        reference = contents(whole)
        left = contents(tmp_path / "z")
        assert "index.json" not in left and not any("partial-" in name for name in left)
        assert all(digest == reference[name] for name, digest in left.items() if name in reference)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# Refusals


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"text": FrozenText("frozen-2")}, "text"),
        ({"text": None}, "text"),
    ],
)
def test_other_settings_are_refused(clips, whole, change, what):
    options = {"text": FrozenText(), **change}
    with pytest.raises(ValueError, match=f"already holds shards made with other {what}"):
        encode_shards(clips, whole, make_codec(), GRID, **options)


def test_sound_at_another_rate_than_the_codecs_is_refused(clips, tmp_path):
    codec = make_codec()
    codec.audio.sample_rate = 44_100
    with pytest.raises(ValueError, match="has 16000 Hz, and the audio codec takes 44100; make the shards with"):
        encode_shards(clips, tmp_path / "z", codec, GRID)
    assert not (tmp_path / "z").exists()


def test_states_that_are_not_finite_are_named(clips, tmp_path):
    class Wrong(FrozenText):
        def forward(self, prompts):
            return super().forward(prompts) / 0

    with pytest.raises(ValueError, match=r"clip clip0 of .*: its text states are not finite in bfloat16"):
        encode_shards(clips, tmp_path, make_codec(), GRID, text=Wrong())


# Buckets


def test_every_bucket_is_encoded_into_one_of_its_own(tmp_path):
    wide, tall = replace(GRID, width=32), replace(GRID, frames=13, height=32)
    sources = [*tiny_sources(3, wide), *(replace(s, id=f"tall-{s.id}") for s in tiny_sources(4, tall))]
    write_shards(sources, tmp_path / "clips", [wide, tall], shard_size=2)
    report = encode_shards(tmp_path / "clips", tmp_path / "z", make_codec(), GRID, text=FrozenText())
    assert report.written == 7 and report.shards[0]["name"] == "9x16x32/shard-000000.tar"
    data = ShardData(str(tmp_path / "z"), GRID, make_codec(), batch_size=2)
    data.refuse_text(FrozenText())
    shapes = {batch.latents.video.shape[2:] for _, batch in zip(range(20), data.train_dataloader(), strict=False)}
    assert shapes == {(3, 2, 4), (4, 4, 2)}
    assert encode_shards(tmp_path / "clips", tmp_path / "z", make_codec(), GRID, text=FrozenText()).reused
    with pytest.raises(ValueError, match="holds the buckets 9x16x32, 13x32x16; choose another folder"):
        encode_shards(tmp_path / "clips/9x16x32", tmp_path / "z", make_codec(), wide)


# The verb


CONFIG = """
grid: {frames: 9, fps: 25.0, height: 16, width: 16}
codec:
  video: {class_path: helpers.tiny_encoders.MeanVideo}
  audio: {class_path: helpers.tiny_encoders.MeanAudio}
model:
  text: {class_path: helpers.tiny_encoders.FrozenText, init_args: {name: frozen-1}}
"""


def test_the_verb_takes_its_parts_from_a_config_or_from_the_command_line(clips, whole, tmp_path, capsys):
    (tmp_path / "model.yaml").write_text(CONFIG)
    (tmp_path / "text.yaml").write_text("class_path: helpers.tiny_encoders.FrozenText\ninit_args: {name: frozen-1}\n")
    assert (
        cli.main(["shards", "encode", str(clips), "-o", str(tmp_path / "a"), "--config", str(tmp_path / "model.yaml")])
        == 0
    )
    parts = [
        "--video-codec",
        "helpers.tiny_encoders.MeanVideo",
        "--audio-codec",
        "helpers.tiny_encoders.MeanAudio {}",
        "--text",
        str(tmp_path / "text.yaml"),
    ]
    assert cli.main(["shards", "encode", str(clips), "-o", str(tmp_path / "b"), *parts]) == 0
    assert "10 clips in 5 shards" in capsys.readouterr().out

    def grid(folder: Path):
        return json.loads((folder / "index.json").read_text())["settings"]

    assert grid(tmp_path / "a")["text"] == {"dim": 8, "identity": "frozen-1", "length": 6}
    assert grid(tmp_path / "a") == grid(tmp_path / "b") == grid(whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text", "UMT6 {path: x}"], "--text: there is no class 'UMT6' (did you mean 'UMT5'?)"),
        (["--text", "UMT5 path"], "--text: path is no mapping such as {path: wan2.1-t2v-1.3b}"),
        (["--video-codec", "WanVideo {pth: x}"], "--video"),
        (["--text", "ccl.text.EmbeddedText"], "--text: this text encoder trains with the model"),
        (["--device", "cuda:99"], "--device is cuda:99, which this machine or this torch does not have"),
        (["--workers", "0"], "--workers is 0; it must be a whole number from 1"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_work(clips, tmp_path, flags, message):
    with pytest.raises(UsageError) as caught:
        cli.run(["shards", "encode", str(clips), "-o", str(tmp_path / "z"), *flags])
    assert message in str(caught.value)
    assert not (tmp_path / "z").exists()


def test_latents_are_told_from_clips_by_the_verb(whole, tmp_path):
    with pytest.raises(UsageError, match=f"^{whole} holds latents; only clips can be encoded$"):
        cli.run(["shards", "encode", str(whole), "-o", str(tmp_path / "z")])


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"video": torch.zeros(4, 3, 2, 3)}, "(video is (4, 3, 2, 3) torch.float32, not (channels, *(3, 2, 2)))"),
        ({"audio": torch.zeros(6, 10)}, "(audio is (6, 10) torch.float32, not (channels, *(11,)))"),
        ({"audio": torch.zeros(6, 11, dtype=torch.int8)}, "(audio is (6, 11) torch.int8, not (channels, *(11,)))"),
        ({"text": torch.zeros(7, 8)}, "(text is (7, 8), not at most (6, 8))"),
        ({"text": torch.zeros(8)}, "(text is (8,), not at most (6, 8))"),
        ({"text": None}, "(it lacks 'text')"),
        (b"no tensors", "("),
    ],
)
def test_latents_of_another_shape_than_the_grids_are_named(whole, tmp_path, tensors, words):
    folder = Path(shutil.copytree(whole, tmp_path / "z"))
    right = {"video": torch.zeros(4, 3, 2, 2), "audio": torch.zeros(6, 11), "text": torch.zeros(2, 8)}
    there = {} if isinstance(tensors, bytes) else {name: z for name, z in (right | tensors).items() if z is not None}
    data = tensors if isinstance(tensors, bytes) else save(there)
    samples = [(f"clip{n}", sample_files({"safetensors": data}, {"id": f"clip{n}", "prompt": ""})) for n in range(2)]
    line = write_tar(folder / "shard-000000.tar", samples)
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0] = line
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError) as told:
        next(iter(Shards(folder, GRID, shuffle=0)))
    where = f"shard {folder}/shard-000000.tar, clip clip0: its safetensors cannot be read as latents "
    assert str(told.value).startswith(where + words)


def test_a_tiny_folder_goes_from_videos_to_latents(tmp_path, capsys):
    tiny_folder(tmp_path / "videos", 3, GRID)
    grid = ["--frames", "9", "--height", "16", "--width", "16"]
    assert cli.main(["shards", "make", str(tmp_path / "videos"), "-o", str(tmp_path / "clips"), *grid]) == 0
    assert cli.main(["shards", "encode", str(tmp_path / "clips"), "-o", str(tmp_path / "z")]) == 0
    batch = collate(list(Shards(tmp_path / "z", GRID, shuffle=0, endless=False)))
    assert batch.latents.map(lambda z: tuple(z.shape)) == AV((3, 16, 3, 2, 2), (3, 40, 11)) and batch.text is None


@pytest.mark.slow
def test_a_ray_cluster_whose_worker_is_killed_leaves_what_one_run_leaves(clips, whole, tmp_path):
    pytest.importorskip("ray.data")
    (tmp_path / "books").mkdir()
    dying = f"helpers.tiny_encoders.Dying {{folder: {tmp_path / 'books'}}}"
    parts = [
        "--video-codec",
        dying,
        "--audio-codec",
        "helpers.tiny_encoders.MeanAudio",
        "--text",
        "helpers.tiny_encoders.FrozenText",
    ]
    line = ["shards", "encode", str(clips), "-o", str(tmp_path / "z"), *parts, "--engine", "ray", "--workers", "2"]
    code = "import sys; from ccl.cli import main; sys.exit(main(sys.argv[1:]))"
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    (tmp_path / "token").write_text(secrets.token_hex(32))  # else Ray would leave one in the home folder
    settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    command = [sys.executable, "-c", code, *line]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 clips in 5 shards" in done.stdout and (tmp_path / "books/killed").exists()
    assert contents(tmp_path / "z") == contents(whole)
