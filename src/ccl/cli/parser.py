"""The light parser of the verbs that are not configured by YAML: one-sentence errors, help with examples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ccl.cli.errors import UsageError, did_you_mean


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
        return self.parse_args(argv)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix('ccl ')}: {message}; see `{self.prog} --help`")


def text_of(given: str) -> str:
    """A type of arguments: text that is not empty, as that of an unset variable is."""
    if not given:
        raise argparse.ArgumentTypeError("nothing is given")
    return given


def path_of(given: str) -> Path:
    """A type of arguments: a path; an empty one is not the folder that the user happens to be in."""
    return Path(text_of(given))


def add_trust(parser: Any) -> None:
    """Option for the code of others that a model's config names."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="run this module's code where the model's config names classes of it; repeatable (ccl's alone)",
    )
