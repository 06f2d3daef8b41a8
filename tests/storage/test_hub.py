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
from ccl.storage.hub import is_hub_name
from ccl.storage.model_folder import load_model, save_model
from helpers.hub_server import COMMIT, TOKEN, Hub, serving
from helpers.tiny import tiny_config, tiny_state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "model"
    save_model(folder, tiny_config(), tiny_state())
    return folder


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that holds user/tiny, with a file more than a model has; this process asks it and no other."""
    folder = tmp_path / "repository"
    shutil.copytree(saved, folder)
    (folder / "planted.py").write_text("raise SystemExit")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving(Hub(folder)) as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)  # HF_ENDPOINT is read as the package is imported
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def test_a_name_of_the_hub_loads_the_model_that_lies_there_and_says_its_commit(hub, saved):
    there, here = load_model("user/tiny", revision="v1"), load_model(saved)
    for (name, one), (_, other) in zip(there.net.state_dict().items(), here.net.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert there.provenance["hub"] == {"repository": "user/tiny", "revision": "v1", "commit": COMMIT}
    assert any("/revision/v1" in path for path in hub.asked)


def test_load_takes_a_name_and_fetches_only_the_two_files_of_a_model(hub):
    ccl.load("user/tiny", device="cpu")
    asked = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert asked == {"config.yaml", "model.safetensors"}


def test_what_was_fetched_loads_without_the_hub(hub):
    load_model("user/tiny")
    hub.broken = True
    assert load_model("user/tiny").provenance["hub"]["commit"] == COMMIT


def test_a_folder_here_is_meant_before_a_repository_there(hub, saved):
    shutil.copytree(saved, "user/tiny")
    assert "hub" not in load_model("user/tiny").provenance
    assert hub.asked == []


def test_a_misspelt_path_below_a_folder_here_asks_nobody(hub):
    Path("user").mkdir()
    with pytest.raises(ValueError, match=r"there is no checkpoint user/tiny$"):
        load_model("user/tiny")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["model", "a/b/c", "runs/x.ckpt", "../x", "/a/b", "~/x", "hf.co/", "a b/c"])
def test_other_paths_are_no_names_of_the_hub(name):
    assert not is_hub_name(name)


def refusal(**more: str | None) -> str:
    with pytest.raises(ValueError, match="user") as error:
        load_model("user/tiny", **more)
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


def test_a_revision_of_a_folder_is_refused(saved):
    with pytest.raises(ValueError, match="a revision is of a repository of the hub"):
        load_model(saved, revision="v1")


def test_a_hub_that_fails_and_one_that_cannot_be_reached_are_told_apart(hub, monkeypatch):
    hub.broken = True
    assert "HTTP 500" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached (or HF_HUB_OFFLINE is set)" in refusal()


def test_a_repository_that_is_no_model_folder_is_told(hub):
    (hub.folder / "model.safetensors").unlink()
    assert refusal() == "user/tiny on the hub is no model folder of ccl: it has no model.safetensors"


def test_a_model_of_the_hub_names_no_classes_but_those_of_ccl(hub):
    config = yaml.safe_load((hub.folder / "config.yaml").read_text())
    config["text"] = {"class_path": "planted.Text"}
    (hub.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "no class of ccl; a model may name no other unless you trust the module" in refusal()


def test_generate_takes_a_name_of_the_hub_and_says_what_is_wrong_in_a_sentence(hub, capsys):
    hub.name = "user/other"
    assert cli.main(["generate", "--ckpt", "user/tiny", "--prompt", "x", "-o", "x.mp4"]) != 0
    assert "no repository of that name on the hub" in capsys.readouterr().err
