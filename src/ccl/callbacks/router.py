"""The task of each step or clip, from a hash: the same on every rank and after a resume (CCL Sec. 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning import Callback

from ccl.tasks import Task, draw
from ccl.types import Batch


class TaskRouter(Callback):
    """Decides which task each clip of a step trains, and logs how often each was drawn.

    Args:
        per: "batch": one task a step, from (seed, step); batches that are accumulated into one optimizer step share it.
            "sample": one a clip, from (seed, step, its place among all clips of the step). In expectation the loss is
            the same, and depends less on one draw. Not with `model.compile`: each mix of tasks is compiled anew.
    """

    def __init__(self, per: Literal["batch", "sample"] = "batch") -> None:
        self.per = per
        self.counts: dict[str, float] = {}

    def route(self, tasks: Mapping[str, Task], *, seed: int, step: int, place: int) -> str:
        """The task of the clip at a place; `training_step` asks for it."""
        return draw(tasks, seed, step) if self.per == "batch" else draw(tasks, seed, step, place)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        for name, share in outputs["shares"].items():
            self.counts[name] = self.counts.get(name, 0) + share
        pl_module.log_dict({f"tasks/{name}": float(n) for name, n in self.counts.items()}, batch_size=len(batch.id))

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict["counts"])
