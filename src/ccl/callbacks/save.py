"""When checkpoints are written, which are kept, and what `ckpt_path="last"` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ccl import arguments
from ccl.callbacks.ema import EMA, local
from ccl.files import one_writer
from ccl.files.sums import sums_of
from ccl.storage.checkpoint import (
    CheckpointError,
    complete_checkpoints,
    finish,
    last_checkpoint,
    remove,
    step_of,
    sweep_checkpoints,
)
from ccl.training.fsdp import gathered
from ccl.types import Batch


class SaveCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/step=N.ckpt` in the run folder every N optimizer steps and at the last one.

    Lightning runs it after all other callbacks, so that a checkpoint holds their states of its own step.

    Args:
        every: optimizer steps between checkpoints.
        keep: checkpoints kept; None keeps all.
        milestone: steps whose multiples are kept for good; None for none.
    """

    def __init__(self, every: int = 500, keep: int | None = 2, milestone: int | None = None) -> None:
        arguments.number("SaveCheckpoint's every", every, 1, arguments.MOST, whole=True)
        for name, value in (("keep", keep), ("milestone", milestone)):
            if value is not None:
                arguments.number(f"SaveCheckpoint's {name}", value, 1, arguments.MOST, whole=True)
        super().__init__(save_top_k=-1, every_n_train_steps=every)
        self.every, self.keep, self.milestone = every, keep, milestone
        self._step = 0

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.dirpath = str(folder(trainer))
            if trainer.is_global_zero:
                Path(self.dirpath).mkdir(parents=True, exist_ok=True)
                with one_writer(Path(trainer.default_root_dir)):  # nobody else's half-written checkpoint
                    sweep_checkpoints(Path(self.dirpath))

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        # Lightning would start from 0 without a word where there is none.
        return {str(last_checkpoint(folder(trainer)))}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self._step:  # gradients are being accumulated
            return
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop:
            self.write(trainer, step)

    def write(self, trainer: Any, step: int) -> None:
        """Write, mark as whole, link, prune: a kill between any two leaves a checkpoint to resume from.

        Raises:
            CheckpointError: the weights are not finite; what was saved before stays the last.
        """
        refuse_not_finite(trainer.lightning_module, step)
        path = folder(trainer) / f"step={step:06d}.ckpt"
        if trainer.is_global_zero and path.is_dir():
            remove(path)  # shards of an earlier attempt would mix with the new ones
        trainer.strategy.barrier("before checkpoint")
        trainer.save_checkpoint(path, weights_only=False)  # ends with a barrier
        sums = gathered(sums_of(path, trainer.global_rank)) if path.is_dir() else []  # each of what it wrote itself
        if trainer.is_global_zero:
            finish(path, dict(item for part in sums for item in part.items()))
            self._prune(path, step)
        self.last_model_path = self.best_model_path = str(path)

    def _prune(self, path: Path, step: int) -> None:
        if self.keep is None:
            return
        # Later steps belong to an earlier attempt that someone chose to go back from: theirs to delete.
        past = [p for p in complete_checkpoints(path.parent) if step_of(p) <= step]
        for old in past[: -self.keep]:
            if not (self.milestone and step_of(old) % self.milestone == 0):
                remove(old)

    # ModelCheckpoint's other moments: none of them is the end of an optimizer step.

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if any(isinstance(callback, EMA) for callback in trainer.callbacks[trainer.callbacks.index(self) :]):
            raise CheckpointError("SaveCheckpoint must come after EMA in trainer.callbacks")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None: ...

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None: ...

    def on_train_end(self, trainer: Any, pl_module: Any) -> None: ...

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def refuse_not_finite(module: torch.nn.Module, step: int) -> None:
    """No checkpoint of weights that nothing can be learned from; all processes refuse together.

    Raises:
        CheckpointError: naming the first such tensor.
    """
    floats = {name: x for name, x in module.state_dict().items() if x.is_floating_point()}
    state = {name: local(x) for name, x in floats.items() if x.element_size() > 1}  # of 8 bits are frozen ones alone
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in state.values()]).tolist()
    bad = next((name for name, fine in zip(state, finite, strict=True) if not fine), None)
    if found := [name for name in gathered(bad) if name]:
        raise CheckpointError(
            f"the weights are not finite after step {step} ({found[0]}), so they are not saved and earlier checkpoints "
            "are as they were; go on from one of them, with a lower rate"
        )


def folder(trainer: Any) -> Path:
    """Where the run's checkpoints lie."""
    return Path(trainer.default_root_dir) / "checkpoints"
