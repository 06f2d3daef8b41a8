"""Verbs that take options instead of YAML: each parses, imports its machinery and calls it.

The work itself lives with its owner: ccl.data (shards), ccl.pipeline (generate, export), ccl.evaluation, ccl.codecs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ccl.cli.errors import UsageError
from ccl.cli.parser import Parser
from ccl.grid import Grid


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")


def add_grid(parser: Parser) -> None:
    """Options for the length and size of a clip; the embedded default's where they are not given."""
    usual = Grid()
    parser.add_argument("--frames", type=int, default=usual.frames, help="pictures of a clip, 4k + 1 (%(default)s)")
    parser.add_argument("--fps", type=float, default=usual.fps, help="pictures a second (%(default)s)")
    parser.add_argument("--height", type=int, default=usual.height, help="pixels, a multiple of 16 (%(default)s)")
    parser.add_argument("--width", type=int, default=usual.width, help="pixels, a multiple of 16 (%(default)s)")


def grid_of(args: Any) -> Grid:
    try:
        return Grid(frames=args.frames, fps=args.fps, height=args.height, width=args.width)
    except ValueError as error:
        raise UsageError(str(error).replace("grid.", "--")) from error


def shards_make(argv: list[str]) -> int:
    parser = Parser(
        "shards make",
        "Write WebDataset shards from a folder of own videos: brought to one rate, size and length, 16 kHz mono.",
        "ccl shards make videos -o data/mine --captions videos/captions.csv",
        "ccl shards make videos -o data/paper --frames 81 --fps 16 --height 352 --width 640 --workers 8",
    )
    parser.add_argument("folder", type=Path, help="searched with all folders in it")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the shards and their index.json")
    parser.add_argument(
        "--captions", type=Path, help=".csv or .jsonl with `file` and `prompt`; without it, NAME.txt beside NAME.mp4"
    )
    parser.add_argument("--strict", action="store_true", help="fail on the first clip that cannot be used")
    parser.add_argument("--shard-size", type=int, default=256, help="clips a tar file (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 works in this one")
    add_grid(parser)
    args = parser.parse_args(argv)
    grid = grid_of(args)
    from ccl.data.write import shards_make as make

    report = make(
        args.folder,
        args.out,
        captions=args.captions,
        grid=grid,
        strict=args.strict,
        shard_size=args.shard_size,
        workers=args.workers,
    )
    say(report)
    return 0


def shards_world(argv: list[str]) -> int:
    parser = Parser(
        "shards world",
        "Write shards of the embedded talking world, by the writer that `ccl shards make` uses.",
        "ccl shards world -o data/world/clips --count 2000 --workers 2",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the shards and their index.json")
    parser.add_argument("--count", type=int, default=2000, help="clips (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the world (%(default)s)")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="(%(default)s)")
    parser.add_argument("--shard-size", type=int, default=256, help="clips a tar file (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 works in this one")
    add_grid(parser)
    args = parser.parse_args(argv)
    grid = grid_of(args)
    from ccl.data.world import World
    from ccl.data.write import progress_bar, write_shards

    sources = World(seed=args.seed, split=args.split, grid=grid).sources(args.count)
    with progress_bar(f"the world, {args.split}") as advance:
        report = write_shards(
            sources, args.out, grid, shard_size=args.shard_size, workers=args.workers, progress=advance
        )
    say(report)
    return 0


def codec_fit(argv: list[str]) -> int:
    parser = Parser(
        "codec fit",
        "Fit the bases of the embedded codecs to clips of the world's training split.",
        "ccl codec fit -o basis.safetensors --clips 400",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .safetensors file, at most 1 MB")
    parser.add_argument("--clips", type=int, default=400, help="of the training split (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the world (%(default)s)")
    parser.add_argument(
        "--video-channels", type=int, default=16, help="numbers a block of 4 x 8 x 8 pixels (%(default)s)"
    )
    parser.add_argument("--audio-channels", type=int, default=40, help="numbers a pair of mel frames (%(default)s)")
    args = parser.parse_args(argv)
    from ccl.codecs.fit import fit
    from ccl.data.world import World

    world = World(seed=args.seed, split="train")
    clips = (world.clip(index) for index in range(args.clips))
    say(fit(args.out, clips, video_channels=args.video_channels, audio_channels=args.audio_channels))
    return 0
