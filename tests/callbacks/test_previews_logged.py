"""Previews in loggers other than TensorBoard: handed to Weights & Biases as files with sound, left as files by CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from ccl.callbacks import Preview, TaskRouter
from ccl.callbacks.preview import log_clip
from ccl.media import Clip
from helpers.fakes import FakeData, fit, make_module


class Told(WandbLogger):
    """Keeps what it is told; needs no wandb."""

    save_dir = name = version = experiment = None

    def __init__(self) -> None:
        self.told: list[tuple[str, Any, int | None, dict[str, Any]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def finalize(self, status: str) -> None: ...

    def log_video(self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self.told.append((key, videos, step, kwargs))

    log_audio = log_video


def test_previews_are_handed_over_as_files_with_their_prompts(tmp_path: Path) -> None:
    logger, table = Told(), CSVLogger(tmp_path, name="csv")
    callbacks = [TaskRouter(), Preview(["a bell", "rain"], every=2, steps=1)]
    fit(make_module(), FakeData(), tmp_path, callbacks=callbacks, logger=[table, logger], max_steps=3)
    files = [tmp_path / f"previews/step_00000{step}/{i}.mp4" for step in (2, 3) for i in (0, 1)]
    assert all(file.exists() for file in files)
    assert [told[:3] for told in logger.told] == [
        (f"preview/{i}", [str(file)], step) for file, i, step in zip(files, (0, 1, 0, 1), (1, 1, 2, 2), strict=True)
    ]
    assert logger.told[1][3] == {"caption": ["rain"], "format": ["mp4"]}


def test_a_clip_that_is_only_heard_is_handed_over_as_sound(tmp_path: Path) -> None:
    logger, sound = Told(), np.zeros(160, np.float32)
    log_clip(logger, "preview/0", Clip(None, sound, prompt="rain"), tmp_path / "0.mp4", 4)
    assert logger.told == [("preview/0", [sound], 4, {"caption": ["rain"], "sample_rate": [16_000]})]


def test_offline_weights_and_biases_has_previews_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'ccl[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger("a", tmp_path, project="ccl")
    callbacks = [TaskRouter(), Preview(["a bell"], every=1, steps=1)]
    options: dict[str, Any] = {"callbacks": callbacks, "max_steps": 2, "log_every_n_steps": 1}
    fit(make_module(), FakeData(), tmp_path, logger=logger, **options)
    log_clip(logger, "heard", Clip(None, np.zeros(1600, np.float32), prompt="rain"), tmp_path / "0.mp4", 2)
    wandb.teardown()  # its own process has written all once it has ended
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    shown = {path.read_bytes() for path in run.glob("files/media/videos/preview/0_*.mp4")}
    assert shown == {path.read_bytes() for path in tmp_path.glob("previews/*/0.mp4")} and len(shown) == 2
    assert list(run.glob("files/media/audio/heard_*.wav"))
    (record,) = run.glob("run-*.wandb")
    assert b"loss/joint/video" in record.read_bytes()
