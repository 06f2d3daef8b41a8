"""The task of each step, from a hash of (seed, step): the same on every rank and after a resume (CCL Sec. 4.4)."""

from __future__ import annotations

from typing import Any

from lightning import Callback

from ccl import tasks
from ccl.types import Batch


class TaskRouter(Callback):
    """Puts the step's task on the batch, and logs how often each task was drawn.

    One task a step: batches that are accumulated into one optimizer step share it.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        # Keyed on batches, not on global_step: a checkpoint within an accumulation would repeat the draw.
        step = pl_module.batches // trainer.accumulate_grad_batches
        batch.task = tasks.draw(pl_module.tasks, pl_module.seed, step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.counts[batch.task] = self.counts.get(batch.task, 0) + 1
        pl_module.log_dict({f"tasks/{name}": float(n) for name, n in self.counts.items()}, batch_size=len(batch.id))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict["counts"])
