"""What the console shows of a training: its parameters, and a bar in optimizer steps."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.callbacks import ModelSummary, RichProgressBar
from lightning.pytorch.utilities.model_summary import get_human_readable_count

from ccl.types import Batch


class Parameters(ModelSummary):
    """How many parameters there are and how many train, in a line.

    Lightning's table also has FLOPs, of which it counts none here and says 0; `ccl plan` counts them.
    """

    @staticmethod
    def summarize(summary_data: Any, total_parameters: int, trainable_parameters: int, *_: Any, **__: Any) -> None:
        table = dict(summary_data)
        parts = ", ".join(f"{name} {count.strip()}" for name, count in zip(table["Name"], table["Params"], strict=True))
        sys.stdout.write(f"parameters: {parts}; {get_human_readable_count(trainable_parameters).strip()} train\n")
        sys.stdout.flush()


class StepProgress(RichProgressBar):
    """Steps done of trainer.max_steps, those before a resume included.

    Lightning's own bar counts batches of an epoch, which here never ends: it says "Epoch 0/-2", and "9/5" after a
    resume.
    """

    @property
    def total_train_batches(self) -> int | float:
        steps = self.trainer.max_steps
        return steps if steps > 0 else super().total_train_batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        done = trainer.global_step if trainer.max_steps > 0 else batch_idx + 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, done - 1)

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        return "steps"
