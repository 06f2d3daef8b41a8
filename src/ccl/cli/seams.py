"""`ccl inspect seams`: whether one sees or hears where the windows of clips meet. The work lies in ccl.inspection."""

from __future__ import annotations

import json
from pathlib import Path

from ccl.cli.errors import is_file
from ccl.cli.parser import Parser, Whole, file_to_write, path_of
from ccl.cli.verbs import say


def seams(argv: list[str]) -> int:
    parser = Parser(
        "inspect seams",
        "Whether one sees or hears where windows of a clip meet: steps of pictures and sound across its seams against "
        "those at all other places. A rank of 0.5 is a seam like any other place; 1 is worse than all. Clips of `ccl "
        "generate` have their seams in the record beside them.",
        "ccl inspect seams longer.mp4 -o seams.png",
        "ccl inspect seams out/*.mp4",
        "ccl inspect seams mine.mp4 --at 77 129",
    )
    parser.add_argument("clips", nargs="+", type=path_of, metavar="CLIP")
    parser.add_argument("--at", nargs="+", type=Whole(), help="pictures before which windows meet (the record's)")
    parser.add_argument("-o", "--out", type=file_to_write, help="a .png file, of one clip")
    args = parser.parse(argv)
    for path in args.clips:
        if not is_file(path):
            parser.error(f"there is no clip {path}")
    if (args.out is not None or args.at) and len(args.clips) > 1:
        parser.error(f"{'--at' if args.at else '-o'} goes with one clip, and there are {len(args.clips)}")
    if args.out is not None and args.out.suffix != ".png":
        parser.error(f"-o is {args.out}; the drawing is a .png")
    from ccl.files import write_whole
    from ccl.inspection.picture import pixels_of, png_of
    from ccl.inspection.seams import MEASURES, seams_figure, steps_of
    from ccl.media import read_natural

    found = [(read_natural(path)[0], args.at or recorded(path)) for path in args.clips]
    count = sum(len(at) for _, at in found)
    say(f"{count} seam{'s' * (count > 1)} of {len(found)} clip{'s' * (len(found) > 1)}")
    for name, steps in steps_of(found).items():
        say(f"{name} ({MEASURES[name]}): {steps}")
    if args.out is not None:
        write_whole(args.out, png_of(pixels_of(seams_figure(*found[0]))))
        say(args.out)
    return 0


def recorded(path: Path) -> list[int]:
    """The seams that a clip's record tells. ValueError where it tells none."""
    beside = path.with_suffix(".json")
    try:
        seams = json.loads(beside.read_text(encoding="utf-8"))["seams"]
        if isinstance(seams, list) and all(isinstance(seam, int) for seam in seams):
            return seams
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path} has no record beside it that tells its seams; give them with --at")
