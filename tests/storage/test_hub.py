"""OWNER/NAME is a model of the hub where nothing here has that name; asked of a stand-in on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

import ccl
from ccl import cli
from ccl.storage.model_folder import export, load_model
from ccl.weights.find import Repository, command, on_hub
from helpers.hub_server import COMMIT, TOKEN, Hub, serving_tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds user/tiny, with a file more than a model has."""
    with serving_tiny(tmp_path, monkeypatch) as found:
        (found.folder / "planted.py").write_text("raise SystemExit")
        yield found


def test_a_name_of_the_hub_loads_the_model_that_lies_there_and_says_its_commit(hub):
    there, here = load_model("user/tiny", revision="v1"), load_model(hub.folder)
    for (name, one), (_, other) in zip(there.net.state_dict().items(), here.net.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert there.provenance["hub"] == {"repository": "user/tiny", "revision": "v1", "commit": COMMIT}
    assert any("/revision/v1" in path for path in hub.asked)


def test_a_revision_may_stand_behind_the_name_and_is_said_once(hub):
    there = load_model("user/tiny@v1")
    assert there.provenance["hub"] == {"repository": "user/tiny", "revision": "v1", "commit": COMMIT}
    assert "user/tiny on the hub has no revision v9" in refusal("user/tiny@v9")
    with pytest.raises(ValueError, match=r"^user/tiny@v1 says its revision, and revision='main' says one too"):
        load_model("user/tiny@v1", revision="main")


def test_a_commit_that_is_here_asks_nobody(hub):
    load_model("user/tiny")
    hub.asked.clear()
    assert load_model(f"user/tiny@{COMMIT}").provenance["hub"]["commit"] == COMMIT
    assert hub.asked == []


def test_a_model_of_the_hub_has_the_sums_that_it_has_in_a_folder(hub):
    """Records of clips hold them, by which a folder of clips knows whether another model made it."""
    there, here = load_model("user/tiny@v1").provenance, load_model(hub.folder).provenance
    assert {key: there[key] for key in here} == here and here.keys() >= {"config_sha256", "weights_sha256"}


def test_what_is_exported_from_the_hub_says_where_it_was(hub, tmp_path):
    export("user/tiny@v1", tmp_path / "mine")
    assert load_model(tmp_path / "mine").provenance["hub"]["commit"] == COMMIT


def test_load_takes_a_name_and_fetches_only_the_two_files_of_a_model(hub):
    ccl.load("user/tiny", device="cpu")
    asked = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert asked == {"config.yaml", "model.safetensors"}


def test_what_was_fetched_loads_without_the_hub(hub):
    load_model("user/tiny")
    hub.broken = True
    assert load_model("user/tiny").provenance["hub"]["commit"] == COMMIT


def test_a_folder_here_is_meant_before_a_repository_there(hub):
    shutil.copytree(hub.folder, "user/tiny")
    assert "hub" not in load_model("user/tiny").provenance
    assert hub.asked == []


@pytest.mark.parametrize("given", ["./user/tiny", "../here/user/tiny", "~/user/tiny", "/user/tiny", Path("user/tiny")])
def test_a_path_that_is_not_here_is_told_and_asks_nobody(hub, given):
    with pytest.raises(ValueError, match=rf"^there is no checkpoint {given}$"):
        load_model(given)
    assert hub.asked == []


def test_a_misspelt_path_below_a_folder_here_asks_nobody(hub):
    Path("user").mkdir()
    with pytest.raises(ValueError, match=r"there is no checkpoint user/tiny$"):
        load_model("user/tiny")
    assert hub.asked == []


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "a/b/c",
        "runs/x.ckpt",
        "../x",
        "/a/b",
        "~/x",
        "hf.co/",
        "a b/c",
        "a/b@",
        "a/b@../c",
        "a/b@v1/../c",
        "a@v/b",
    ],
)
def test_other_paths_are_no_names_of_the_hub(name):
    assert on_hub(name) is None


def test_a_name_of_the_hub_may_have_a_branch_a_tag_or_a_commit():
    assert on_hub("a/b") == Repository("a/b") and on_hub("a/b@v1.0") == Repository("a/b", "v1.0")
    assert on_hub("a/b@refs/pr/3") == Repository("a/b", "refs/pr/3") and str(on_hub("a/b@v1")) == "a/b@v1"
    assert command(["a/b@v1", "a/c"]) == "hf download a/b --revision v1 && hf download a/c"


def refusal(name: str = "user/tiny", **more: str | None) -> str:
    with pytest.raises(ValueError, match="user") as error:
        load_model(name, **more)
    return str(error.value)


def test_a_repository_that_is_not_there_is_told(hub):
    hub.name = "user/other"
    assert "no repository of that name on the hub" in refusal()


def test_a_private_repository_wants_a_token(hub, monkeypatch):
    hub.private = True
    assert "a private one needs `hf auth login`" in refusal()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "refuses the token (HTTP 401)" in refusal()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_model("user/tiny").provenance["hub"]["commit"] == COMMIT


def test_a_revision_that_is_not_there_is_told(hub):
    assert refusal(revision="v9") == "user/tiny on the hub has no revision v9"


def test_a_revision_of_a_folder_is_refused(hub):
    with pytest.raises(ValueError, match="a revision is of a repository of the hub"):
        load_model(hub.folder, revision="v1")


def test_a_hub_that_fails_and_one_that_cannot_be_reached_are_told_apart(hub, monkeypatch):
    hub.broken = True
    assert "HTTP 500" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached (or HF_HUB_OFFLINE is set)" in refusal()


def test_a_repository_that_is_no_model_folder_is_told(hub):
    (hub.folder / "model.safetensors").unlink()
    assert refusal() == "user/tiny on the hub is no model folder of ccl: it has no model.safetensors"


def test_of_a_repository_without_a_config_no_weights_are_fetched(hub):
    (hub.folder / "config.yaml").unlink()
    assert refusal() == "user/tiny on the hub is no model folder of ccl: it has no config.yaml"
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_model_of_the_hub_names_no_classes_but_those_of_ccl(hub):
    config = yaml.safe_load((hub.folder / "config.yaml").read_text())
    config["text"] = {"class_path": "planted.Text"}
    (hub.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "no class of ccl; a model may name no other unless you trust the module" in refusal()


def test_generate_takes_a_name_of_the_hub_and_says_what_is_wrong_in_a_sentence(hub, capsys):
    hub.name = "user/other"
    assert cli.main(["generate", "--ckpt", "user/tiny", "--prompt", "x", "-o", "x.mp4"]) != 0
    assert "no repository of that name on the hub" in capsys.readouterr().err
