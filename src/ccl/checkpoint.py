"""Checkpoints that are whole or absent, and found again.

In `checkpoints/` of a run folder lie `step=000500.ckpt` (a file, or with FSDP2 a folder of shards that counts once its
marker is there) and `last.ckpt`, a link to the one written last.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ccl.files import MARK, replacing, sweep, write_whole

LAST = "last.ckpt"
COMPLETE = "complete"


class CheckpointError(ValueError):
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
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {path} cannot be written ({error}); is the disk full? earlier ones are as they were"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, tensors and plain values only, whatever `weights_only` says.

        Raises:
            CheckpointError: where the file is absent, damaged, or holds more than that.
        """
        return load_checkpoint(Path(path), map_location)


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint file, tensors and plain values only.

    Raises:
        CheckpointError: one sentence, where it is absent, damaged, or no checkpoint.
    """
    verify(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged or no checkpoint; resume from another one beside it"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of a run: it holds no state_dict")
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
    """The checkpoint written last: what `last.ckpt` links to, or else that of the highest step.

    Raises:
        CheckpointError: where there is none, which would otherwise mean starting from 0 without a word.
    """
    link = folder / LAST
    if link.exists() and is_complete(link):
        return link.resolve()
    whole = complete_checkpoints(folder)
    if not whole:
        raise CheckpointError(
            f"there is no checkpoint in {folder} to resume from; leave --ckpt_path out, with a name that is not taken"
        )
    return whole[-1]


def finish(path: Path) -> None:
    """Mark a sharded checkpoint as whole and link `last.ckpt` to it; for one process, after all have written."""
    if path.is_dir():
        write_whole(path / COMPLETE, "")
    link = path.with_name(LAST)
    temporary = path.with_name(f"{MARK}{os.getpid()}-{LAST}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    temporary.replace(link)


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
