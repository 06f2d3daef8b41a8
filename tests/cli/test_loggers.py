"""Loggers by their names: which there are, several at once, and what is said where one cannot be had."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ccl import cli
from ccl.cli import loggers as module_of
from ccl.cli.errors import UsageError
from ccl.cli.fit import explained
from ccl.cli.loggers import loggers, wandb_id
from ccl.storage.run import RunFolder
from cli.test_fit import JOINT, TINY


def kinds(given: Any, folder: Path) -> list[type]:
    return [type(one) for one in loggers(given, RunFolder("a", folder), {})]


def test_tensorboard_is_the_usual_one_and_false_is_none(tmp_path: Path) -> None:
    assert kinds(None, tmp_path) == kinds(True, tmp_path) == kinds("tensorboard", tmp_path) == [TensorBoardLogger]
    assert kinds(False, tmp_path) == []
    own = CSVLogger(tmp_path)
    found = loggers(["tensorboard", own], RunFolder("a", tmp_path), {})
    assert type(found[0]) is TensorBoardLogger and found[1] is own


def test_one_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^trainer\.logger names csv twice$"):
        loggers(["csv", "tensorboard", "csv"], RunFolder("a", tmp_path), {})


def test_where_wandb_is_not_installed_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^trainer\.logger: wandb is not installed: pip install 'ccl\[wandb\]'$"):
        loggers("wandb", RunFolder("a", tmp_path), {})


def test_what_wandb_complains_of_is_one_sentence_with_a_way_out(tmp_path: Path) -> None:
    theirs = type("UsageError", (Exception,), {"__module__": "wandb.errors"})
    with pytest.raises(UsageError, match=r"wandb says: No key\. Log in; WANDB_MODE=offline"), explained(tmp_path):
        raise theirs("No key. Log in.")


def test_a_run_that_goes_on_goes_on_in_its_latest_run_there(tmp_path: Path) -> None:
    assert wandb_id(tmp_path) is None
    for name in ("offline-run-20260101_120000-old", "run-20260102_090000-my-own", "latest-run", "debug.log"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert wandb_id(tmp_path) == "my-own"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("wandbb", "it must be one of 'tensorboard', 'csv', 'wandb', not 'wandbb'"),
        ("[csv, wandbb]", "it must be one of 'tensorboard', 'csv', 'wandb'"),
        ("mine.yaml", "there is no file mine.yaml"),
    ],
)
def test_an_unknown_name_is_told_those_there_are(given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--config", JOINT, "--trainer.logger", given, "--print_config"]) == 2
    assert capsys.readouterr().err == f"ccl: trainer.logger on the command line: {said}\n"


def test_a_table_of_each_start_lies_in_the_run_folder_beside_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY.replace("ROOT", str(tmp_path)))
    argv = ["fit", "--config", JOINT, "--config", str(tmp_path / "tiny.yaml"), "--runs_dir", str(tmp_path)]
    argv += ["--name", "logged", "--trainer.logger", "[tensorboard, csv]", "--trainer.log_every_n_steps", "1"]
    for steps in ("2", "3"):
        assert cli.main([*argv, "--trainer.max_steps", steps, "--ckpt_path", "last"]) == 0
    tables = sorted((tmp_path / "logged").glob("csv/*/metrics.csv"))
    rows = [[row for row in csv.DictReader(table.read_text().splitlines()) if row["loss"]] for table in tables]
    assert [[row["step"] for row in one] for one in rows] == [["0", "1"], ["2"]]
    assert any((tmp_path / "logged/tensorboard").glob("events.*"))
