"""`ccl evaluate merge`: the results of several labs in one table."""

from __future__ import annotations

from pathlib import Path

from ccl.cli.errors import UsageError
from ccl.cli.evaluate import PROTOCOLS
from ccl.cli.parser import Parser, folder_to_write, path_of


def merge(argv: list[str]) -> int:
    parser = Parser(
        "evaluate merge",
        "Put several results.json, as `ccl evaluate` writes them, into one table with the same statistics, over the "
        "rows that all have; writes a results.json too, for a script. Metrics of two protocols are refused.",
        "ccl evaluate merge ours/scores/results.json theirs.json -o merged",
    )
    parser.add_argument("files", type=path_of, nargs="+", metavar="FILE", help="results.json, or the folder it is in")
    parser.add_argument(
        "-o", "--out", type=folder_to_write, default=Path("merged"), help="folder of the table (%(default)s)"
    )
    parser.add_argument("--published", action="store_true", help="the paper's numbers beside")
    args = parser.parse(argv)
    if len(args.files) < 2:
        raise UsageError(f"{args.files[0]} is one file; name two or more")

    from rich.console import Console

    from ccl.cli.testsets import published
    from ccl.evaluation.score import ELSEWHERE
    from ccl.evaluation.tables import exchange, table
    from ccl.evaluation.tables.merge import merge as merged
    from ccl.files import one_writer

    check_files(args.files, args.out, exchange.NAME)
    names = names_of(args.files, exchange.NAME)
    results = merged({name: exchange.read(file) for name, file in zip(names, args.files, strict=True)})
    beside = published() if args.published else None
    args.out.mkdir(parents=True, exist_ok=True)
    with one_writer(args.out, ELSEWHERE):
        table.write(results, args.out, published=beside)
    console = Console()
    table.show(results, console, published=beside)
    for name in ("table.md", exchange.NAME):
        console.print(str(args.out / name), highlight=False, soft_wrap=True, markup=False)
    return 0


def check_files(files: list[Path], out: Path, usual: str) -> None:
    """UsageError where one is the folder of several protocols' results, or would be written over."""
    for file in files:
        if file.is_dir() and not (file / usual).exists() and (file / PROTOCOLS).is_dir():
            names = ", ".join(sorted(place.parent.name for place in (file / PROTOCOLS).glob(f"*/{usual}")))
            raise UsageError(
                f"{file} is of several protocols, which are not merged; name one of {file / PROTOCOLS}: {names}"
            )
        if (file / usual if file.is_dir() else file).resolve() == (out / usual).resolve():
            raise UsageError(f"{out} holds results that are to be merged; give another folder with -o")


def names_of(files: list[Path], usual: str) -> list[str]:
    """What the files are called in words: their own names, or their folders' where they all are called as usual."""
    names = [file.parent.resolve().name if file.name == usual else file.name for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    if len(set(names)) < len(names):
        raise UsageError(f"{max(names, key=names.count)} is named twice")
    return names
