"""Every loss of a run, to the last bit, in a file that a resume continues: what exact resume is measured by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from lightning import Callback

from ccl.files import plain_name, write_whole
from ccl.types import Batch


class LossLog(Callback):
    """Appends a line a batch to `losses.jsonl` in the run folder: batch, step, task and the losses that count.

    A resume drops the lines beyond its checkpoint, and one that a kill left half-written.

    Args:
        name: of the file.

    Raises:
        FileError: the name leads out of the run folder.
    """

    def __init__(self, name: str = "losses.jsonl") -> None:
        self.name = plain_name(name, "LossLog")
        self._file: IO[str] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / self.name
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if batch_of(line) < pl_module.batches]
            write_whole(path, "".join(f"{line}\n" for line in kept))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)  # a line at a time, so that a kill loses none

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self._file is not None:
            row = {"batch": pl_module.batches - 1, "step": trainer.global_step, "task": batch.task, **outputs["report"]}
            self._file.write(json.dumps(row) + "\n")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def batch_of(line: str) -> int | float:
    """The batch that a line is about; infinity where it is not whole."""
    try:
        return json.loads(line)["batch"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
