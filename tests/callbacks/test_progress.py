"""The training bar counts steps of the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer

from ccl.callbacks import Parameters, SaveCheckpoint, StepProgress, TaskRouter
from helpers.fakes import FakeData, make_module


class Watched(StepProgress):
    """Keeps what the bar shows after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[str, float, float | None]] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        bar = self.train_progress_bar
        self.shown.append((bar.description.strip(), bar.completed, bar.total))


def train(folder: Path, ckpt_path: str | None = None, **options: Any) -> Watched:
    bar = Watched()
    trainer = Trainer(
        accelerator="cpu", logger=False, max_epochs=-1, enable_model_summary=False, default_root_dir=folder,
        use_distributed_sampler=False, callbacks=[TaskRouter(), SaveCheckpoint(every=2), bar], **options,
    )  # fmt: skip
    trainer.fit(make_module(), datamodule=FakeData(size=1), ckpt_path=ckpt_path)
    return bar


def test_the_bar_shows_steps_of_the_whole_run_after_a_resume(tmp_path: Path) -> None:
    assert train(tmp_path, max_steps=2).shown == [("steps", 1, 2), ("steps", 2, 2)]
    assert train(tmp_path, max_steps=3, ckpt_path="last").shown == [("steps", 3, 3)]


def test_accumulated_batches_are_not_steps(tmp_path: Path) -> None:
    shown = train(tmp_path, max_steps=2, accumulate_grad_batches=2).shown
    assert [done for _, done, _ in shown] == [0, 1, 1, 2]


def test_a_training_says_its_parameters_in_a_line_and_counts_nothing_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = make_module()
    trainer = Trainer(
        accelerator="cpu", logger=False, max_steps=1, enable_progress_bar=False, default_root_dir=tmp_path,
        use_distributed_sampler=False, callbacks=[TaskRouter(), SaveCheckpoint(every=2), Parameters()],
    )  # fmt: skip
    trainer.fit(module, datamodule=FakeData(size=1))
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("parameters: ")]
    assert all(f"{name} " in line for name, _ in module.named_children()) and line.endswith(" train")
    assert "FLOPs" not in said


def test_the_folders_number_is_not_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.callbacks.RichProgressBar.get_metrics", lambda *_: {"v_num": "", "loss": 1})
    assert StepProgress().get_metrics(None, None) == {"loss": 1}
