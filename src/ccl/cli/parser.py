"""The light parser of the verbs that are not configured by YAML: one-sentence errors, help with examples.

The types of what it takes stand here too, so that no option takes nonsense. jsonargparse's own, PositiveFloat and the
like, let infinity through, and importing them takes longer than most refusals.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ccl.cli.errors import UsageError, flags_of
from ccl.files.plaintext import unreadable
from ccl.spelling import did_you_mean
from ccl.weights.find import on_hub


class Parser(argparse.ArgumentParser):
    """argparse, but an error is a UsageError of one sentence, and flags are never guessed from a prefix.

    Args:
        verb: as typed after `ccl`.
        what: one line.
        examples: whole command lines, shown under the options.
    """

    def __init__(self, verb: str, what: str, *examples: str) -> None:
        super().__init__(
            prog=f"ccl {verb}",
            description=what,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> Any:
        """Parse; a flag that does not exist is told before anything that is missing because of it."""
        for arg in argv:
            flag = arg.split("=")[0]
            if flag == "--":
                break
            if flag.startswith("--") and flag not in self._option_string_actions:
                self.error(f"there is no option '{flag}'{did_you_mean(flag, self._option_string_actions)}")
        self._refuse_dashes(argv)
        return self.parse_args(argv)

    def parse_known(self, argv: Sequence[str]) -> tuple[Any, list[str]]:
        """Parse what is known, and give back the rest."""
        self._refuse_dashes(argv)
        return self.parse_known_args(argv)

    def _refuse_dashes(self, argv: Sequence[str]) -> None:
        """argparse takes `--` for no value, even after `=`, and hands on nothing in its place."""
        for flag, value in flags_of(argv):
            if value == "--" and f"--{flag}=--" in argv:
                self.error(f"--{flag} is --, which is no value")

    def error(self, message: str) -> NoReturn:
        # argparse's "argument -o/--out: ..."; what a type says begins with the value, as "--limit is 0; ..." does.
        message = re.sub(r"^argument (?:-\w/)?(\S+): (is )?", lambda m: f"{m[1]} is " if m[2] else f"{m[1]}: ", message)
        raise UsageError(f"{self.prog.removeprefix('ccl ')}: {message}; see `{self.prog} --help`")


@dataclass(frozen=True)
class Whole:
    """A type of arguments: whole numbers.

    Args:
        least: of them.
        most: of them; what is beyond is a slip that would fill the memory or never end.
    """

    least: int = 1
    most: int = 10**9

    def __call__(self, given: str) -> int:
        try:
            if self.least <= (value := int(given)) <= self.most:
                return value
        except ValueError:
            pass
        raise ArgumentTypeError(f"is {given or repr(given)}; it must be a whole number {bounds(self)}")


@dataclass(frozen=True)
class Number:
    """A type of arguments: finite numbers.

    Args:
        least: of them.
        most: of them.
        above: whether `least` itself is none.
    """

    least: float | int = -1e9
    most: float | int = 1e9
    above: bool = False

    def __call__(self, given: str) -> float:
        try:
            if self.least <= (value := float(given)) <= self.most and not (self.above and value == self.least):
                return value
        except ValueError:
            pass
        raise ArgumentTypeError(f"is {given or repr(given)}; it must be a number {bounds(self)}")


def bounds(kind: Whole | Number) -> str:
    """Of a type of numbers, in words."""
    least, most = (f"{x:,}" if isinstance(x, int) else f"{x:,.12g}" for x in (kind.least, kind.most))
    return f"above {least} and {most} at most" if isinstance(kind, Number) and kind.above else f"from {least} to {most}"


def text_of(given: str) -> str:
    """A type of arguments: text that is not empty, as that of an unset variable is."""
    if not given:
        raise ArgumentTypeError("nothing is given")
    return given


def any_text(given: str) -> str:
    """A type of arguments: text, which may be empty."""
    if fault := unreadable(given):
        raise ArgumentTypeError(fault)
    return given


def path_of(given: str) -> Path:
    """A type of arguments: a path; an empty one is not the folder that the user happens to be in."""
    try:
        os.lstat(text_of(given))
    except ValueError as error:  # a zero byte, half a character
        raise ArgumentTypeError("no file can have this name") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ArgumentTypeError("the name is longer than any file's") from error
        if error.errno == errno.ENOTDIR:
            raise ArgumentTypeError(f"is {given}, which lies in a file, not in a folder") from error
    return Path(given)


def model_of(given: str) -> Path | str:
    """A type of arguments: the path of a model, or as a text what can only be a name of the hub."""
    path = path_of(given)
    return path if on_hub(given) is None else given


def file_to_write(given: str) -> Path:
    """A type of arguments: a file, which may be there or not."""
    if (path := path_of(given)).is_dir():
        raise ArgumentTypeError(f"is {given}, a folder; a file is needed")
    return path


def folder_to_write(given: str) -> Path:
    """A type of arguments: a folder, which may be there or not."""
    if (path := path_of(given)).exists() and not path.is_dir():
        raise ArgumentTypeError(f"is {given}, a file; a folder is needed")
    return path


def lora_of(given: str) -> tuple[Path, float]:
    """A type of arguments: a LoRA file and how strong it is to be, FILE or FILE=SCALE."""
    path, _, scale = given.rpartition("=")
    try:
        strong = float(scale) if path else 1.0
    except ValueError:  # a sign in the file's name
        path, strong = given, 1.0
    if not abs(strong) <= STRONGEST:
        raise ArgumentTypeError(f"is {given}; its scale must be a number from -{STRONGEST} to {STRONGEST}")
    return path_of(path or given), strong


def add_loras(parser: Any, what: str) -> None:
    """Option for LoRA files."""
    parser.add_argument(
        "--lora",
        dest="loras",
        action="append",
        type=lora_of,
        default=[],
        metavar="FILE[=SCALE]",
        help=f"{what} (.safetensors, or a folder of PEFT's), times SCALE; repeatable",
    )


STRONGEST = 1000  # of a LoRA
SIDE = 8192  # pixels of a picture
SEED = Whole(0, 2**63 - 1)
STEPS = Whole(1, 10_000)  # of a solver, as ccl.sampling.MOST says
SHIFT = Number(0, above=True)  # of a solver's times
WORKERS = Whole(1, 1024)


def add_offload(parser: Any) -> None:
    """Option for a network that is larger than a GPU."""
    parser.add_argument(
        "--offload",
        nargs="?",
        choices=("blocks",),
        const=True,
        default=False,
        help="text encoder and codecs leave the GPU when done; blocks: the network comes two blocks at a time",
    )


def add_device(parser: Any) -> None:
    """Where a model works."""
    parser.add_argument("--device", type=text_of, help="cpu or cuda (cuda where there is one)")


def add_dtype(parser: Any) -> None:
    """What a network that makes clips is held in."""
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="float32", help="of the network in memory (%(default)s)"
    )


def add_seed(parser: Any, of: str = "the noise") -> None:
    """What randomness follows from."""
    parser.add_argument("--seed", type=SEED, default=0, help=f"of {of} (%(default)s)")


def add_ckpt(parser: Any) -> None:
    """Option for a model."""
    parser.add_argument(
        "--ckpt",
        type=model_of,
        help="a model folder, a run folder, a .ckpt in one or OWNER/NAME[@REVISION] of the hub (what ships)",
    )


def add_trust(parser: Any) -> None:
    """Option for the code of others that a model's config names."""
    parser.add_argument(
        "--trust",
        action="append",
        type=text_of,
        default=[],
        metavar="MODULE",
        help="run this module's code where the model's config names classes of it; repeatable (ccl's alone)",
    )
