"""Every loss of a run, to the last bit, in a file that a resume continues: what exact resume is measured by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lightning import Callback

from ccl.files import plain_name, reading, write_whole
from ccl.types import Batch


class LossLog(Callback):
    """Appends a line a batch to `losses.jsonl` in the run folder: batch, step, task and the losses that count.

    A resume drops the lines from its checkpoint on, and the last one where a kill has left it half-written.

    Args:
        name: of the file.

    Raises:
        FileError: the name leads out of the run folder; at the start, a file of that name is no such log.
    """

    def __init__(self, name: str = "losses.jsonl") -> None:
        self.name = plain_name(name, "LossLog")
        self._file: IO[str] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / self.name
        if path.exists():
            with reading(path, "the losses of a run"):
                kept = list(until(pl_module.batches, path.read_text().split("\n")))
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


def until(batch: int, lines: Sequence[str]) -> Iterator[str]:
    """The whole lines before a batch's, of a log whose last line ends it.

    Raises:
        ValueError: a line says no batch.
    """
    for number, line in enumerate(lines[:-1], 1):
        found = json.loads(line)
        found = found.get("batch") if isinstance(found, dict) else None
        if type(found) is not int:
            raise ValueError(f"line {number} says no batch")
        if found < batch:
            yield line
