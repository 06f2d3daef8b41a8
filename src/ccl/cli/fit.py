"""`ccl fit`: LightningCLI over JointDiffusion, a data module and a Trainer, from stacked YAML files.

Top-level keys: name, runs_dir, seed_everything, grid, codec, sampling, model, data, trainer, ckpt_path, and those of
CALLBACKS. The grid and the codec are written once and handed to both the model and the data. What a run leaves lies in
runs_dir/name.
"""

from __future__ import annotations

import copy
import inspect
import logging
import pkgutil
import shlex
import sys
import warnings
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.distributed.checkpoint.api import CheckpointException

from ccl import arguments
from ccl.callbacks import Board, Parameters, StepProgress, StopOnSignal, Words
from ccl.callbacks.board import writer_told
from ccl.cli.errors import (
    UsageError,
    explain,
    first_complaint,
    innermost_options,
    locate,
    no_keys,
    of_older_version,
    read_yaml,
)
from ccl.cli.front import config_files
from ccl.cli.loggers import LoggedTrainer, loggers
from ccl.cli.own import reachable
from ccl.cli.parser import folder_to_write
from ccl.cli.trainer import check as check_trainer
from ccl.cli.trainer import context_of
from ccl.codecs.base import AudioCodec, Codec, VideoCodec
from ccl.data.datamodule import check_numbers
from ccl.data.index import settings_of
from ccl.grid import Grid
from ccl.guidance import Guidance
from ccl.interaction import Interaction
from ccl.sampling import Sampling
from ccl.storage.checkpoint import AtomicCheckpointIO, CheckpointError
from ccl.storage.run import RunFolder
from ccl.text.base import TextEncoder
from ccl.training.module import JointDiffusion
from ccl.training.optimizer import OptimizerConfig
from ccl.training.start import fetched
from ccl.weights.find import missing

# Key at the top -> the callback and its argument that it stands for: there is no other way into one item of a list.
CALLBACKS = {
    "checkpoint_every": ("SaveCheckpoint", "every"),
    "preview_every": ("Preview", "every"),
    "preview_prompts": ("Preview", "prompts"),
    "task_per": ("TaskRouter", "per"),
}
GROUPS = ("trainer", "data", "model", "grid", "codec", "sampling")  # of keys
# Classes of parts -> the key that holds one.
HOLDERS: dict[type, str] = {
    Guidance: "sampling.guidance",
    Interaction: "model.net.init_args.interaction",
    VideoCodec: "codec.video",
    AudioCodec: "codec.audio",
    TextEncoder: "model.text",
    LightningDataModule: "data",
}


class FitParser(LightningArgumentParser):
    """Errors are one sentence that names the key, the file and the nearest right key."""

    argv: tuple[str, ...] = ()
    start: Path | None = None  # jsonargparse works in a config's folder while it reads it

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message, ex = first_complaint(message, ex)
        options = innermost_options(ex) or [action.dest for action in self._actions]
        with chdir(self.start or Path.cwd()):
            files = config_files(self.argv)
            said = of_older_version(files, self.argv) or no_keys(GROUPS, files, self.argv) or a_part(files)
            raise UsageError(said or explain(message, options, files, self.argv)) from ex


def a_part(files: list[Path]) -> str:
    """What is said of the first file that holds one part of a config in place of keys; "" where none does."""
    for file in files:
        tree = read_yaml(file)
        if tree and all(isinstance(task, dict) and "terms" in task for task in tree.values()):
            what, key = "tasks", "model.tasks"
        elif isinstance(name := tree.get("class_path"), str):
            try:
                kind = pkgutil.resolve_name(name)
            except (ImportError, AttributeError, ValueError):
                kind = None
            of = inspect.isclass(kind) and next((key for base, key in HOLDERS.items() if issubclass(kind, base)), "")
            what, key = f"a {name}", of or "KEY"
        else:
            continue
        return f"{file} is a part, {what}, and no config with keys of its own: name it where it belongs, --{key} {file}"
    return ""


class FitCLI(LightningCLI):
    """The parser and what it builds.

    Args:
        argv: the command line after `ccl fit`.
        build: build the classes; otherwise only the resolved config is wanted.
    """

    def __init__(self, argv: list[str], *, build: bool = True) -> None:
        self.build, self.argv = build, argv
        super().__init__(
            JointDiffusion,
            LightningDataModule,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            trainer_class=LoggedTrainer,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=FitParser,
            parser_kwargs={"prog": "ccl fit", "description": __doc__.split("\n\n")[0], "allow_abbrev": False},
            args=argv,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str, default="joint", help="names the run's folder, which is never overwritten"
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="where run folders lie")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="resume from 'last' or from a checkpoint"
        )
        parser.add_argument(
            "--checkpoint_every", type=int | None, default=None, help="steps; null is as trainer.callbacks say"
        )
        parser.add_argument(
            "--preview_every", type=int | None, default=None, help="steps; null is as trainer.callbacks say"
        )
        parser.add_argument(
            "--preview_prompts",
            type=list[str] | str | None,
            default=None,
            help="what previews show; null is as trainer.callbacks say, and where they do not, captions of the data",
        )
        parser.add_argument(
            "--task_per",
            type=Literal["batch", "sample"] | None,
            default=None,
            help="whether a task is drawn for each step or for each of its clips; null is as trainer.callbacks say",
        )
        parser.add_class_arguments(Grid, "grid")
        parser.add_class_arguments(Codec, "codec", sub_configs=True)
        # Not for training: what a model that is exported from the run is sampled with.
        parser.add_class_arguments(Sampling, "sampling", sub_configs=True)
        # A dataclass links into a group of arguments as an instance, and into a class as its arguments.
        parser.link_arguments("grid", "model.grid", apply_on="instantiate")
        parser.link_arguments("grid", "data.init_args.grid")
        parser.link_arguments("codec", "model.codec", apply_on="instantiate")
        parser.link_arguments("codec", "data.init_args.codec", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        assert isinstance(parser, FitParser)
        parser.argv, parser.start = tuple(args), Path.cwd()
        self.config = parser.parse_args(args)
        self.check()
        self.hand_to_callbacks()

    def check(self) -> None:
        """UsageError, naming the key, where a value at hand could not be trained with, before anything is built."""
        config, data = self.config, self.config["data"]
        if said := no_keys(GROUPS, config_files(self.argv), self.argv):
            raise UsageError(said)
        check_trainer(config["trainer"].as_dict())
        try:
            if config["seed_everything"] is not None and not isinstance(config["seed_everything"], bool):
                arguments.number("seed_everything", config["seed_everything"], 0, 2**32 - 1, whole=True)
            for key in ("checkpoint_every", "preview_every"):
                if config[key] is not None:
                    arguments.number(key, config[key], 1, arguments.MOST, whole=True)
            if data["class_path"].startswith("ccl."):  # of other classes the same names may mean something else
                check_numbers(data["init_args"].as_dict(), "data.init_args.")
            Grid(**config["grid"].as_dict())
            if config["model"]["optimizer"] is not None:
                OptimizerConfig(**config["model"]["optimizer"].as_dict())
            run = RunFolder(config["name"], config["runs_dir"])
        except ValueError as error:
            raise UsageError(str(error)) from error
        for key, folder in (("runs_dir", config["runs_dir"]), ("name", str(run.path))):
            try:
                folder_to_write(folder)
            except ArgumentTypeError as error:
                raise UsageError(f"{key}{'' if str(error).startswith('is ') else ':'} {error}") from error

    def hand_to_callbacks(self) -> None:
        """Values at the top into the list of callbacks."""
        callbacks = self.config["trainer"]["callbacks"] or []
        for key, (name, argument) in CALLBACKS.items():
            if (value := self.config[key]) is None:
                continue
            found = [callback for callback in callbacks if callback["class_path"].rpartition(".")[2] == name]
            for callback in found:
                one = argument == "prompts" and isinstance(value, str)
                callback["init_args"][argument] = [value] if one else value
            # An overlay may have taken the callback out; who asks for it in so many words is told.
            if not found and any(word.partition("=")[0] == f"--{key}" for word in self.argv):
                raise UsageError(f"--{key} asks for a {name}, and trainer.callbacks hold none")

    def instantiate_classes(self) -> None:
        if self.build:
            self.fetch()
            if lacking := missing(used(self.resolved()), self.pretrained):  # told before anything large is built
                raise UsageError(lacking)
            self.check_shards()
            self.config_dump = self.resolved()  # else Lightning writes the config out once more, for hyperparameters
            super().instantiate_classes()
            try:
                self.model.check_sizes()
            except ValueError as error:
                raise UsageError(f"model.net: {error}") from error

    def fetch(self) -> None:
        """Models of the hub that training begins with, of the commits that a run which goes on began with.

        Raises:
            UsageError: naming the key, where one cannot be fetched.
        """
        run, given = RunFolder(self.config["name"], self.config["runs_dir"]), self.plain["model"]["pretrained"]
        try:
            self.pretrained = fetched(given, run.pretrained if self.config["ckpt_path"] is not None else {})
        except ValueError as error:
            raise UsageError(str(error)) from error
        if isinstance(given, dict):
            meant = {part: self.pretrained.get(source, source) for part, source in given.items()}
        else:
            meant = self.pretrained.get(given, given)
        self.config["model"]["pretrained"] = meant

    def check_shards(self) -> None:
        """UsageError, naming the key, where the data's folders hold no shards."""
        data = self.config["data"]
        given = data.get("init_args", {}) if data["class_path"].startswith("ccl.") else {}
        for name in ("shards", "val_shards"):
            if (folder := given.get(name)) is None:
                continue
            try:
                settings_of(folder)
            except ValueError as error:
                key, place = locate(f"data.init_args.{name}", config_files(self.argv), self.argv)
                hint = "; null, not None, stands for nothing in YAML" if folder == "None" else ""
                raise UsageError(f"{key}{place}: {error}{hint}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with its logs and checkpoints in the run folder."""
        self.run_folder = RunFolder(self.config["name"], self.config["runs_dir"])
        kwargs["default_root_dir"] = str(self.run_folder.path)
        kwargs["logger"] = loggers(self.config_init["trainer"]["logger"], self.run_folder, self.config_dump)
        callbacks = self.config_init["trainer"]["callbacks"] or []
        kept = Counter(callback.state_key for callback in callbacks if stateful(callback))
        if twice := [key for key, count in kept.items() if count > 1]:
            raise UsageError(f"trainer.callbacks hold {twice[0]} more than once, and one checkpoint keeps one's state")
        self.stop = StopOnSignal()
        own = any(isinstance(callback, ProgressBar) for callback in callbacks)
        shown = self.config["trainer"]["enable_progress_bar"] in (None, True) and not own
        own = any(isinstance(callback, ModelSummary) for callback in callbacks)
        counted = self.config["trainer"]["enable_model_summary"] in (None, True) and not own
        kwargs["callbacks"] = [
            *(*callbacks, Board(), Words(self.run_folder.path), self.stop),
            *([Parameters()] if counted else []),
            *([StepProgress()] if shown else []),
        ]
        given = self.config_init["trainer"]["plugins"]
        plugins = given if isinstance(given, list) else [] if given is None else [given]
        try:
            return super().instantiate_trainer(plugins=[*plugins, AtomicCheckpointIO()], **kwargs)
        except (TypeError, ValueError, MisconfigurationException) as error:  # Lightning's, of what it was given
            raise UsageError(f"trainer: {error}") from error

    def resolved(self) -> dict[str, Any]:
        """The whole config as plain values: what the files and flags add up to."""
        return copy.deepcopy(self.plain)

    @cached_property
    def plain(self) -> dict[str, Any]:
        # Parsing has validated it: to do so once more takes a quarter of the time that resolving a config takes.
        text = self.parser.dump(self.config, skip_none=False, skip_validation=True)
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # an eighth of safe_load's time

    def fit(self) -> int:
        """Open the run folder and train; the exit status."""
        known = self.model.codec.known  # not where its weights are not here: then the shards' word counts
        codec = getattr(self.datamodule, "stored_codec", None) if None in known else "+".join(map(str, known))
        with self.run_folder.writing(), explained(self.run_folder.path), writer_told(self.run_folder.tensorboard):
            data = getattr(self.datamodule, "sums", {})
            told: dict[str, Any] = {"codec": codec, "data": data, "pretrained": self.pretrained}
            start = self.run_folder.open(self.resolved(), self.config["ckpt_path"], **told)
            if self.trainer.is_global_zero:
                sys.stdout.write("".join(f"{line}\n" for line in self.header(start)))
                sys.stdout.flush()
            self.trainer.ckpt_path = start  # not an argument of fit: the module looks at it before it is read
            try:
                self.trainer.fit(self.model, datamodule=self.datamodule, weights_only=True)
            except SystemExit:
                if self.trainer.interrupted:  # Lightning's way to end on Ctrl-C, with the status of a failure
                    raise KeyboardInterrupt from None
                raise
        # The first process answers for all: another one's status would make its launcher end the first.
        return self.stopped() if self.trainer.is_global_zero else 0

    def stopped(self) -> int:
        """The exit status, with a sentence where there was no step to make, or a signal came before the last one."""
        step = self.trainer.global_step
        if not self.stop.began and 0 < self.trainer.max_steps <= step:
            sys.stdout.write(f"{self.finished(step)}\n")
        if not self.stop.received or step == self.trainer.max_steps:
            return 0
        saved = (self.run_folder.checkpoints / f"step={step:06d}.ckpt").exists()
        what = "which is saved" if saved else "which is not saved, as trainer.callbacks hold no SaveCheckpoint"
        command = shlex.join(["ccl", "fit", *without(self.argv, "--ckpt_path"), "--ckpt_path", "last"])
        sys.stderr.write(f"ccl: stopped after step {step}, {what}; it goes on with: {command}\n")
        return 128 + self.stop.received

    def finished(self, step: int) -> str:
        """What is said of a run that has nothing left to train, and how it is trained longer."""
        optimizer = self.config["model"]["optimizer"]
        # A cosine that ends with the run would be another one in a longer run.
        ends = optimizer is not None and optimizer["schedule"] == "cosine" and optimizer["decay_steps"] is None
        how = f" --model.optimizer.decay_steps {self.trainer.max_steps}" if ends else ""
        at = ", at the rate that its cosine has ended with" if ends else ""
        return (
            f"run {self.run_folder.name} has finished its {self.trainer.max_steps} steps (it is at step {step}), and "
            f"nothing is left to train; --trainer.max_steps M{how} goes on{at}"
        )

    def header(self, start: str | None) -> Iterator[str]:
        """What a training is, and how it is not what might be thought."""
        yield self.summary()
        if start is None and self.config["ckpt_path"] is not None:
            yield f"{self.run_folder.path} has no checkpoint yet: it begins at step 0"
        if self.run_folder.changed:
            yield (
                f"since the last start there are {' and '.join(self.run_folder.changed)}: the last bits of the losses "
                "may differ"
            )

    def summary(self) -> str:
        """What is easily got wrong, in a line: the global batch above all."""
        batch = self.config["data"].get("init_args.batch_size") or 0
        context = context_of(self.plain["trainer"]["strategy"], self.trainer.num_devices)
        ranks, accumulate = self.trainer.world_size // context, self.trainer.accumulate_grad_batches
        readers = "processes" if context == 1 else f"groups of {context} processes that share their clips"
        optimizer = self.config["model"]["optimizer"]
        rates = "" if optimizer is None else f", lr {optimizer['lr']:g}, cross-modal {optimizer['lr_cross']:g}"
        return (
            f"{self.run_folder.path}: {self.trainer.max_steps} steps, global batch {batch * ranks * accumulate} "
            f"({batch} x {ranks} {readers} x {accumulate} accumulated){rates}"
        )


def stateful(callback: Callback) -> bool:
    """Whether checkpoints keep something of a callback."""
    return is_overridden("state_dict", callback, Callback)


def used(config: dict[str, Any]) -> dict[str, Any]:
    """A config without those parts whose weights a training never reads, since its shards hold what they would say."""
    if any("Preview" in callback["class_path"] for callback in config["trainer"]["callbacks"] or []):
        return config  # which makes clips
    net = config["model"]["net"].get("init_args") or {}
    kept = {name: part for name, part in config["codec"].items() if net.get(name, {}) is not None}
    config = {**config, "codec": kept}
    given = config["data"].get("init_args") or {}
    try:
        found = [settings_of(given[name]) for name in ("shards", "val_shards") if given.get(name) is not None]
    except ValueError:  # told in its place
        return config
    if found and all("text" in settings for settings in found):
        config["model"] = {**config["model"], "text": None}
    if found and all(settings["kind"] == "latents" for settings in found):
        config["codec"] = None
    return config


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A full disk does not say where, torch's error about a damaged sharded checkpoint is no Exception, where a loader
    cannot start, Lightning's error of tidying up after it hides why, and wandb's do not say how to do without a key."""
    try:
        yield
    except RuntimeError as error:
        if "combined_loader" in str(error) and error.__context__ is not None:
            raise error.__context__ from None
        raise
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(folder)
        raise
    except CheckpointException as error:
        raise CheckpointError(
            f"the checkpoint that {folder} goes on from cannot be read ({' '.join(str(error).split())[:200]})"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        raise UsageError(
            f"trainer.logger: wandb says: {str(error).strip(' .')}; WANDB_MODE=offline keeps everything on this machine"
        ) from error


def without(argv: Sequence[str], flag: str) -> list[str]:
    """A command line without an option and its value."""
    kept, words = [], iter(argv)
    for word in words:
        if word == flag:
            next(words, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def resolve(argv: list[str]) -> dict[str, Any]:
    """The resolved config of a command line, without building anything."""
    return FitCLI(argv, build=False).resolved()


# Said by libraries, and true, but of no use: the loader's length is endless on purpose, validation is optional.
USELESS_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)`",
    r"Your `IterableDataset` has `__len__` defined",
    r"You passed in a `val_dataloader` but have no `validation_step`",
    r"The '\w+' does not have many workers",
    r"Precision [\w-]+ is not supported by the model summary",  # whose sizes are not shown
    r"This DataLoader will create \d+ worker processes",  # which configs/data/shards.yaml gives the reason of
)


def quiet(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's says something about this run."""
    return not any(
        text in record.getMessage() for text in ("💡", "PU available: ", "Seed set to", "model summary callbacks")
    )


def main(argv: list[str]) -> int:
    """Train; the exit status."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(quiet)
    for message in USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    with reachable(config_files(argv), argv):
        return FitCLI(argv).fit()
