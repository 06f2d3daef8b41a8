"""The schema of configs: it takes those that ship, and what a user may write; it marks what is wrong."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import ccl
from helpers import ROOT

jsonschema = pytest.importorskip("jsonschema")
# Whole configs and overlays; the other folders hold parts.
CONFIGS = [
    *(ROOT / "configs").glob("*.yaml"),
    *(path for folder in ("model", "data", "trainer", "world") for path in (ROOT / "configs" / folder).glob("*.yaml")),
]
JOINT = yaml.safe_load((ROOT / "configs" / "joint.yaml").read_text())


@pytest.fixture(scope="module")
def judge() -> Any:
    """By what the command prints, in a process of its own: here classes of other tests would be found as well."""
    done = subprocess.run([sys.executable, "-m", "ccl", "schema"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    described = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(described)
    return jsonschema.Draft202012Validator(described)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_config_that_ships_is_in_order(judge: Any, path: Path) -> None:
    assert [error.message for error in judge.iter_errors(yaml.safe_load(path.read_text()))] == []


def changed(key: str, value: Any) -> dict[str, Any]:
    """joint.yaml with another value at a key."""
    config = copy.deepcopy(JOINT)
    *above, last = key.split(".")
    node = config
    for word in above:
        node = node[word]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.text_dropuot", 0.1),
        ("model.text_dropout", "much"),
        ("model.net.init_args.layer", 4),
        ("model.net.init_args.video.init_args.width", [1]),
        ("grid.frames", "many"),
        ("trainer.max_step", 10),
        ("trainer.callbacks", [{"class_path": "ccl.callbacks.Nothing"}]),
        ("model.net.class_path", "ccl.model.Nothing"),
        ("task_per", "clip"),
    ],
)
def test_what_is_wrong_is_marked(judge: Any, key: str, value: Any) -> None:
    assert judge.is_valid(JOINT) and not judge.is_valid(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.net.init_args.interaction", {"class_path": "mine.Fusion", "init_args": {"anything": 1}}),
        ("model.net.init_args.interaction", "mine.yaml"),
        ("model.tasks", "tasks/single.yaml"),
        ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.Timer"}]),
        ("trainer.max_steps", 10),
    ],
)
def test_what_a_user_may_write_is_in_order(judge: Any, key: str, value: Any) -> None:
    assert [error.message for error in judge.iter_errors(changed(key, value))] == []


def test_the_schema_says_of_which_version_it_is(judge: Any) -> None:
    assert ccl.__version__ in judge.schema["title"]
