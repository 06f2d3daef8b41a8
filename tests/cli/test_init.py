"""`ccl init` hands out the configs that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccl import cli
from ccl.files.shipped import ships
from helpers import ROOT


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_configs_are_written_as_they_ship(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(tmp_path / "mine")]) == 0
    assert tree(tmp_path / "mine") == tree(ROOT / "configs")
    assert f"{len(tree(ROOT / 'configs'))} files written" in capsys.readouterr().out


def test_what_was_changed_is_kept_and_told_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "joint.yaml"
    own.write_text("mine\n")
    assert cli.main(["init", str(tmp_path)]) == 2
    assert f"{own} is not as it ships; --overwrite" in capsys.readouterr().err
    assert tree(tmp_path) == {"joint.yaml": b"mine\n"}
    assert cli.main(["init", str(tmp_path), "--overwrite"]) == 0
    assert own.read_bytes() == (ROOT / "configs" / "joint.yaml").read_bytes()


def test_a_second_time_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["init", str(tmp_path)])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}
    assert cli.main(["init", str(tmp_path)]) == 0
    assert "all files are there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.yaml")}


@pytest.mark.parametrize("command", ["fit --config configs/joint.yaml", "plan --config configs/joint.yaml"])
def test_outside_of_the_repository_a_config_that_ships_is_told_to_be_had(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 2
    assert "no config file configs/joint.yaml; `ccl init` writes those that ship" in capsys.readouterr().err


def test_only_what_ships_is_said_to_ship() -> None:
    assert ships(Path("configs/model/wan14b.yaml"), "configs")
    assert not ships(Path("configs/model/nothing.yaml"), "configs")
    assert not ships(Path("configs/../pyproject.toml"), "configs")
