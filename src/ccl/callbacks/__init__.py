"""What happens around a training step: the task's draw, averages, logs, previews, scores, checkpoints."""

from ccl.callbacks.balance import Balance, EqualGradientNorm, Uncertainty
from ccl.callbacks.board import Board
from ccl.callbacks.ema import EMA
from ccl.callbacks.evaluate import Evaluate
from ccl.callbacks.losslog import LossLog
from ccl.callbacks.monitor import Monitor
from ccl.callbacks.preview import Preview
from ccl.callbacks.probe import Probe
from ccl.callbacks.progress import Parameters, StepProgress
from ccl.callbacks.router import TaskRouter
from ccl.callbacks.save import SaveCheckpoint
from ccl.callbacks.stop import StopOnSignal
from ccl.callbacks.throughput import Throughput
from ccl.callbacks.words import Words

__all__ = [
    "EMA",
    "Balance",
    "Board",
    "EqualGradientNorm",
    "Evaluate",
    "LossLog",
    "Monitor",
    "Parameters",
    "Preview",
    "Probe",
    "SaveCheckpoint",
    "StepProgress",
    "StopOnSignal",
    "TaskRouter",
    "Throughput",
    "Uncertainty",
    "Words",
]
