"""The task of each step, from a hash of (seed, step): the same on every rank and after a resume (CCL Sec. 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Callback

from ccl.tasks import Task, draw
from ccl.types import Batch


class TaskRouter(Callback):
    """Decides which task a step trains, and logs how often each was drawn.

    One task a step: batches that are accumulated into one optimizer step share it.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def route(self, tasks: Mapping[str, Task], *, seed: int, step: int) -> str:
        """The step's task; `training_step` asks for it."""
        return draw(tasks, seed, step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        name = outputs["task"]
        self.counts[name] = self.counts.get(name, 0) + 1
        pl_module.log_dict({f"tasks/{name}": float(n) for name, n in self.counts.items()}, batch_size=len(batch.id))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict["counts"])
