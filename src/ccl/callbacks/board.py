"""What TensorBoard needs of a training that may be killed, gone back with, or run out of disk."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread


class Board(Callback):
    """Takes back what an earlier start has logged of the steps that are about to be made again.

    Without it their curves are there twice. Lightning counts them from 0: after N steps, step N is the next one's.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                again = Event(step=trainer.global_step, session_log=SessionLog(status=SessionLog.START))
                logger.experiment._get_file_writer().event_writer.add_event(again)


@contextmanager
def writer_told(folder: Path) -> Iterator[None]:
    """TensorBoard writes in a thread, whose error the next write raises: no traceback, and the folder's name in it.

    Args:
        folder: it writes in.
    """

    def note(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.thread, _AsyncWriterThread):
            before(args)

    before, threading.excepthook = threading.excepthook, note
    try:
        yield
    except OSError as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        writes = any(frame.f_globals.get("__name__") == _AsyncWriterThread.__module__ for frame in frames)
        if writes and error.errno and error.filename is None:
            error.filename = str(folder)
        raise
    finally:
        threading.excepthook = before
