"""`ccl weights`: what metrics and backbones need, what is here, and how to get the rest."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from ccl.cli.as_json import add_json, say_json
from ccl.cli.errors import UsageError
from ccl.cli.parser import Parser, text_of
from ccl.spelling import did_you_mean


def list_(argv: list[str]) -> int:
    what = "What metrics and backbones need: which files are here, how large, under which licence, from where."
    parser = Parser("weights list", what, "ccl weights list", "CCL_WEIGHTS=/data/weights ccl weights list --json")
    add_json(parser)
    args = parser.parse(argv)
    if args.json:
        say_json(listed())
        return 0
    from rich.console import Console
    from rich.table import Table

    from ccl.weights import catalogue as weights
    from ccl.weights.fetch import host

    table = Table("name", "for", "size", "licence", "from", "here", title=f"weights in {weights.cache()}")
    for entry in weights.TABLE.values():
        source = f"package {entry.package.split('/')[0]}" if entry.package else host(entry.source[0])
        here = "yes" if weights.present(entry.name) else ""
        table.add_row(entry.name, entry.what, weights.size(entry), entry.licence, source, here)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    return 0


def listed() -> list[dict[str, Any]]:
    """All weights, and where those lie that are here."""
    from ccl.weights import catalogue as weights

    return [
        {
            "name": entry.name,
            "for": entry.what,
            "megabytes": entry.megabytes,
            "licence": entry.licence,
            "non_commercial": entry.non_commercial,
            "path": str(weights.locate(entry.name)) if weights.present(entry.name) else None,
        }
        for entry in weights.TABLE.values()
    ]


def fetch(argv: list[str]) -> int:
    parser = Parser(
        "weights fetch",
        "Download files by name into $CCL_WEIGHTS or ~/.cache/ccl/weights; goes on where it was stopped.",
        "ccl weights fetch syncnet s3fd",
        "ccl weights fetch imagebind --yes",
    )
    parser.add_argument("names", type=text_of, nargs="+", metavar="NAME", help="as `ccl weights list` has them")
    parser.add_argument("--yes", action="store_true", help="accept licences that forbid commercial use")
    args = parser.parse(argv)
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from ccl.weights import catalogue as weights
    from ccl.weights.fetch import fetch as get

    for name in args.names:
        if name not in weights.TABLE:
            raise UsageError(f"there are no weights called '{name}'{did_you_mean(name, weights.TABLE)}")
        entry = weights.TABLE[name]
        if entry.non_commercial and not agreed(args.yes, f"{name}: {entry.licence}"):
            raise UsageError(f"{name} is under {entry.licence}; say --yes if that suits your use")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    for name in args.names:
        entry = weights.TABLE[name]
        sys.stdout.write(f"{name}: {entry.what}, {weights.size(entry)}, {entry.licence}\n")
        sys.stdout.flush()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
            task = shown.add_task(name)
            path = get(entry, progress=partial(moved, shown, task))
        sys.stdout.write(f"{path}\n")
    return 0


def moved(shown: Any, task: Any, done: int, total: int) -> None:
    shown.update(task, completed=done, total=total or None)


def verify(argv: list[str]) -> int:
    what = "Check size and digest of every file that is here; exit 1 where one is wrong."
    Parser("weights verify", what, "ccl weights verify").parse(argv)
    from ccl.weights import catalogue as weights
    from ccl.weights.fetch import fault

    wrong = 0
    for name, entry in weights.TABLE.items():
        if not weights.present(name):
            continue
        path = weights.locate(name)
        problem = fault(entry, path)
        wrong += bool(problem)
        sys.stdout.write(f"{name}: {problem or ('ok' if entry.digest else 'there; no digest is known')} ({path})\n")
    if not any(weights.present(name) for name in weights.TABLE):
        sys.stdout.write(f"no weights in {weights.cache()}\n")
    return 1 if wrong else 0


def agreed(yes: bool, terms: str) -> bool:
    """Whether the user takes the terms: told by --yes, or asked where somebody is there to answer."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return input(f"{terms}. Fetch? [y/N] ").strip().lower() in ("y", "yes")
