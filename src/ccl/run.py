"""The run folder: everything that one training leaves, fixed by its name, resumed or refused, never overwritten.

config.yaml (resolved), run.json (commit, versions and seed of each start), checkpoints/, tensorboard/, previews/,
losses.jsonl.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ccl.checkpoint import last_checkpoint, sweep_checkpoints, verify
from ccl.files import sweep, write_whole

# What may differ when a run goes on. Nothing here changes a loss: what does (data, batch size, workers, devices,
# precision, tasks, rates, EMA) must be as it was, or the rest would not be the same run.
MAY_CHANGE = (
    "name",
    "runs_dir",
    "ckpt_path",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.log_every_n_steps",
    "trainer.enable_*",
    "trainer.logger*",
    "trainer.profiler*",
    "trainer.default_root_dir",
    "trainer.callbacks.*Preview*",
    "trainer.callbacks.*SaveCheckpoint*",
    "trainer.callbacks.*Throughput*",
    "trainer.callbacks.*Monitor*",
    "trainer.callbacks.*LossLog*",
    "trainer.callbacks.*Progress*",
    "data.init_args.prefetch*",
)
PACKAGES = ("torch", "lightning", "diffusers", "transformers", "numpy", "jsonargparse")


class RunError(ValueError):
    """A run that can be neither started nor resumed; the message is one sentence."""


class RunFolder:
    """The folder of one run.

    Args:
        name: of the run, and of its folder.
        runs_dir: where run folders lie.
    """

    def __init__(self, name: str, runs_dir: str | Path = "runs") -> None:
        if name in ("", ".", "..") or Path(name).name != name:
            raise RunError(f"the run's name is {name!r}; it must be a plain folder name")
        self.name = name
        self.path = Path(runs_dir) / name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    @property
    def losses(self) -> Path:
        return self.path / "losses.jsonl"

    def open(self, config: dict[str, Any], ckpt_path: str | None = None, *, codec: str | None = None) -> str | None:
        """Begin a run or go on with it; the checkpoint to start from, or None for a new run.

        The first process alone reads and writes the folder's facts; all find the same checkpoint.

        Args:
            config: resolved, as plain values.
            ckpt_path: None to begin, "last" to go on, or the path of a checkpoint.
            codec: identity of the codec, which the config does not say: a basis file may change beneath its name.

        Raises:
            RunError: where the folder is taken, or was made by another config or codec.
            CheckpointError: where the checkpoint is absent or was never finished.
        """
        first = is_first_process()
        if ckpt_path is None:
            if first:
                self._refuse_taken()
                self._start(config, None, codec)
            return None
        path = last_checkpoint(self.checkpoints) if ckpt_path == "last" else Path(ckpt_path)
        verify(path)
        if first:
            if self.config.exists():
                self._refuse_changed(config)
            refuse_other_codec(path, codec)
            self._start(config, path.name, codec)
        return str(path)

    def _refuse_taken(self) -> None:
        """Refuse a folder that holds anything, unless its run ended before a first step: nothing is lost there."""
        if not self.path.exists() or not any(self.path.iterdir()) or (self.config.exists() and not self.begun):
            return
        resume = (
            "resume it with --ckpt_path last" if self._holds(self.checkpoints) else "it has no checkpoint to resume"
        )
        raise RunError(f"run folder {self.path} is taken: {resume}, or choose another --name")

    @property
    def begun(self) -> bool:
        """Whether a step was made."""
        losses = self.losses.exists() and self.losses.stat().st_size > 0
        return losses or self._holds(self.checkpoints) or self._holds(self.previews)

    @staticmethod
    def _holds(folder: Path) -> bool:
        return folder.exists() and any(folder.iterdir())

    def _refuse_changed(self, config: dict[str, Any]) -> None:
        saved = yaml.safe_load(self.config.read_text())
        if changed := list(changes(saved, plain(config))):
            shown = "; ".join(f"{key} was {old!r} and is {new!r}" for key, old, new in changed[:5])
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise RunError(f"run {self.name} was made by another config: {shown}{more}; choose another --name")

    def _start(self, config: dict[str, Any], checkpoint: str | None, codec: str | None) -> None:
        for folder in (self.checkpoints, self.tensorboard, self.previews):
            folder.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        sweep_checkpoints(self.checkpoints)
        record = self.path / "run.json"
        starts = json.loads(record.read_text())["starts"] if record.exists() else []
        start = {
            "from": checkpoint,
            "seed": config.get("seed_everything"),
            "max_steps": leaf(config, "trainer.max_steps"),
            "codec": codec,
        }
        starts.append(start | commit() | {"versions": versions()})
        write_whole(record, json.dumps({"name": self.name, "starts": starts}, indent=2) + "\n")
        write_whole(self.config, yaml.safe_dump(plain(config), sort_keys=False))


def refuse_other_codec(checkpoint: Path, codec: str | None) -> None:
    """Refuse a checkpoint whose run was trained on latents of another codec, as far as its run.json says."""
    record = checkpoint.absolute().parent.parent / "run.json"
    starts = json.loads(record.read_text())["starts"] if record.is_file() else []
    known = [start["codec"] for start in starts if start.get("codec")]
    if codec and known and known[-1] != codec:
        raise RunError(
            f"{checkpoint} was trained with the codec {known[-1]}, and this config gives {codec}, whose latents mean "
            "something else; bring that codec's basis back, or train anew under another --name"
        )


def is_first_process() -> bool:
    """Whether this is global rank 0, by what torchrun, Slurm or Lightning's launcher set before training starts."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def changes(saved: Any, config: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two configs differ and may not: (dotted key, saved, now)."""
    old, new = dict(leaves(saved)), dict(leaves(config))
    # A cosine that ends with the run bends with it.
    fixed = {"trainer.max_steps"} if ends_with_run(new) else set()
    for key in [*old, *(key for key in new if key not in old)]:
        before, now = old.get(key), new.get(key)
        if before != now and (key in fixed or not any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)):
            yield key, before, now


def ends_with_run(flat: dict[str, Any]) -> bool:
    """Whether the learning rates depend on trainer.max_steps."""
    cosine = flat.get("model.optimizer.schedule") == "cosine"
    return cosine and flat.get("model.optimizer.decay_steps") is None


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values. Callbacks go by their class names, so that one more does not move the others."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, f"{path}.{key}".strip("."))
    elif isinstance(config, list) and config and all(isinstance(x, dict) and "class_path" in x for x in config):
        for item in config:
            yield from leaves(item, f"{path}.{item['class_path'].rpartition('.')[2]}")
    else:
        yield path, config


def leaf(config: Any, key: str) -> Any:
    """The value at a dotted key, or None."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def plain(config: Any) -> Any:
    """Only what YAML and JSON know, so that a config compares equal to itself read back."""
    return json.loads(json.dumps(config, default=str))


def commit() -> dict[str, Any]:
    """The commit that the code is at and whether it was changed since; None outside a checkout."""

    def git(*args: str) -> str | None:
        try:
            here = Path(__file__).parent
            done = subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    tracked = git("ls-files", "--error-unmatch", Path(__file__).name)  # not an unrelated checkout around a .venv
    sha = git("rev-parse", "HEAD") if tracked else None
    return {"commit": sha, "dirty": bool(git("status", "--porcelain", "--untracked-files=no")) if sha else None}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {}
    for package in ("ccl", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
