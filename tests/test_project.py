"""What stands around the package: citation, workflows and pages for those who report, true to what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import ccl
from helpers import ROOT

FILES = [
    *(ROOT / ".github").rglob("*.yml"),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_of_the_project_is_yaml(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_version_is_the_same_everywhere() -> None:
    assert read(ROOT / "CITATION.cff")["version"] == PROJECT["version"] == ccl.__version__
    assert re.search(rf"^## {re.escape(ccl.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_workflows_call_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in read(path)["jobs"].values():
            for step in job.get("steps", ()):
                called |= set(re.findall(r"\bmake ([a-z-]+)", step.get("run", "")))
    assert called and called <= targets


def test_only_the_job_that_publishes_may_identify_itself() -> None:
    release = read(ROOT / ".github" / "workflows" / "release.yml")
    assert release["permissions"] == {"contents": "read"}
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release["jobs"]["publish"]["needs"] == "build"
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_pre_commit_takes_the_ruff_that_the_project_asks_for() -> None:
    (hook,) = (
        repo for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] if repo["repo"].endswith("ruff-pre-commit")
    )
    (asked,) = (line for line in PROJECT["optional-dependencies"]["dev"] if line.startswith("ruff"))
    assert asked.removeprefix("ruff>=") in hook["rev"]


def test_the_image_is_given_all_that_the_wheel_is_built_from() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    forced = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"src", "pyproject.toml", PROJECT["readme"], *(path.split("/")[0] for path in forced["force-include"])}
    assert needed <= kept


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(ccl.__file__).parent / "py.typed").is_file()
