"""Checkpoints that are whole or absent, and found again.

In `checkpoints/` of a run folder lie `step=000500.ckpt` (a file, or with FSDP2 a folder of shards that counts once its
marker is there) and `last.ckpt`, a link to the one that a run goes on from. Each carries its sums (sums.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ccl.files import FileError, reading, replacing_path, sweep, sync, temporary, write_whole
from ccl.files.sums import check_seal, check_sums, seal, write_sums

LAST = "last.ckpt"
COMPLETE = "complete"
# What a training needs of a checkpoint beside the weights.
OF_TRAINING = ("batches", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states")
KINDS = {"loops": dict, "callbacks": dict}  # which Lightning takes apart before anybody looks at them


class CheckpointError(FileError):
    """A checkpoint that cannot be used; the message is one sentence that names it."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames, so that a kill leaves the old file or the new one; never unpickles.

    Lightning's own writes to TMPDIR and moves, which across file systems can leave half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it.

        Raises:
            CheckpointError: where it cannot be written; torch tells a full disk as a failure of its zip writer.
        """
        try:
            with replacing_path(path) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                seal(partial)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {path} cannot be written ({error}); is the disk full? earlier ones are as they were"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, tensors and plain values only, whatever `weights_only` says.

        Raises:
            CheckpointError: where the file is absent, damaged, holds more than that, or too little to go on from.
        """
        checkpoint = load_checkpoint(Path(path), map_location)
        if lacking := [key for key in OF_TRAINING if key not in checkpoint]:
            raise CheckpointError(f"{path} is no checkpoint that a training can go on from: it holds no {lacking[0]}")
        for key, kind in KINDS.items():
            if not isinstance(state := checkpoint.get(key, {}), kind):
                raise CheckpointError(
                    f"{path} is damaged: its {key} are a {type(state).__name__}; take another checkpoint"
                )
        return checkpoint


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint file, tensors and plain values only.

    Raises:
        CheckpointError: one sentence, where it is absent, damaged, or no checkpoint.
    """
    verify(path)
    try:
        with reading(path, "a checkpoint"):
            check_seal(path)
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
            if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
                raise ValueError("it holds no state_dict")
            for name, tensor in checkpoint["state_dict"].items():
                if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                    raise ValueError(f"its state_dict holds a {type(tensor).__name__} as {name!r}")
    except FileError as error:
        raise CheckpointError(str(error)) from error
    return checkpoint


def verify(path: Path) -> None:
    """Refuse a checkpoint that is not there, or not whole.

    Raises:
        CheckpointError: one sentence that names it.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.is_dir() and path.suffix != ".ckpt":
        raise CheckpointError(f"{path} is a folder, not a checkpoint; those of a run lie in its folder checkpoints")
    if not is_complete(path):
        raise CheckpointError(
            f"checkpoint {path} was never finished: it lacks its {COMPLETE!r} marker; take an earlier one"
        )


def is_complete(path: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return path.is_file() or (path / COMPLETE).is_file()


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.stem.removeprefix("step="))


def complete_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder, by step."""
    return sorted(filter(is_complete, folder.glob("step=*.ckpt")), key=step_of)


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint to go on from: what `last.ckpt` links to, or else that of the highest step.

    Raises:
        CheckpointError: where there is none.
    """
    link = folder / LAST
    if link.exists() and is_complete(link):
        return link.resolve()
    whole = complete_checkpoints(folder)
    if not whole:
        raise CheckpointError(
            f"there is no checkpoint in {folder}: its run has not saved one yet; SaveCheckpoint, of trainer.callbacks, "
            "saves one every `every` steps, at the last step and where the run is stopped by Ctrl-C"
        )
    return whole[-1]


def finish(path: Path, sums: Mapping[str, str] | None = None) -> None:
    """Mark a sharded checkpoint as whole and link `last.ckpt` to it; for one process, after all have written.

    Args:
        path: of the checkpoint.
        sums: by name, of a sharded one's files.
    """
    if path.is_dir():
        write_whole(path / COMPLETE, write_sums(sums or {}))
    point_last(path)


def point_last(path: Path) -> None:
    """Make `last.ckpt` a link to a checkpoint beside it."""
    link = path.with_name(LAST)
    partial = temporary(link)
    partial.symlink_to(path.name)
    partial.replace(link)
    sync(link.parent)


def check_parts(path: Path, *, part: int = 0, parts: int = 1) -> None:
    """Compare a sharded checkpoint's files, or a part of them, with their sums; FileError where one differs."""
    check_sums(path, path / COMPLETE, part=part, parts=parts)


def remove(path: Path) -> None:
    """Delete a checkpoint; a sharded one stops counting before its parts go."""
    if path.is_dir():
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_checkpoints(folder: Path) -> None:
    """Remove what a kill left: half-written files, and sharded folders without their marker."""
    sweep(folder)
    for path in folder.glob("step=*.ckpt"):
        if not is_complete(path):
            remove(path)
