"""`ccl inspect seams`: whether one sees or hears where the windows of clips meet. The work lies in ccl.inspection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccl.cli.as_json import add_json
from ccl.cli.errors import is_file
from ccl.cli.inspected import Told, add_model, model_settings, pipeline_of, tell
from ccl.cli.parser import STEPS, Parser, Whole, add_seed, file_to_write, path_of
from ccl.progress import bar
from ccl.spelling import counted

AT_ONCE = 8  # clips


def seams(argv: list[str]) -> int:
    parser = Parser(
        "inspect seams",
        "Whether one sees or hears where windows of a clip meet: steps of pictures and sound across its seams against "
        "those at all other places. A rank of 0.5 is a seam like any other place; 1 is worse than all. Clips of `ccl "
        "generate` have their seams in the record beside them. With --world, true clips are cut in the middle of what "
        "is said, where a seam is hardest, and a model goes on from there.",
        "ccl inspect seams longer.mp4 -o seams.png",
        "ccl inspect seams out/*.mp4",
        "ccl inspect seams mine.mp4 --at 77 129",
        "ccl inspect seams --world 12 --ckpt runs/continue",
    )
    parser.add_argument("clips", nargs="*", type=path_of, metavar="CLIP")
    parser.add_argument("--at", nargs="+", type=Whole(), help="pictures before which windows meet (the record's)")
    parser.add_argument("--world", type=Whole(1, 100), help="so many clips of the world's test split, in place of CLIP")
    add_model(parser)
    parser.add_argument("--steps", type=STEPS, help="of the solver (the model's)")
    add_seed(parser)
    parser.add_argument("-o", "--out", type=file_to_write, help="a .png file, of one clip")
    add_json(parser)
    args = parser.parse(argv)
    if bool(args.clips) == bool(args.world):
        parser.error("give clips to look at, or --world with how many clips of the world a model is to go on from")
    if args.at and args.world:
        parser.error("--at goes with a clip; --world cuts clips in the middle of what is said")
    if args.clips and (args.ckpt or args.steps):
        parser.error(f"{'--ckpt' if args.ckpt else '--steps'} goes with --world; clips are looked at as they are")
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

    if args.world:
        pipe = pipeline_of(args)
        each = gone_on(args, pipe)
        settings = {**model_settings(args, pipe), "world": args.world}
        settings |= {"steps": args.steps or pipe.steps, "seed": args.seed}
    else:
        each = {"": [(read_natural(path)[0], args.at or recorded(path)) for path in args.clips]}
        settings = {"clips": [str(path) for path in args.clips]}

    def told() -> Iterator[Told]:
        for what, found in each.items():
            count, steps = sum(len(at) for _, at in found), steps_of(found)
            head = f"{counted(count, 'seam')} of {counted(len(found), 'clip')}"
            figures: dict[str, Any] = {"of": what or "the given clips", "seams": [at for _, at in found]}
            figures |= {name: x.figures for name, x in steps.items()}
            lines = [f"{name} ({MEASURES[name]}): {x}" for name, x in steps.items()]
            yield Told([f"{what}: {head}" if what else head, *lines], [figures])
        if args.out is not None:
            write_whole(args.out, png_of(pixels_of(seams_figure(*next(iter(each.values()))[0]))))
            yield Told([args.out], files=[args.out])

    tell(args, settings, told())
    return 0


def gone_on(args: Any, pipe: Any) -> dict[str, list[tuple[Any, list[int]]]]:
    """Clips of the world that a model goes on from in the middle of what is said, the true ones, and the places."""
    from ccl.inspection.clips import world_clips
    from ccl.inspection.seams import cut, middle
    from ccl.rows import Row

    clips = list(world_clips(pipe.grid, args.world))
    rows = [Row(clip.id, clip.prompt, prefix=cut(clip, middle(clip))).seeded(args.seed) for clip in clips]
    made: list[Any] = []
    with bar("going on") as told:
        for first in range(0, len(rows), AT_ONCE):
            made += pipe.generate(rows[first : first + AT_ONCE], steps=args.steps)
            told(len(made), len(rows))
    return {
        "gone on from": [(clip, clip.meta["seams"]) for clip in made],
        "the true clips": [(clip, [middle(clip)]) for clip in clips],
    }


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
