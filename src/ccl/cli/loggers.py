"""The loggers of a training by their names: `--trainer.logger wandb`, or several at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from ccl.cli.errors import UsageError
from ccl.storage.run import RunFolder

Name = Literal["tensorboard", "csv", "wandb"]


class LoggedTrainer(Trainer):
    """Lightning's Trainer, whose loggers may be named.

    Args:
        logger: tensorboard, csv or wandb (Weights & Biases; WANDB_PROJECT and WANDB_MODE=offline are heeded), several
            in a list, or one of Lightning's by its class; null is tensorboard, false none.
    """

    def __init__(self, *, logger: Name | bool | Logger | list[Name | Logger] | None = None, **kwargs: Any) -> None:
        made: Any = logger  # names have become loggers by then
        super().__init__(logger=made, **kwargs)


def loggers(given: Any, run: RunFolder, config: Mapping[str, Any]) -> list[Logger]:
    """What logs a training, into its folder.

    Args:
        given: as trainer.logger has it.
        run: the training's folder.
        config: resolved, which Weights & Biases keeps.

    Raises:
        UsageError: one is named twice; wandb is not installed.
    """
    if given is False:
        return []
    asked: list[Any] = given if isinstance(given, list) else ["tensorboard" if given in (None, True) else given]
    if twice := [one for one in asked if isinstance(one, str) and asked.count(one) > 1]:
        raise UsageError(f"trainer.logger names {twice[0]} twice")
    return [one if isinstance(one, Logger) else named(one, run, config) for one in asked]


def named(name: Name, run: RunFolder, config: Mapping[str, Any]) -> Logger:
    """A logger by its name.

    Raises:
        UsageError: wandb is not installed.
    """
    if name == "tensorboard":
        return TensorBoardLogger(run.tensorboard, name="", version="")
    if name == "csv":  # a folder for each start, as Lightning would delete what an earlier one has left
        return CSVLogger(run.path, name="csv", flush_logs_every_n_steps=1)
    if find_spec("wandb") is None:
        raise UsageError("trainer.logger: wandb is not installed: pip install 'ccl[wandb]'")
    project = os.environ.get("WANDB_PROJECT", "ccl")
    return WandbLogger(run.name, run.path, project=project, id=wandb_id(run.path), config=dict(config))


def wandb_id(folder: Path) -> str | None:
    """Of the run at Weights & Biases, as its folders' names end: what goes on, goes on there. None of a new run."""
    found = sorted(path.name.split("run-")[1] for path in folder.glob("wandb/*run-*-*"))  # DATE-ID
    return found[-1].partition("-")[2] if found else None
