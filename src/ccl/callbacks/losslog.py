"""Every loss of a run, to the last bit, in a file that a resume continues: what exact resume is measured by."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from zlib import crc32

from lightning import Callback

from ccl.files import plain_name, reading, write_whole
from ccl.storage.checkpoint import complete_checkpoints, step_of
from ccl.storage.run import SCORES, VALIDATION, holds_losses
from ccl.types import Batch


class LossLog(Callback):
    """Appends a line a batch to `losses.jsonl` in the run folder: batch, step, task and the losses that count.

    Where the clips of a batch train several tasks, its task is "mixed", and each loss says its own. Losses of
    validation are a line of their own, `validation` in place of losses, and so are scores of the weights after a batch
    (`Evaluate`), whenever they come: `evaluation`.

    A resume drops the lines from its checkpoint on, and the last one where a kill has left it half-written. Who goes
    back while later checkpoints stay leaves their log beside this one, named after its number of batches and its sum:
    who then goes on from one of those has its lines again, found by the sum in the checkpoint.

    Args:
        name: of the file.

    Raises:
        FileError: the name leads out of the run folder; at the start, a file of that name is no such log.
    """

    def __init__(self, name: str = "losses.jsonl") -> None:
        self.name = plain_name(name, "LossLog")
        self._file: IO[str] | None = None
        self._sum: int | None = None  # of all lines of losses; None of a checkpoint that knows none
        self._beside: set[tuple[int, str]] = set()  # steps of which there are scores, or losses of validation

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / self.name
        if path.exists():
            later = any(step_of(one) > trainer.global_step for one in complete_checkpoints(path.parent / "checkpoints"))
            kept = self._go_back(path, pl_module.batches, later)
            write_whole(path, kept)
            self._sum = sum_of(kept)
            found = [json.loads(line) for line in kept.splitlines()]
            self._beside = {(row["step"], key) for row in found for key in (SCORES, VALIDATION) if key in row}
        else:
            self._sum, self._beside = 0, set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)  # a line at a time, so that a kill loses none

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self._file is not None:
            now = {"batch": pl_module.batches - 1, "step": trainer.global_step, "task": outputs["task"]}
            row = {**now, **outputs["report"]}
            line = json.dumps(row) + "\n"
            self._file.write(line)
            self._sum = crc32(line.encode(), self._sum or 0)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._add(pl_module.batches - 1, trainer.global_step, VALIDATION, pl_module.validated)

    def add_scores(self, batch: int, step: int, values: dict[str, float]) -> None:
        """A line of scores of the weights after a batch; nothing where there is one of this step."""
        self._add(batch, step, SCORES, values)

    def _add(self, batch: int, step: int, key: str, values: dict[str, float]) -> None:
        """A line beside the losses.

        It has no part in the sum: it comes at any time, also after the last checkpoint.
        """
        if self._file is not None and (step, key) not in self._beside:
            self._beside.add((step, key))
            self._file.write(json.dumps({"batch": batch, "step": step, key: values}) + "\n")

    def _go_back(self, path: Path, batch: int, later: bool) -> str:
        """The lines before a batch's of the log that the checkpoint continues; what it leaves is kept, if asked for."""
        whole, before = {}, {}
        for log in [path, *sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}"))]:
            with reading(log, "the losses of a run"):
                lines = log.read_text().split("\n")
                before[log] = "".join(f"{line}\n" for line in until(batch, lines))
            whole[log] = "".join(f"{line}\n" for line in lines[:-1])
        found = next((log for log in whole if self._sum in (None, sum_of(before[log]))), None)
        kept = "" if found is None else before[found]
        if whole[path] != kept and (later or found != path):
            number = sum(has_losses(line) for line in whole[path].splitlines())
            its_sum = crc32(whole[path].encode())
            left = path.with_name(f"{path.stem}.{number:06d}-{its_sum:08x}{path.suffix}")
            write_whole(left, whole[path])
            if found is None:
                sys.stderr.write(
                    f"ccl: {path} is of other steps than the checkpoint: it is kept as {left.name} and begins anew\n"
                )
        return kept

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sum = state_dict.get("sum")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()  # after an error Lightning calls no teardown

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def has_losses(line: str) -> bool:
    """Whether a line of a log holds losses."""
    return holds_losses(json.loads(line))


def sum_of(log: str) -> int:
    """The sum of a log's losses."""
    return crc32("".join(line for line in log.splitlines(keepends=True) if has_losses(line)).encode())


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
