"""How fast training goes and how much it has seen."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback

from ccl.types import Batch


class Throughput(Callback):
    """Logs clips a second and seconds a step, as a running mean, and clips seen, which outlives a resume.

    Args:
        memory: share of the running mean that stays at each batch.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory = memory
        self.clips = 0
        self._seconds: float | None = None
        self._last: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._last = self._seconds = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        size = len(batch.id)
        clips = size * pl_module.place[1]
        self.clips += clips
        values = {"clips_seen": float(self.clips)}
        now = time.perf_counter()
        if self._last is not None:  # the first batch also pays for start-up
            taken = now - self._last
            self._seconds = taken if self._seconds is None else self.memory * self._seconds + (1 - self.memory) * taken
            values |= {"seconds_per_batch": self._seconds}
            pl_module.log("clips/s", clips / self._seconds, prog_bar=True, batch_size=size)
        self._last = now
        pl_module.log_dict(values, batch_size=size)

    def state_dict(self) -> dict[str, Any]:
        return {"clips": self.clips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clips = state_dict["clips"]
