"""The training bar, in optimizer steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import RichProgressBar

from ccl.types import Batch


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
