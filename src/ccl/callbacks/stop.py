"""Ctrl-C and a cluster's signals: a training ends with its step, saved."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning import Callback

from ccl.types import Batch

# From a terminal, from a machine that is shut down or a job that is cancelled, and what SLURM is asked to send before
# the time is up (`--signal=USR1@600`).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(Callback):
    """Ends a training after the optimizer step in which a signal arrives; SaveCheckpoint, which comes later, saves it.

    All processes end at the same step, whichever of them was sent the signal. The same signal again ends at once.
    """

    def __init__(self) -> None:
        self.began = False  # a step: there was one left to make
        self.received = 0  # the signal's number, on all processes once they have agreed
        self._step = 0
        self._tells = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.began, self.received, self._tells = True, 0, trainer.is_global_zero
        # After Lightning's own, which save nothing or, under SLURM, in the midst of a step.
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self._tells:  # not by print, which may be what was interrupted
            os.write(2, b"\nccl: this step is the last one and will be saved; once more to stop at once\n")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        number = torch.tensor(float(self.received), device=trainer.strategy.root_device)
        self.received = int(trainer.strategy.reduce(number, reduce_op="max"))
        trainer.should_stop = trainer.should_stop or self.received > 0

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._restore()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
