"""`ccl push`: what goes to the hub, its card, and what is said where it cannot; pushed to a stand-in on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from huggingface_hub.utils import _http
from safetensors.torch import save_file

from ccl import cli
from ccl.evaluation.tables import exchange
from ccl.evaluation.tables.results import Results
from ccl.publish.parts import on_this_disk, parts_of
from ccl.publish.scores import without_paths
from ccl.storage.model_folder import load_model, save_model
from helpers.hub_server import TOKEN, Hub, serving
from helpers.scored import scored
from helpers.tiny import run_folder, tiny_config, tiny_state
from helpers.tiny_clips import tiny_clip

PROMPT = 'A man with red hair says "hello"'


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "model"
    save_model(folder, {**tiny_config(), "provenance": {"run": "tiny", "step": 7}}, tiny_state())
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without a repository, whose right token is this process's."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between tries
    with serving(Hub(tmp_path / "repository", exists=False), tmp_path, monkeypatch) as found:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A model folder that a test may change."""
    return shutil.copytree(saved, tmp_path / "model")


def push(folder: Path, *more: object, name: str = "user/tiny") -> int:
    return cli.main(["push", str(folder), name, *map(str, more)])


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *more: object, status: int = 1, **where: str) -> str:
    """The one sentence that a push is refused with."""
    capsys.readouterr()
    assert push(folder, *more, **where) == status
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccl: ")]
    assert len(said) == 1 and "CCL_DEBUG" not in said[0], said
    return said[0]


def card_of(hub: Hub) -> str:
    return (hub.folder / "README.md").read_text()


def sums(folder: Path) -> dict[str, str]:
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def told_by(*methods: str) -> Results:
    """Made-up results, each column of a metric as `ccl evaluate` writes them."""
    found = scored(methods)
    return replace(found, origin={column.name: "sync" for column in found.columns})


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.net.state_dict().values(), other.net.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# What goes up --------------------------------------------------------------------------------------------------------


def test_a_model_folder_is_read_back_bit_for_bit_from_one_commit(hub, saved, capsys):
    assert push(saved) == 0
    assert hub.commits == [("tiny, step 7 (ccl 0.1.0)", ["README.md", "config.yaml", "model.safetensors"])]
    assert not hub.private
    for name in ("config.yaml", "model.safetensors"):
        assert (hub.folder / name).read_bytes() == (saved / name).read_bytes()
    assert capsys.readouterr().out == f"{hub.url}/user/tiny\nccl generate --ckpt user/tiny --prompt '...' -o out.mp4\n"
    there = load_model("user/tiny")
    assert same(there, load_model(saved)) and there.provenance["hub"]["commit"] == hub.commit


def test_private_makes_a_private_repository(hub, saved):
    assert push(saved, "--private") == 0
    assert hub.private


def test_a_run_is_exported_elsewhere_and_stays_as_it_was(hub, tmp_path):
    run = run_folder(tmp_path, tiny_state()).parents[1]
    (run / "captions.csv").write_text("a,secret")
    (run / "losses.jsonl").write_text("{}\n")
    before = sums(run)
    assert push(run) == 0
    assert sums(run) == before
    assert hub.commits[0][1] == ["README.md", "config.yaml", "model.safetensors"]
    state = {name: tensor.bfloat16() for name, tensor in tiny_state().items()}
    save_model(tmp_path / "own", tiny_config(), state)
    assert same(load_model("user/tiny"), load_model(tmp_path / "own"))


def test_nothing_else_of_a_folder_goes_up_and_no_comment_of_its_config(hub, model):
    (model / "config.yaml").write_text("# hf_secret, /home/ann\n" + (model / "config.yaml").read_text())
    for name in ("token", ".env", "log.txt", "words.txt", "more.safetensors"):
        (model / name).write_text("hf_secret")
    assert push(model) == 0
    assert hub.commits[0][1] == ["README.md", "config.yaml", "model.safetensors"]
    assert not any(b"hf_secret" in file.read_bytes() for file in hub.folder.iterdir())


def test_a_second_push_is_a_second_commit_and_sends_no_weights_that_are_there(hub, saved, capsys):
    push(saved)
    hub.asked.clear()
    assert push(saved, "--message", "again", "--card", "--licence", "mit") == 0
    assert "user/tiny held a model before, which stays in its history" in capsys.readouterr().err
    assert [said for said, _ in hub.commits][1:] == ["again"]
    assert not any(path.startswith("/lfs/") for path in hub.asked)


def test_a_push_that_broke_off_leaves_nothing_and_goes_on(hub, saved, capsys):
    hub.breaks_at = "/lfs/"
    assert "user/tiny was not pushed: the hub answers with HTTP 500; try again later" in refusal(capsys, saved)
    assert hub.commits == [] and not list(hub.folder.iterdir())
    hub.breaks_at = None
    assert push(saved) == 0 and len(hub.commits) == 1


def test_dry_sends_nothing_needs_no_token_and_writes_the_card(hub, saved, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert push(saved, "--dry", "--licence", "mit") == 0
    said = capsys.readouterr().out
    assert hub.asked == []
    assert f"would go to {hub.url}/user/tiny:" in said and said.endswith("card/README.md\n")
    assert re.search(r"model\.safetensors +\d[\d.]* [kM]B\n", said)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push(saved, "--licence", "mit")
    assert Path("card/README.md").read_text() == card_of(hub)


def test_dry_writes_over_no_card(hub, saved, capsys):
    assert push(saved, "--dry") == 0
    assert "card/README.md is there, which may be edited; --card writes it anew" in refusal(capsys, saved, "--dry")
    assert push(saved, "--dry", "--card") == 0


# The card ------------------------------------------------------------------------------------------------------------


def test_the_four_lines_of_the_card_make_a_clip(hub, saved, monkeypatch):
    assert push(saved) == 0
    (block,) = re.findall(r"^```python\n(.*?)^```", card_of(hub), flags=re.M | re.S)
    assert len([line for line in block.splitlines() if line]) == 4
    exec(block, {})
    assert Path("out.mp4").stat().st_size > 1000
    (line,) = re.findall(r"^```sh\nccl (.*?)\n```", card_of(hub), flags=re.M | re.S)
    Path("out.mp4").unlink()
    assert cli.main(shlex.split(line)) == 0 and Path("out.mp4").is_file()


def test_the_metadata_of_a_card_are_those_of_the_hub(hub, saved):
    push(saved, "--licence", "apache-2.0")
    data = ModelCard(card_of(hub)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "ccl", "text-to-video")
    assert "joint-audio-video" in data.tags


def test_no_licence_is_made_up(hub, saved, capsys):
    push(saved)
    assert ModelCard(card_of(hub)).data.license is None
    assert "| the weights in this repository | not stated |" in card_of(hub)
    assert "note: the card states no licence of the weights; --licence names one" in capsys.readouterr().err


def test_the_card_of_a_run_says_how_it_was_trained_and_with_what(hub, tmp_path):
    run = run_folder(tmp_path, tiny_state()).parents[1]
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] |= {"pretrained": {"video": "wan2.1-t2v-1.3b", "audio": str(tmp_path / "own")}, "freeze": "text"}
    config["model"]["optimizer"] = {"lr": 1e-4, "schedule": "cosine"}
    config["data"] = {"class_path": "ccl.data.ShardData", "init_args": {"shards": "/home/ann/shards", "batch_size": 4}}
    config["trainer"] = {"devices": 2, "num_nodes": 1, "accumulate_grad_batches": 3, "precision": "bf16-mixed"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    start = {"data": {"/home/ann/shards": "abcdef" * 10}, "commit": "c0ffee", "versions": {"ccl": "0.1.0"}}
    (run / "run.json").write_text(json.dumps({"starts": [start]}))
    assert push(run) == 0
    card = card_of(hub)
    for row in (
        "| data | ShardData, not described, sha256 abcdefabcdef |",
        "| steps | 7 |",
        "| clips a step | 24 |",
        "| began with | wan2.1-t2v-1.3b, weights of its own, not published |",
        "| trained | all but the text encoder |",
        "| optimizer | lr 0.0001, schedule cosine |",
        "| interaction | CCA (align TARP, num context video 16) |",
        "| commit of ccl | c0ffee |",
        "(https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers) | Apache-2.0 | `pretrained.video` |",
    ):
        assert row in card, row
    assert ModelCard(card).data.base_model == ["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
    digest = hashlib.sha256((hub.folder / "config.yaml").read_bytes()).hexdigest()
    assert f"| config.yaml | sha256 {digest} |" in card
    everything = b"".join(file.read_bytes() for file in hub.folder.iterdir())
    assert b"/home/ann" not in everything and str(tmp_path).encode() not in everything


def test_a_card_without_samples_has_no_prompt_whose_words_the_model_has_not_learned(hub, model):
    config = yaml.safe_load((model / "config.yaml").read_text())
    for words, prompt in ((None, "where is my little sister"), (["bell", "rings"], "the words of its captions")):
        config["provenance"]["words"] = words
        (model / "config.yaml").write_text(yaml.safe_dump(config))
        (model / "README.md").unlink(missing_ok=True)
        push(model, "--card")
        assert prompt in card_of(hub)


def test_what_a_user_says_of_the_data_stands_in_the_card(hub, saved):
    push(saved, "--data", "12 hours of | people")
    assert "| data | 12 hours of \\| people |" in card_of(hub)


def test_scores_stand_in_the_card_with_their_test_set_and_date_and_no_path(hub, model):
    about = {"test set": "world, easy.jsonl sha256 0123; 4 rows", "ccl": "0.1.0", "device": "cpu", "date": "2026-11-29"}
    about["protocol"] = "mova"
    found = told_by("ours")
    protocol = {**found.protocol, "own": {"weights": "/home/ann/my nets/own.pt"}}
    home = model / "evaluation" / "world"
    home.mkdir(parents=True)
    (home / "results.json").write_text(exchange.dumped(replace(found, about=about, protocol=protocol)))
    push(model)
    card = card_of(hub)
    assert "Protocol: mova; Test set: world, easy.jsonl sha256 0123; 4 rows; scored 2026-11-29; ccl 0.1.0." in card
    assert "| CU ↑ | mean | 5.15 |" in card
    assert "own: weights own.pt" in card and "/home/ann" not in card
    assert "imagebind is not here" not in card


def test_scores_are_named_by_hand_and_a_damaged_file_is_told(hub, saved, tmp_path, capsys):
    (tmp_path / "results.json").write_text(exchange.dumped(told_by("ours", "ovi")))
    assert push(saved, "--scores", tmp_path / "results.json") == 0
    assert "| method |" in card_of(hub) and "ovi" in card_of(hub)
    (tmp_path / "results.json").write_text("{}")
    assert f"{tmp_path}/results.json: format is not there" in refusal(capsys, saved, "--scores", tmp_path)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("weights /home/ann/my nets/own.pt, fp32", "weights own.pt, fp32"),
        ("~/w/a.pt and C:\\nets\\b.pt", "a.pt and b.pt"),
        ("n is scored/failed; https://arxiv.org/abs/1 of ours / mova", None),
    ],
)
def test_a_sentence_keeps_names_of_files_and_loses_their_folders(text, left):
    assert without_paths(text) == (left or text)


def test_samples_go_up_and_are_shown_with_their_prompts(hub, model, tmp_path):
    tiny_clip().save(tmp_path / "a b.mp4")
    (tmp_path / "a b.json").write_text(json.dumps({"prompt": PROMPT + " <i>", "audio": "/home/ann/x.wav"}))
    push(model, "--sample", tmp_path / "a b.mp4")
    assert "samples/a b.mp4" in hub.commits[0][1]
    card = card_of(hub)
    (address,) = re.findall(r'src="([^"]+)"', card)
    assert address == f"{hub.url}/user/tiny/resolve/main/samples/a%20b.mp4"
    assert "says &quot;hello&quot; &lt;i&gt;" in card and f"pipe({PROMPT + ' <i>'!r})" in card
    assert "/home/ann" not in card


def test_a_prompt_of_others_stays_text_in_the_card(hub, model, tmp_path):
    tiny_clip().save(tmp_path / "a.mp4")
    prompt = "A cat\n```\n# Owned\n<img src=x> '; id #\u202e\ud800"
    (tmp_path / "a.json").write_text(json.dumps({"prompt": prompt}))
    assert push(model, "--sample", tmp_path / "a.mp4") == 0
    lines = card_of(hub).splitlines()
    shell = lines[lines.index("```sh") + 1]
    assert shlex.split(shell)[-3:] == [r"A cat ``` # Owned <img src=x> '; id #\u202e\ud800", "-o", "out.mp4"]
    assert not any(line.startswith(("# Owned", "<img")) for line in lines)


@pytest.mark.parametrize("name", ["README.md", "samples/a.mp4", "evaluation/world/clips/a.mp4"])
def test_what_a_folder_only_points_to_does_not_go_up(hub, model, tmp_path, name, capsys):
    """A folder that came from others may hold links to what is private here."""
    private = tmp_path / "private.mp4"
    tiny_clip().save(private)
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).symlink_to(private)
    assert f"{model}/{name} leads to {private}, outside {model}" in refusal(capsys, model)
    assert hub.commits == []
    assert push(model, "--card", "--sample", private) == 0  # what is named is meant
    assert "samples/private.mp4" in hub.commits[0][1]


def test_samples_of_a_run_are_the_first_of_its_evaluation(hub, model):
    clips = model / "evaluation" / "world" / "clips"
    clips.mkdir(parents=True)
    for name in "edcba":
        tiny_clip().save(clips / f"{name}.mp4")
    push(model)
    assert hub.commits[0][1][3:] == [f"samples/{name}.mp4" for name in "abcd"]


def test_a_sample_that_browsers_do_not_show_is_refused(hub, model, tmp_path, capsys):
    (tmp_path / "x.mp4").write_bytes(b"no clip")
    assert f"{tmp_path}/x.mp4" in refusal(capsys, model, "--sample", tmp_path / "x.mp4")
    (tmp_path / "x.wav").write_bytes(b"")
    assert "x.wav is no .mp4" in refusal(capsys, model, "--sample", tmp_path / "x.wav")
    assert hub.commits == []


def test_a_card_of_ones_own_is_kept_in_the_folder_and_on_the_hub(hub, model, saved, capsys):
    (model / "README.md").write_text("# mine\n")
    push(model)
    assert card_of(hub) == "# mine\n"
    assert f"note: the card is {model}/README.md, as it is; --card writes one" in capsys.readouterr().err
    push(saved, "--message", "next")
    assert card_of(hub) == "# mine\n"
    assert "note: the card is that of user/tiny, as it is" in capsys.readouterr().err
    push(model, "--card")
    assert card_of(hub).startswith("---\n") and (model / "README.md").read_text() == "# mine\n"


def test_a_card_of_ones_own_that_is_no_text_is_told_by_its_name(hub, model, capsys):
    (model / "README.md").write_bytes(b"\xff\xfe caf\xe9")
    assert f"{model}/README.md cannot be read as a card" in refusal(capsys, model)
    assert hub.commits == []


def test_classes_of_others_need_trust_and_the_card_says_so(hub, model, monkeypatch, capsys):
    Path("mine_of_push.py").write_text("from ccl.text import EmbeddedText\n\nclass Text(EmbeddedText):\n    pass\n")
    config = yaml.safe_load((model / "config.yaml").read_text())
    config["text"]["class_path"] = "mine_of_push.Text"
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    assert "--trust mine_of_push" in refusal(capsys, model)
    assert push(model, "--trust", "mine_of_push") == 0
    assert """ccl.load("user/tiny", trust=('mine_of_push',))""" in card_of(hub)
    assert hub.commits[0][1] == ["README.md", "config.yaml", "model.safetensors"]


# What only this machine has ------------------------------------------------------------------------------------------


def test_a_config_that_names_a_file_of_this_disk_is_refused_before_anything_is_sent(hub, model, tmp_path, capsys):
    config = yaml.safe_load((model / "config.yaml").read_text())
    basis = tmp_path / "basis.safetensors"
    config["codec"]["init_args"]["video"]["init_args"] = {"basis": str(basis)}
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    said = refusal(capsys, model)
    assert f"names {basis} as codec.init_args.video.init_args.basis, which only this machine has" in said
    assert hub.asked == []


@pytest.mark.parametrize(
    ("path", "goes"),
    [
        ("wan2.1-t2v-1.3b", True),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", True),
        ("someone/else", True),
        ("ccl/checkpoints/streams/audio", True),
        ("/data/wan", False),
        ("~/wan", False),
        ("C:\\wan", False),
        ("weights", False),
        ("here/wan", False),
    ],
)
def test_weights_by_published_names_go_and_paths_do_not(path, goes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "wan").mkdir(parents=True)
    config = {"text": {"class_path": "ccl.text.UMT5", "init_args": {"path": path}}}
    found = on_this_disk(config)
    assert (found is None) == goes, found
    assert [part.name for part in parts_of({"text.path": path})] == ([path] if goes else [])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("--config=/home/ann/x.yaml --seed 1", "/home/ann/x.yaml"),
        ("--root=/data", "/data"),
        ("see /home/ann/notes", "/home/ann/notes"),
        ("(as in '/home/ann/my.yaml')", "/home/ann/my.yaml"),
        ("weights file:///home/ann/x", "file:///home/ann/x"),
        ("ann@box:/home/ann/x", "/home/ann/x"),
        ("with ~/x.yaml and ~ann/y.yaml", "~/x.yaml"),
        ("of ~ann/y.yaml", "~ann/y.yaml"),
        (r"read C:\Users\ann\x", r"C:\Users\ann\x"),
        ("read c:/Users/ann/x", "c:/Users/ann/x"),
        (r"on \\box\share\x", r"\\box\share\x"),
        ("https://host/home/x, from /home/ann/x", "/home/ann/x"),
    ],
)
def test_a_path_of_this_machine_within_a_longer_text_is_found(text, path):
    assert on_this_disk({"sampling": {"notes": [text]}}) == ("sampling.notes.0", path)


@pytest.mark.parametrize(
    "text",
    [
        "a man and/or a woman, he /she, 24/7, w/o sound, 1/2 or 1 / 2 of it",
        'she says /a/, then "/o/ or /u/"; </s> <S>hello<E>, :/ and :\\',
        "~5/10 of the picture at 16:9",
        "https://host/home/x, (http://host:80/?to=/home/x) s3://bucket/home/ann/x",
        "hf:Wan-AI/Wan2.1-T2V-1.3B/model.safetensors, ./configs/x.yaml, ../x/y.yaml",
        r"a\b and \w+\s",
    ],
)
def test_a_text_with_slashes_and_no_path_goes(text):
    assert on_this_disk({"sampling": {"notes": text}}) is None


# What is said --------------------------------------------------------------------------------------------------------


def test_no_token_and_a_wrong_one_are_told(hub, saved, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the hub refuses the token (HTTP 401); `hf auth login` takes a new one" in refusal(capsys, saved)
    monkeypatch.delenv("HF_TOKEN")
    said = refusal(capsys, saved)
    assert said == "ccl: there is no token to push user/tiny with: `hf auth login`, or set HF_TOKEN"


def test_anothers_name_is_told(hub, saved, capsys):
    said = refusal(capsys, saved, name="other/tiny")
    assert "other/tiny was not pushed: this token may not write there" in said and "HTTP 403" in said
    hub.name, hub.exists = "other/tiny", True
    hub.folder.mkdir()
    assert "this token may not write there" in refusal(capsys, saved, name="other/tiny")


def test_a_hub_that_is_off_or_away_is_told(hub, saved, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "user/tiny was not pushed: the hub cannot be reached" in refusal(capsys, saved)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "nothing is sent to user/tiny while HF_HUB_OFFLINE is set; `--dry` shows" in refusal(capsys, saved)


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "user/a--b", "user/x.git", "us er/x", "user/", "/x"])
def test_a_name_that_no_repository_has_is_told(saved, name, capsys):
    said = refusal(capsys, saved, status=2, name=name)
    assert f"'{name}' is no name of a repository, OWNER/NAME" in said


def test_a_folder_that_is_no_model_or_is_damaged_is_told(hub, model, tmp_path, capsys):
    assert f"there is no checkpoint {tmp_path}/nothing" in refusal(capsys, tmp_path / "nothing")
    assert "is neither a model folder" in refusal(capsys, tmp_path)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "model.safetensors" in refusal(capsys, model)
    weights.write_bytes(whole[:-4] + b"\0\0\0\0")
    assert "is not what config.yaml beside it was written for (by sha256)" in refusal(capsys, model)
    weights.unlink()
    assert "is neither a model folder" in refusal(capsys, model)
    assert hub.commits == []


@pytest.mark.parametrize(
    ("more", "told", "named"),
    [
        ({"optimizer.secret": torch.ones(3)}, None, "the tensor optimizer.secret"),
        ({}, {"from": "/home/ann"}, "a text, from,"),
    ],
)
def test_weights_that_hold_more_than_the_model_are_told(hub, tmp_path, more, told, named, capsys):
    save_model(tmp_path / "model", tiny_config(), tiny_state())
    weights, config = (tmp_path / "model" / name for name in ("model.safetensors", "config.yaml"))
    save_file({**tiny_state(), **more}, weights, told)
    kept = yaml.safe_load(config.read_text())
    del kept["provenance"]["weights_sha256"]
    config.write_text(yaml.safe_dump(kept))
    assert f"{weights} holds {named} that is no part of the model" in refusal(capsys, tmp_path / "model")
    assert hub.commits == []
    assert cli.main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    assert push(tmp_path / "out") == 0  # as the sentence says


def test_weights_that_do_not_fit_their_config_are_told(hub, tmp_path, capsys):
    config = tiny_config()
    config["net"]["init_args"]["layers"] = 3
    save_model(tmp_path / "other", config, tiny_state())
    assert f"{tmp_path}/other/model.safetensors" in refusal(capsys, tmp_path / "other")
    assert hub.commits == []


def test_a_repository_that_holds_something_else_is_left_alone(hub, saved, capsys):
    hub.exists = True
    hub.folder.mkdir()
    (hub.folder / "pytorch_model.bin").write_bytes(b"x")
    said = refusal(capsys, saved)
    assert "user/tiny on the hub holds pytorch_model.bin and is no model folder; nothing of it is overwritten" in said
    assert hub.commits == []


def test_private_does_not_push_into_a_repository_that_everybody_reads(hub, saved, capsys):
    push(saved)
    assert "user/tiny is there and everybody reads it" in refusal(capsys, saved, "--private")
    assert len(hub.commits) == 1


def test_a_licence_that_the_hub_does_not_know_is_told(hub, saved, capsys):
    said = refusal(capsys, saved, "--licence", "Apache 2")
    assert 'the hub does not take the metadata of its card: "license" must be one of' in said
    assert hub.commits == []
