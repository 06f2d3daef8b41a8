"""The run folder: everything that one training leaves, fixed by its name, resumed or refused, never overwritten.

config.yaml (resolved), run.json (commit, versions and seed of each start), words.txt (of the captions, where the text
encoder learns), checkpoints/, tensorboard/, previews/, evaluations/, losses.jsonl. One training writes in it at a time.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml

from ccl.files import LOCK, MARK, one_writer, reading, sweep, write_whole
from ccl.files.yamltext import read_yaml
from ccl.storage.checkpoint import CheckpointError, last_checkpoint, point_last, sweep_checkpoints, verify
from ccl.storage.moved import first_told

# What may differ when a run goes on. Nothing here changes a loss: what does (data, batch size, workers, devices,
# precision, tasks, rates, EMA) must be as it was, or the rest would not be the same run.
MAY_CHANGE = (
    "name",
    "runs_dir",
    "ckpt_path",
    "checkpoint_every",
    "preview_*",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.log_every_n_steps",
    "trainer.enable_*",
    "trainer.logger*",
    "trainer.profiler*",
    "trainer.default_root_dir",
    "trainer.callbacks.*Preview*",
    "trainer.callbacks.*Evaluate*",
    "trainer.callbacks.*SaveCheckpoint*",
    "trainer.callbacks.*Throughput*",
    "trainer.callbacks.*Monitor*",
    "trainer.callbacks.*LossLog*",
    "trainer.callbacks.*Progress*",
    "data.init_args.prefetch*",
    "model.bins",
)
# Keys of a line of losses.jsonl that holds something else in place of losses: scores, losses of validation.
SCORES, VALIDATION = "evaluation", "validation"
# What a checkpoint's place in the data is known by: with another one it is lost.
PLACE = ("data.", "trainer.devices", "trainer.num_nodes", "trainer.strategy.init_args.tensor_parallel_size")
END = "model.optimizer.decay_steps"
PACKAGES = ("torch", "lightning", "diffusers", "transformers", "numpy", "jsonargparse")


class RunError(ValueError):
    """A run that can be neither started nor resumed; the message is one sentence."""


class RunFolder:
    """The folder of one run.

    Args:
        name: of the run, and of its folder.
        runs_dir: where run folders lie.
    """

    changed: tuple[str, ...] = ()  # facts of this machine that differ from the last start's, each a few words

    def __init__(self, name: str, runs_dir: str | Path = "runs") -> None:
        if not name.strip() or name in (".", "..") or not name.isprintable() or Path(name).name != name:
            raise RunError(f"the run's name is {name!r}; it must be a plain folder name")
        self.name = name
        self.path = Path(runs_dir) / name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        return self.path / "run.json"

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
    def pretrained(self) -> dict[str, str]:
        """Models of the hub that the run began with: OWNER/NAME@COMMIT of each, by what its config calls it."""
        found = [start["pretrained"] for start in starts_of(self.record) if "pretrained" in start]
        return found[-1] if found else {}

    @property
    def losses(self) -> Path:
        return self.path / "losses.jsonl"

    def start(self, ckpt_path: str | None) -> Path | None:
        """The checkpoint that a training begins from; None is step 0.

        "last" is step 0 where the run has not saved one yet, so that one command begins a run and goes on with it.

        Args:
            ckpt_path: None to begin, "last" to go on, or the path of a checkpoint.

        Raises:
            CheckpointError: where the checkpoint is absent or was never finished.
        """
        if ckpt_path is None:
            return None
        if ckpt_path == "last":
            try:
                return last_checkpoint(self.checkpoints)
            except CheckpointError:
                return None
        verify(Path(ckpt_path))
        return Path(ckpt_path)

    def writing(self) -> AbstractContextManager[None]:
        """Keeps other trainings out of the folder; for the first process alone, which is the one that writes.

        Raises:
            FileError: another one is at work there.
        """
        return one_writer(self.path, "wait for it, or choose another --name") if is_first_process() else nullcontext()

    def open(
        self,
        config: dict[str, Any],
        ckpt_path: str | None = None,
        *,
        codec: str | None = None,
        data: Mapping[str, str] = MappingProxyType({}),
        pretrained: Mapping[str, str] = MappingProxyType({}),
    ) -> str | None:
        """Begin a run or go on with it; the checkpoint to start from, or None for step 0.

        The first process alone reads and writes the folder's facts; all find the same checkpoint. Who trains then does
        it within `writing`.

        Args:
            config: resolved, as plain values.
            ckpt_path: as of `start`.
            codec: identity of the codec, which the config does not say: a basis file may change beneath its name.
            data: sum of all clips in each folder that is read, for the same reason.
            pretrained: as of the property of that name, which whoever goes on begins with again.

        Raises:
            RunError: where the folder is taken, or was made by another config or codec, or of other clips.
            CheckpointError: where the checkpoint is absent or was never finished.
            FileError: where another training is at work in the folder, or a file of it is damaged.
        """
        start = self.start(ckpt_path)  # before there is a folder
        if is_first_process():
            with self.writing():
                start = self.start(ckpt_path)
                self._refuse_foreign()
                if ckpt_path is None:
                    self._refuse_taken()
                elif self.config.exists() and self.begun:
                    self._refuse_changed(config, start)
                if start is not None:
                    refuse_other_codec(start, codec)
                    self._refuse_other_data(start, data)
                self._write(config, start, codec=codec, data=dict(data), pretrained=dict(pretrained))
        return None if start is None else str(start)

    def _refuse_taken(self) -> None:
        """Refuse a folder that holds anything, unless its run ended before a first step: nothing is lost there."""
        taken = f"run folder {self.path} is taken: "
        if self._holds(self.checkpoints):
            raise RunError(f"{taken}resume it with --ckpt_path last, or choose another --name")
        if self.begun:
            raise RunError(
                f"{taken}its run was stopped before its first checkpoint; begin it anew with --ckpt_path last, or "
                "choose another --name"
            )

    def _refuse_foreign(self) -> None:
        """Refuse a folder that is no run's; a kill between folder and config leaves nothing but what follows."""
        own = {LOCK, *(path.name for path in (self.record, self.checkpoints, self.tensorboard, self.previews))}
        there = {path.name for path in self.path.iterdir() if not path.name.startswith(MARK)}
        if not self.config.exists() and (foreign := sorted(there - own)):
            raise RunError(f"folder {self.path} is taken: it holds {foreign[0]} and is no run; choose another --name")

    @property
    def begun(self) -> bool:
        """Whether a step was made."""
        losses = self.losses.exists() and self.losses.stat().st_size > 0
        return losses or self._holds(self.checkpoints) or self._holds(self.previews)

    @staticmethod
    def _holds(folder: Path) -> bool:
        return folder.is_dir() and any(not path.name.startswith(MARK) for path in folder.iterdir())

    def _refuse_changed(self, config: dict[str, Any], start: Path | None) -> None:
        saved = read_yaml(self.config)
        if said := first_told(saved):
            on = f"go on from it as another run: --name OTHER --ckpt_path {start}" if start else "choose another --name"
            raise RunError(f"run {self.name} was made by an older version: {said} (in {self.config}); {on}")
        if changed := list(changes(saved, plain(config))):
            shown = "; ".join(f"{key} was {old!r} and is {new!r}" for key, old, new in changed[:5])
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            other = "choose another --name"
            if start is not None and any(key.startswith(PLACE) for key, _, _ in changed):
                other = f"train on from its weights, its data read anew: --name OTHER --model.pretrained {start}"
            elif start is not None:
                other = f"go on from it as another run: --name OTHER --ckpt_path {start}"
            raise RunError(f"run {self.name} was made by another config: {shown}{more}; set that back, or {other}")

    def _refuse_other_data(self, start: Path, data: Mapping[str, str]) -> None:
        for folder, found in data.items():
            known = [sums[folder] for one in starts_of(self.record) if folder in (sums := one.get("data", {}))]
            if known and known[-1] != found:
                raise RunError(
                    f"the clips in {folder} are not those that run {self.name} was trained on (their sum was "
                    f"{known[-1][:12]}, as {self.record} says, and is {found[:12]}); bring those back, or train on "
                    f"from its weights, on these: --name OTHER --model.pretrained {start}"
                )

    def _write(self, config: dict[str, Any], start: Path | None, **told: Any) -> None:
        """The run's facts, and a folder as it was when the checkpoint was written."""
        for folder in (self.checkpoints, self.tensorboard, self.previews):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, *self.previews.iterdir()):
            sweep(folder)
        sweep_checkpoints(self.checkpoints)
        if start is not None and start.resolve().parent == self.checkpoints.resolve():
            point_last(start.resolve())  # who went back to it and is killed goes on from there
        starts = starts_of(self.record)
        facts = {"threads": torch.get_num_threads(), "versions": versions()}
        self.changed = tuple(differing(starts[-1], facts)) if starts and start is not None else ()
        now = {
            "from": start and start.name,
            "seed": config.get("seed_everything"),
            "max_steps": leaf(config, "trainer.max_steps"),
            **{key: value for key, value in told.items() if key != "pretrained" or value},
        }
        write_whole(self.config, yaml.safe_dump(plain(config), sort_keys=False))
        whole = {"name": self.name, "starts": [*starts, now | commit() | facts]}
        write_whole(self.record, json.dumps(whole, indent=2) + "\n")


def starts_of(record: Path) -> list[dict[str, Any]]:
    """What a run.json says of each start of its run; nothing where there is none.

    Raises:
        FileError: it is none.
    """
    if not record.is_file():
        return []
    with reading(record, "the facts of a run"):
        starts = json.loads(record.read_text())["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("its starts are no list of objects")
        if not all(isinstance(start.get("codec"), str | None) for start in starts):
            raise ValueError("the codec of a start is no text")
        for key, what in (("data", "sums by folder"), ("pretrained", "names by name")):
            told = [start.get(key, {}) for start in starts]
            if not all(isinstance(one, dict) and all(isinstance(text, str) for text in one.values()) for one in told):
                raise ValueError(f"the {key} of a start are no {what}")
    return starts


def differing(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What changes the last bits of a loss and is not as it was."""
    if before.get("threads") not in (None, now["threads"]):
        yield f"{now['threads']} threads, not {before['threads']}"
    found = before.get("versions")
    for package in ("torch", "lightning"):
        was = found.get(package) if isinstance(found, dict) else None
        if was not in (None, now["versions"].get(package)):
            yield f"{package} {now['versions'].get(package)}, not {was}"


def refuse_other_codec(checkpoint: Path, codec: str | None) -> None:
    """Refuse a checkpoint whose run was trained on latents of another codec, as far as its run.json says."""
    record = checkpoint.absolute().parent.parent / "run.json"
    starts = starts_of(record)
    known = [start["codec"] for start in starts if start.get("codec")]
    if codec and known and known[-1] != codec:
        raise RunError(
            f"{checkpoint} was trained with the codec {known[-1]}, as {record} says, and this config gives {codec}, "
            "whose latents mean something else; bring that codec's basis back, or train anew under another --name"
        )


def holds_losses(line: Mapping[str, Any]) -> bool:
    """Whether a line of losses.jsonl holds a batch's losses, and not what was found beside them."""
    return SCORES not in line and VALIDATION not in line


def is_first_process() -> bool:
    """Whether this is global rank 0, by what torchrun, Slurm or Lightning's launcher set before training starts."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def changes(saved: Any, config: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two configs differ and may not: (dotted key, saved, now)."""
    old, new = with_end(dict(leaves(saved))), with_end(dict(leaves(config)))
    for key in [*old, *(key for key in new if key not in old)]:
        before, now = old.get(key), new.get(key)
        if before != now and not any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE):
            yield key, before, now


def with_end(flat: dict[str, Any]) -> dict[str, Any]:
    """Leaves of a config in which a cosine that ends with the run says where that is."""
    if flat.get("model.optimizer.schedule") == "cosine" and flat.get(END) is None:
        return flat | {END: flat.get("trainer.max_steps")}
    return flat


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
    """The commit that the code is at, and whether what is in the package was changed since, in a file of it or by a new
    one. Nothing else in a checkout makes another result: of configs and versions a run keeps its own. None outside one.
    """
    package = Path(__file__).parents[1]

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", package, *args], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    tracked = git("ls-files", "--error-unmatch", __file__)  # not an unrelated checkout around a .venv
    sha = git("rev-parse", "HEAD") if tracked else None
    changed = git("status", "--porcelain", "--untracked-files=normal", "--", ".") if sha else None
    return {"commit": sha, "dirty": bool(changed) if sha else None}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {}
    for package in ("ccl", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
