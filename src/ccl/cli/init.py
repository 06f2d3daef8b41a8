"""`ccl init`: the configs that ship with ccl, wherever it is installed, as files to change."""

from __future__ import annotations

import sys
from pathlib import Path

from ccl.cli.errors import UsageError
from ccl.cli.parser import Parser, folder_to_write
from ccl.files.shipped import shipped
from ccl.spelling import counted

CONFIGS = "configs"


def main(argv: list[str]) -> int:
    parser = Parser(
        "init",
        "Write the configs that ship with ccl into a folder, to train, sample and compare with, and to change.",
        "ccl init",
        "ccl init my-configs",
    )
    what = "where they go (%(default)s; the pages of the docs call them so)"
    parser.add_argument("folder", type=folder_to_write, nargs="?", default=Path(CONFIGS), help=what)
    parser.add_argument("--overwrite", action="store_true", help="files that were changed, too")
    args = parser.parse(argv)
    written = hand_out(shipped(CONFIGS), args.folder, args.overwrite)
    said = f"{counted(written, 'file')} written" if written else "all files are there already"
    sys.stdout.write(f"{args.folder}: {said}\n")
    return 0


def hand_out(source: Path, folder: Path, overwrite: bool) -> int:
    """Copy a tree of files; those that are there and equal stay.

    Returns:
        How many were written.

    Raises:
        UsageError: one is there and differs; nothing was written.
    """
    from ccl.files import write_whole

    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    there = [path for path in files if (folder / path).exists()]
    changed = [path for path in there if (folder / path).read_bytes() != (source / path).read_bytes()]
    if changed and not overwrite:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(f"{folder / changed[0]}{more} is not as it ships; --overwrite puts back what ships")
    wanted = [path for path in files if path not in there or path in changed]
    for path in wanted:
        write_whole(folder / path, (source / path).read_bytes())
    return len(wanted)
