"""`ccl testset images`: the first pictures of a test set, drawn from its image prompts or the user's own."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Any

from ccl.cli.machine import best_device
from ccl.cli.parser import SEED, SIDE, STEPS, Number, Parser, Whole, add_device, folder_to_write, path_of, text_of
from ccl.cli.testsets import PAPER, TestSet, testset_of


def images(argv: list[str]) -> int:
    parser = Parser(
        "testset images",
        "Make a test set's first pictures, images/ID.png beside its manifests: drawn from the rows' image prompts by a "
        "text-to-image pipeline of diffusers, or your own brought to size. Resumable; images/recipe.json says what "
        "they follow from.",
        "ccl testset images --pipeline stabilityai/stable-diffusion-xl-base-1.0 --draw-size 1280x704",
        "ccl testset images --pipeline models/sdxl --limit 2 -o try",
        "ccl testset images --images photos",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--pipeline", type=text_of, metavar="MODEL", help="a name on the Hugging Face hub, or a local folder"
    )
    what.add_argument("--images", type=path_of, metavar="DIR", help="your own: ID.png, .jpg or .webp for every row")
    parser.add_argument(
        "--testset", type=text_of, default=PAPER, help="name, .jsonl file or folder of them (%(default)s)"
    )
    parser.add_argument(
        "-o", "--out", type=folder_to_write, help="a folder that becomes a test set of its own (the test set's)"
    )
    parser.add_argument("--size", type=_size, default=(640, 352), metavar="WxH", help="of the files (640x352)")
    parser.add_argument("--limit", type=Whole(), help="the first N rows of each manifest alone")
    parser.add_argument("--overwrite", action="store_true", help="replace whatever pictures are there")
    how = parser.add_argument_group("with --pipeline")
    how.add_argument("--draw-size", type=_size, metavar="WxH", help="what the pipeline draws, then resized (--size)")
    how.add_argument("--revision", type=text_of, help="of the hub's: branch, tag or commit")
    how.add_argument("--steps", type=STEPS, help="of its sampler (the pipeline's own number)")
    how.add_argument("--guidance", type=Number(), help="classifier-free scale (the pipeline's own)")
    how.add_argument(
        "--seed", type=SEED, default=0, help="a picture's own follows from it and the row's id (%(default)s)"
    )
    add_device(how)
    args = parser.parse(argv)
    if args.images:
        if args.images.exists() and not args.images.is_dir():
            parser.error(f"--images is {args.images}, a file; give the folder of the pictures")
        drawing = ("draw_size", "revision", "steps", "guidance", "device")
        if idle := [f for f in drawing if getattr(args, f) is not None]:
            parser.error(f"--{idle[0].replace('_', '-')} goes with --pipeline, not with --images")
    testset = testset_of(args.testset)

    from ccl.cli.parts import device_of
    from ccl.cli.verbs import bar, say
    from ccl.data.first_frames import draw_frames, take_frames, text_to_image

    frames = frames_of(testset, seed=args.seed, limit=args.limit, drawn=args.pipeline is not None)
    home = testset.files[0].parent
    out = args.out or home
    painter = None
    if args.pipeline:
        painter = text_to_image(
            args.pipeline,
            revision=args.revision,
            steps=args.steps,
            guidance=args.guidance,
            size=args.draw_size or args.size,
            device=device_of(args.device) or best_device(),
        )
    order: dict[str, Any] = {"size": args.size, "overwrite": args.overwrite}
    with bar("pictures") as progress:
        if painter is not None:
            draw_frames(frames, painter, out / "images", progress=progress, **order)
        else:
            take_frames(frames, args.images, out / "images", progress=progress, **order)
    if not out.samefile(home):
        from ccl.files import write_whole

        for file in testset.files:
            write_whole(out / file.name, file.read_bytes())
    say(out / "images")
    return 0


def frames_of(testset: TestSet, *, seed: int, limit: int | None, drawn: bool) -> list:
    """What to make for the rows of a test set; a picture's seed follows from `seed` and its row's id.

    Raises:
        ValueError: a row has nothing to be drawn from.
    """
    from ccl.data.first_frames import Frame
    from ccl.rng import seed_of
    from ccl.rows import file_names, read_rows

    rows = [row for file in testset.files for row in read_rows(file, give=())[:limit]]
    for row in rows:
        if drawn and not row.image_prompt:
            raise ValueError(f"{testset.name}: the row {row.id} has no image_prompt to draw a picture from")
    return [
        Frame(name, row.image_prompt, seed_of("first frame", seed, row.id) % 2**31)
        for row, name in zip(rows, file_names(rows), strict=True)
    ]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not all(16 <= int(side) <= SIDE for side in match.groups()):
        raise ArgumentTypeError(f"'{text}' is no size such as 640x352, of 16 to {SIDE} pixels a side")
    return int(match[1]), int(match[2])
