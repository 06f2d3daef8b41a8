"""Generation tasks, seeds, files and model folders, with the smallest real model."""

import contextlib
import hashlib
import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ccl
from ccl import cli
from ccl.generation import Pipeline
from ccl.generation import generate as generate_module
from ccl.generation import pipeline as pipeline_module
from ccl.generation.generate import generate_file, generate_files, reconstruct_files
from ccl.generation.given import read
from ccl.guidance import UCG3, NoGuidance
from ccl.media import Clip, read_clip, write_clip, write_png, write_wav
from ccl.model import save
from ccl.rows import Row, file_names, read_rows
from ccl.storage import model_folder
from ccl.storage.model_folder import export, load_model, save_model
from ccl.storage.sharded_checkpoint import read_sharded
from ccl.types import AV
from helpers.forked import holding
from helpers.tiny import PROMPTS, close, run_folder, tiny_config, tiny_pipeline, tiny_state


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def sound() -> np.ndarray:
    return np.sin(np.arange(5760) / 10).astype(np.float32) * 0.3


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


# Tasks


def test_joint_clip_has_the_grid_s_shape(pipe):
    clip = pipe(PROMPTS[0])
    assert clip.video.shape == (9, 16, 16, 3) and clip.video.dtype == np.uint8
    assert clip.audio.shape == (pipe.grid.samples,) and clip.audio.dtype == np.float32
    assert (clip.prompt, clip.fps, clip.sample_rate) == (PROMPTS[0], 25.0, 16_000)


def test_a_list_of_prompts_gives_a_list_of_clips(pipe):
    clips = pipe(PROMPTS)
    assert [clip.prompt for clip in clips] == PROMPTS


def test_a_row_alone_is_the_same_as_in_a_batch(pipe):
    rows = [Row(id=str(i), prompt=p, seed=i) for i, p in enumerate(PROMPTS)]
    together = pipe.generate(rows)
    assert all(close(pipe.generate([row])[0], clip) for row, clip in zip(rows, together, strict=True))


def test_a_row_with_an_image_does_not_change_its_neighbours(pipe, picture):
    plain = Row(id="a", prompt=PROMPTS[0], seed=1)
    with_image = Row(id="b", prompt=PROMPTS[1], seed=2, image=picture)
    both = pipe.generate([plain, with_image])
    assert close(pipe.generate([plain])[0], both[0]) and close(pipe.generate([with_image])[0], both[1])


def test_seed_decides_the_clip(pipe):
    a, b, c = (pipe(PROMPTS[0], seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.video, b.video) and np.array_equal(a.audio, b.audio)
    assert not np.array_equal(a.video, c.video)


def test_image_is_the_first_picture(pipe, picture):
    flat = np.full_like(picture, 90)
    clip = pipe(PROMPTS[0], image=flat)
    assert np.abs(clip.video[0].astype(int) - 90).mean() < 6  # the codec's own error
    assert np.abs(clip.video[-1].astype(int) - 90).mean() > 20


def test_given_sound_comes_back_and_changes_the_pictures(pipe, sound):
    a, b = pipe(PROMPTS[0], audio=sound), pipe(PROMPTS[0], audio=np.zeros_like(sound))
    assert np.array_equal(a.audio, sound) and not np.array_equal(a.video, b.video)


def test_given_pictures_come_back_and_change_the_sound(pipe, frames):
    a, b = pipe(PROMPTS[0], video=frames), pipe(PROMPTS[0], video=np.zeros_like(frames))
    assert np.array_equal(a.video, frames) and not np.array_equal(a.audio, b.audio)


def test_short_sound_is_padded_with_silence(pipe, sound):
    clip = pipe(PROMPTS[0], audio=sound[:1000])
    assert clip.audio.shape == sound.shape and (clip.audio[1000:] == 0).all()


@pytest.mark.parametrize("wanted", [AV(True, False), AV(False, True)])
def test_stream_that_is_not_wanted_takes_no_part(pipe, wanted, monkeypatch):
    seen = []
    forward = pipe.net.forward
    monkeypatch.setattr(pipe.net, "forward", lambda x, *a, **k: seen.append(x) or forward(x, *a, **k))
    clip = pipe(PROMPTS[0], wanted=wanted)
    assert [clip.video is not None, clip.audio is not None] == list(wanted)
    assert all([x.video is not None, x.audio is not None] == list(wanted) for x in seen)


@pytest.mark.parametrize(("has", "lacks"), [("audio", "video"), ("video", "audio")])
def test_a_model_of_one_stream_makes_that_one_and_says_how_it_is_asked(has: str, lacks: str) -> None:
    alone, words = (
        ccl.load(f"ccl/checkpoints/streams/{has}"),
        f"has no {lacks} stream; its {has} alone .*`--only {has}`",
    )
    with pytest.raises(ValueError, match=words):
        alone(PROMPTS[0], steps=1)
    clip = alone(PROMPTS[0], steps=1, wanted=AV(has == "video", has == "audio"))
    assert getattr(clip, has) is not None and getattr(clip, lacks) is None


def test_one_step_is_one_forward_whatever_the_rule(pipe, monkeypatch):
    batches = []
    forward = pipe.net.forward
    monkeypatch.setattr(pipe.net, "forward", lambda x, *a, **k: batches.append(len(x.video)) or forward(x, *a, **k))
    pipe(PROMPTS[0], steps=3)
    pipe(PROMPTS[0], steps=1, guidance=UCG3())
    pipe(PROMPTS[0], steps=1, guidance=NoGuidance())
    assert batches == [2, 2, 2, 3, 1]


def test_guided_sampling_with_prepared_text_equals_plain_text(pipe, monkeypatch):
    cached = pipe(PROMPTS[0], guidance=UCG3())
    monkeypatch.setattr(type(pipe.net), "prepare", lambda self, text, extras: text)
    assert close(cached, pipe(PROMPTS[0], guidance=UCG3()))


def test_progress_is_told_after_each_step(pipe):
    calls = []
    pipe(PROMPTS[0], steps=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "arguments,words",
    [
        ({"audio": np.zeros(9, np.float32), "video": np.zeros((9, 16, 16, 3), np.uint8)}, "both given"),
        ({"audio": np.zeros(9, np.float32), "wanted": AV(False, True)}, "nothing is left"),
        ({"image": np.zeros((8, 8), np.uint8)}, r"the image is \(8, 8\) uint8; it must be"),
        ({"image": np.zeros((8, 8, 4), np.uint8)}, r"the image has pictures of \(8, 8, 4\) uint8"),
        ({"image": np.zeros((8, 8, 3))}, r"the image has pictures of \(8, 8, 3\) float64"),
        ({"image": np.zeros((16, 16, 3), np.uint8), "wanted": AV(False, True)}, "first image"),
        ({"video": np.zeros((5, 16, 16, 3), np.uint8)}, r"needs \(9, H, W, 3\)"),
        ({"audio": np.zeros((2, 9), np.float32)}, "mono"),
        ({"image": "no-such.png"}, "no-such.png"),
    ],
)
def test_conditions_that_do_not_fit_are_refused_in_words(pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        pipe(PROMPTS[0], **arguments)


# Files


ROWS = [Row(id=f"clip/{i}", prompt=p) for i, p in enumerate(PROMPTS)]


def test_files_hold_clips_and_what_they_follow_from(pipe, tmp_path):
    paths = generate_files(pipe, ROWS, tmp_path, batch_size=2)
    assert [path.name for path in paths] == ["clip_0.mp4", "clip_1.mp4", "clip_2.mp4"]
    record = json.loads((tmp_path / "clip_1.json").read_text())
    assert record["prompt"] == PROMPTS[1] and record["guidance"]["rule"] == "UCG2" and record["steps"] == 2
    clip = read_clip(paths[0])
    assert clip.video.shape == (9, 16, 16, 3) and len(clip.audio) == pipe.grid.samples


def test_steps_and_shift_are_the_pipelines_unless_they_are_given(pipe, tmp_path, monkeypatch):
    seen = []
    solve = pipeline_module.solve
    monkeypatch.setattr(
        pipeline_module, "solve", lambda v, z, times, **k: seen.append(times) or solve(v, z, times, **k)
    )
    generate_files(pipe, ROWS[:1], tmp_path / "own")
    generate_files(pipe, ROWS[:1], tmp_path / "given", steps=4, shift=3.0)
    # Wan's scheduler: sigma = shift s / (1 + (shift - 1) s), of even s.
    assert [times.tolist() for times in seen] == [[1, 0.5, 0], [1, 2.25 / 2.5, 0.75, 0.75 / 1.5, 0]]
    records = [json.loads((tmp_path / folder / "clip_0.json").read_text()) for folder in ("own", "given")]
    assert [(record["steps"], record["shift"]) for record in records] == [(2, 1), (4, 3)]
    with pytest.raises(ValueError, match=r"was made with another shift \(3.0, now 2.0\)"):
        generate_files(pipe, ROWS[:1], tmp_path / "given", steps=4, shift=2.0)


def test_a_stopped_run_goes_on_where_it_was(pipe, tmp_path, monkeypatch):
    made = []
    generate = pipe.generate
    monkeypatch.setattr(pipe, "generate", lambda rows, **k: made.extend(r.id for r in rows) or generate(rows, **k))
    generate_files(pipe, ROWS[:2], tmp_path)
    (tmp_path / "clip_1.json").unlink()  # as if killed between clip and record
    generate_files(pipe, ROWS, tmp_path)
    assert made == ["clip/0", "clip/1", "clip/1", "clip/2"]


@pytest.mark.parametrize("damage", ["empty", "a flipped byte", "no sum", "no record", "another kind", "no text"])
def test_a_clip_that_is_not_as_its_record_says_is_made_anew(pipe, tmp_path, damage):
    (path,) = generate_files(pipe, ROWS[:1], tmp_path)
    record, whole = path.with_suffix(".json"), path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "a flipped byte":
        path.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    elif damage == "no sum":
        record.write_text(json.dumps({**json.loads(record.read_text()), "file": None}))
    else:
        record.write_bytes({"no record": b"{", "another kind": b"[1]", "no text": b"\xff"}[damage])
    generate_files(pipe, ROWS[:1], tmp_path)
    said = json.loads(record.read_text())["file"]
    assert len(path.read_bytes()) == said["bytes"] > 0
    assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]


@pytest.mark.parametrize(
    ("there", "here", "together"),
    [
        ((0, 1), (0, 1), False),
        ((1, 2), (0, 1), False),
        ((1, 2), (1, 2), False),
        ((0, 1), (0, 2), False),
        ((1, 2), (0, 2), True),
        ((0, 2), (1, 2), True),
    ],
)
def test_a_folder_of_clips_has_one_job_at_a_time_of_as_many_processes_as_share_it(tmp_path, there, here, together):
    with holding(generate_module.at_work, tmp_path, there), contextlib.ExitStack() as stack:
        if not together:
            stack.enter_context(pytest.raises(ValueError, match="is being written by another process"))
        with generate_module.at_work(tmp_path, here):
            pass
    with generate_module.at_work(tmp_path, (0, 1)):
        pass
    assert not list(tmp_path.iterdir())


def test_clips_of_other_settings_are_not_mixed(pipe, tmp_path):
    generate_files(pipe, ROWS[:1], tmp_path)
    with pytest.raises(ValueError, match="made with another steps"):
        generate_files(pipe, ROWS[:1], tmp_path, steps=1)


def test_the_recorded_seed_makes_the_same_clip_alone(pipe, tmp_path):
    generate_files(pipe, ROWS, tmp_path)
    seed = json.loads((tmp_path / "clip_2.json").read_text())["seed"]
    generate_file(pipe, Row(id="again", prompt=PROMPTS[2], seed=seed), tmp_path / "again.mp4")
    a, b = (read_clip(tmp_path / f"{name}.mp4").video.astype(int) for name in ("clip_2", "again"))
    assert np.abs(a - b).mean() < 2


def test_rows_are_batched_only_with_rows_given_the_same(pipe, tmp_path, monkeypatch, sound):
    batches = []
    generate = pipe.generate
    monkeypatch.setattr(pipe, "generate", lambda rows, **k: batches.append(len(rows)) or generate(rows, **k))
    rows = [*ROWS[:2], Row(id="given", prompt="x", audio=sound), Row(id="last", prompt="y")]
    generate_files(pipe, rows, tmp_path, steps=1)
    assert batches == [2, 1, 1]


def test_sound_alone_becomes_wav_files(pipe, tmp_path):
    (path,) = generate_files(pipe, ROWS[:1], tmp_path, wanted=AV(False, True))
    assert path.suffix == ".wav" and path.stat().st_size > 1000


def test_true_clips_go_through_the_codec_for_the_ceiling(pipe, tmp_path, frames, sound):
    Clip(frames, sound).save(tmp_path / "true.mp4")
    row = Row(id="a", prompt="x", reference=str(tmp_path / "true.mp4"))
    (path,) = reconstruct_files(pipe, [row], tmp_path / "ceiling")
    clip = read_clip(path)
    assert clip.video.shape == frames.shape and np.abs(clip.audio).max() > 0.05


def test_a_row_gives_what_is_asked_for_and_no_more():
    row = Row(id="a", prompt="x", image="i.png", audio="s.wav", reference="r.mp4")
    assert (row.giving("image").image, row.giving("image").audio) == ("i.png", None)
    assert row.giving("video").video == "r.mp4" and row.giving("text").given is None
    with pytest.raises(ValueError, match="a: has no image to give"):
        Row(id="a", reference="r.mp4").giving("image")


def test_ids_never_leave_the_folder():
    assert file_names([Row(id="../../etc/x"), Row(id="a b"), Row(id="..")]) == ["etc_x", "a_b", "clip"]
    with pytest.raises(ValueError, match="'a b' and 'a/b' would both become a_b"):
        file_names([Row(id="a b"), Row(id="a/b")])


@pytest.mark.parametrize(
    "line,words",
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: is not a JSON object"),
        ('{"prompt": ""}', "line 2: has no prompt"),
        ('{"promt": "x"}', r"line 2: there is no key 'promt' \(did you mean 'prompt'\?\)"),
        ('{"prompt": "x", "seed": "1"}', "line 2: 'seed' is \"1\"; it must be a whole number"),
        ('{"prompt": "x", "then": "y"}', "line 2: 'then' is \"y\"; it must be a list of prompts"),
        ('{"prompt": "x", "then": ["y", ""]}', "line 2: has no prompt"),
        ('{"prompt": "x", "image": "gone.png"}', r"line 2: its image .*gone.png does not exist"),
        ('{"id": "first", "prompt": "x"}', "line 2: the id 'first' is that of line 1 already"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, line, words):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "first", "prompt": "fine"}\n' + line)
    with pytest.raises(ValueError, match=rf"prompts.jsonl, {words}"):
        read_rows(file)


def test_rows_are_read_with_paths_beside_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "p.jsonl").write_text('{"prompt": "x", "image": "a.png", "meta": {"hair": "red"}}\n\n{"prompt": "y"}\n')
    rows = read_rows(tmp_path / "p.jsonl")
    assert [row.id for row in rows] == ["p-0001", "p-0003"] and rows[0].image == str(tmp_path / "a.png")


# Model folders


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", tiny_config(), tiny_state())
    return tmp_path / "model"


def test_a_saved_model_gives_the_same_clip(pipe, folder):
    loaded = ccl.load(str(folder))
    assert close(loaded(PROMPTS[0], seed=3), pipe(PROMPTS[0], seed=3))
    assert loaded.steps == 2 and len(loaded.provenance["weights_sha256"]) == 64


def test_a_model_folder_replaces_its_forerunner_and_leaves_nothing_else(folder):
    save_model(folder, tiny_config(), tiny_state(2.0))
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_what_else_lies_in_a_model_folder_stays(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / "README.md").write_text("mine")
    (folder / f".partial-1-old-{folder.name}").mkdir()  # of a killed export
    save_model(folder, tiny_config(), tiny_state(2.0))
    assert (folder / ".git" / "HEAD").read_text() == "ref" and (folder / "README.md").read_text() == "mine"
    names = [".git", "README.md", "config.yaml", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    load_model(folder)


@pytest.mark.parametrize("last", range(1, 8))
def test_a_killed_export_leaves_the_old_model_or_the_new(folder, monkeypatch, last):
    """Killed after so many of the calls by which files are written and take their places."""

    class Killed(BaseException):
        pass

    calls = iter(range(last))
    states = {"old": tiny_state(), "new": tiny_state(2.0)}

    def dying(call):
        def made(*args, **kwargs):
            if next(calls, None) is None:
                raise Killed
            return call(*args, **kwargs)

        return made

    with monkeypatch.context() as patched:
        for module, name in ((Path, "replace"), (os, "fsync"), (save, "save_file")):
            patched.setattr(module, name, dying(getattr(module, name)))
        patched.setattr(Path, "unlink", lambda *args, **kwargs: None)  # nothing is cleaned up after a kill
        done = contextlib.suppress(Killed)
        with done:
            save_model(folder, {**tiny_config(), "provenance": {"of": "new"}}, states["new"])
    model = load_model(folder)
    which = "new" if model.provenance.get("of") == "new" else "old"
    assert which == ("new" if last >= 6 else "old")  # the sixth call puts the weights in place
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, states[which][f"net.{name}"])
    save_model(folder, tiny_config(), tiny_state())
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "model.safetensors"]


def test_weights_that_are_not_those_of_the_export_are_told(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors is not what config\.yaml beside it was written for"):
        load_model(folder)


def test_a_folder_that_is_no_model_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="is no model folder"):
        save_model(tmp_path / "mine", tiny_config(), {})


def test_a_run_s_averaged_weights_are_preferred(tmp_path):
    plain, average = tiny_state(), tiny_state(2.0)
    ckpt = run_folder(tmp_path, {**plain, **{f"ema.{k}": v for k, v in average.items()}})
    model = load_model(ckpt)
    name, value = next(iter(model.net.state_dict().items()))
    assert torch.equal(value, average[f"net.{name}"]) and model.provenance["step"] == 7


def test_a_run_is_exported_as_a_model_folder_in_bfloat16(tmp_path):
    export(run_folder(tmp_path, tiny_state()), tmp_path / "out")
    from safetensors.torch import load_file

    assert {v.dtype for v in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    loaded = Pipeline.load(tmp_path / "out")
    assert loaded(PROMPTS[0], steps=1).video.shape == (9, 16, 16, 3)
    assert loaded.provenance["codec"] == loaded.codec.identity


def test_a_run_trained_with_another_codec_is_refused(tmp_path):
    ckpt = run_folder(tmp_path, tiny_state())
    (ckpt.parents[1] / "run.json").write_text(json.dumps({"starts": [{"codec": "an-older-basis"}]}))
    told = r"last\.ckpt was trained with the codec an-older-basis, as its run\.json or config\.yaml says"
    with pytest.raises(ValueError, match=told):
        load_model(ckpt)


def test_a_sharded_checkpoint_is_gathered(tmp_path):
    from torch.distributed.checkpoint import save

    ckpt = run_folder(tmp_path, {})
    ckpt.unlink()
    sharded, average = ckpt.with_name("step=000009.ckpt"), tiny_state(2.0)
    state = {**tiny_state(), **{f"ema.{k}": v for k, v in average.items()}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that it saves from one process
        save({"state_dict": state}, checkpoint_id=sharded, no_dist=True)
    with pytest.raises(ValueError, match="never finished"):
        load_model(sharded)
    (sharded / "complete").write_text("")
    ckpt.symlink_to(sharded.name)
    model = load_model(ckpt)
    name, value = next(iter(model.net.state_dict().items()))
    assert torch.equal(value, average[f"net.{name}"]) and model.provenance["step"] == 9


def test_a_sharded_checkpoint_s_index_runs_no_code(tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("unpickled",))

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(ValueError, match=r"its index names builtins\.print"):
        read_sharded(tmp_path)


def test_weights_of_another_shape_are_named(folder):
    state = tiny_state()
    state["net.video.head.weight" if "net.video.head.weight" in state else next(iter(state))] = torch.zeros(3, 5)
    save_model(folder, tiny_config(), state)
    with pytest.raises(ValueError, match=r"model\.safetensors: \S+ is \(3, 5\), and \("):
        load_model(folder)


def test_a_codec_of_another_identity_is_refused(folder):
    save_model(folder, {**tiny_config(), "provenance": {"codec": "another"}}, tiny_state())
    with pytest.raises(ValueError, match="trained with the codec another"):
        load_model(folder)


def test_a_checkpoint_is_never_unpickled(tmp_path):
    class Bad:
        def __reduce__(self):
            return (print, ("unpickled",))

    ckpt = run_folder(tmp_path, {}, loops=Bad())
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read as a checkpoint \(it holds more than tensors"):
        load_model(ckpt)


def test_what_is_missing_is_named(tmp_path, folder, monkeypatch):
    with pytest.raises(ValueError, match=r"there is no checkpoint .*nowhere"):
        load_model(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
        load_model(folder)
    (tmp_path / "lone.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has no config\.yaml"):
        load_model(tmp_path / "lone.ckpt")
    monkeypatch.setattr(model_folder, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(ValueError, match="ships no checkpoint"):
        ccl.load()


def test_a_wrong_key_in_a_model_s_config_is_named(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["net"]["init_args"]["layer"] = 2
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"does not give a model.*layer"):
        load_model(folder)


def test_weights_and_config_that_disagree_are_both_named(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["net"]["init_args"]["video"]  # a valid network, of audio alone
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"model\.safetensors has \d+ keys that the net of \S+/config\.yaml has not, "):
        load_model(folder)


def test_guidance_is_described_by_its_scales(pipe):
    settings = generate_module.describe(pipe, AV(True, True), UCG3())
    assert settings["guidance"] == {
        "rule": "UCG3",
        "text": {"video": 4.0, "audio": 3.0},
        "modal": {"video": 2.0, "audio": 2.0},
    }


def test_a_picture_is_fitted_whether_it_is_a_path_or_an_array(pipe, tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    write_png(tmp_path / "wide.png", wide)
    middle = wide[:, 8:40].astype(float).reshape(16, 2, 16, 2, 3).mean((1, 3))  # 2 x 2 pixels each
    heard: list[list[str]] = [[], []]
    for image, notes in zip((wide, str(tmp_path / "wide.png")), heard, strict=True):
        picture = read(Row("a", "p", image=image), pipe.grid, notes).start.video
        assert picture.shape == (1, 16, 16, 3) and np.abs(picture[0] - middle).max() <= 1
    assert heard == [
        [f"{name} is 48 x 32; its middle 32 x 32 was taken"] for name in ("the image", tmp_path / "wide.png")
    ]
    corner = read(Row("a", "p", image=wide[:16, :16]), pipe.grid, heard[0]).start.video
    assert corner.shape == (1, 16, 16, 3) and len(heard[0]) == 1


@pytest.mark.parametrize(("frames", "goes_on"), [(9, False), (13, True), (40, True)])
def test_what_is_taken_of_a_film_is_told(pipe, tmp_path, frames, goes_on):
    film = np.random.default_rng(1).integers(0, 256, (frames, 16, 32, 3), dtype=np.uint8)
    write_clip(Clip(film, None, 25.0, 16_000), tmp_path / "film.mp4")
    notes: list[str] = []
    video = read(Row("a", "p", video=str(tmp_path / "film.mp4")), pipe.grid, notes).start.video
    assert np.array_equal(video, read_clip(tmp_path / "film.mp4", grid=pipe.grid, require=AV(True, False)).video)
    told = [f"{tmp_path / 'film.mp4'} goes on after 0.36 s; its first 0.36 s were taken"] * goes_on
    assert notes == [*told, f"{tmp_path / 'film.mp4'} is 32 x 16; its middle 16 x 16 was taken"]
    heard: list[str] = []
    array = read(Row("a", "p", video=film[:9]), pipe.grid, heard).start.video
    assert array.shape == (9, 16, 16, 3) and heard == ["the video is 32 x 16; its middle 16 x 16 was taken"]


def test_a_rule_is_named_and_takes_the_models_strengths(pipe):
    own = pipe("a", steps=1, guidance=UCG3(text=pipe.guidance.scale))
    assert np.array_equal(pipe("a", steps=1, guidance="ucg3").video, own.video)
    with pytest.raises(ValueError, match="no guidance 'ucg4'"):
        pipe("a", guidance="ucg4")
    with pytest.raises(ValueError, match="take ucg3"):
        pipe("a", guidance="multimodal_cfg")


@pytest.mark.parametrize(
    ("share", "words"),
    [(2.0, "lasts 0.72 s; its first 0.36 s were taken"), (0.5, "lasts 0.18 s; silence follows, up to 0.36 s"), (1, "")],
)
def test_what_became_of_a_given_sound_is_told_on_the_clip_in_its_record_and_on_the_screen(
    pipe, folder, tmp_path, capsys, share, words
):
    sound = np.full(round(share * pipe.grid.samples), 0.1, np.float32)
    assert [words in note for note in pipe("a", audio=sound, steps=1).meta.get("notes", [])] == [True] * bool(words)
    write_wav(tmp_path / "voice.wav", sound, pipe.grid.sample_rate)
    argv = ["generate", "--ckpt", folder, "--prompt", "a", "--audio", tmp_path / "voice.wav", "-o", tmp_path / "x.mp4"]
    assert cli.main([str(word) for word in argv]) == 0
    notes = json.loads((tmp_path / "x.json").read_text()).get("notes", [])
    said = capsys.readouterr().err
    assert [f"{tmp_path / 'voice.wav'} {words}"] * bool(words) == notes
    assert ("note: " in said) == bool(words) and words in said
