"""`ccl inspect`: into a model or a config, in pictures and figures. The work lies in ccl.inspection."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ccl.cli.errors import UsageError, is_dir
from ccl.cli.parser import SEED, Number, Parser, Whole, add_trust, path_of, text_of
from ccl.cli.progress import bar
from ccl.cli.verbs import check_there, say


def add_model(parser: Parser) -> None:
    """Options that name a model and where it works."""
    parser.add_argument("--ckpt", type=path_of, help="a model folder, a run folder or a .ckpt in one (what ships)")
    add_trust(parser)
    parser.add_argument("--device", type=text_of, help="cpu or cuda (cuda where there is one)")


def pipeline_of(args: Any) -> Any:
    """The model that the options name."""
    if args.ckpt is not None:
        check_there(args.ckpt)
    from ccl.cli.parts import device_of
    from ccl.generation import Pipeline

    return Pipeline.load(args.ckpt, device=device_of(args.device), trust=args.trust)


def words(argv: list[str]) -> int:
    parser = Parser(
        "inspect words",
        "How much a model listens: by how much the loss of its sound rises when the sentence in its prompt's quotes is "
        "another clip's, with a 95 % interval over clips. 0 is a model that does not.",
        "ccl inspect words --ckpt runs/joint",
        "ccl inspect words --ckpt runs/audio --split test train --clips 50",
        "ccl inspect words --ckpt runs/mine --shards held-out",
    )
    add_model(parser)
    parser.add_argument("--shards", type=path_of, help="clips of this folder that say something (the world's)")
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("test", "train"),
        default=["test"],
        help="of the world; test: sentences and people that training never has; train: new clips of its own (test)",
    )
    parser.add_argument("--clips", type=Whole(2, 10_000), default=100, help="(%(default)s)")
    parser.add_argument(
        "--time", type=Number(0, 1, above=True), default=0.8, help="of the noise, 1 is nothing but noise (%(default)s)"
    )
    parser.add_argument("--draws", type=Whole(1, 1000), default=4, help="of the noise, for each clip (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the noise (%(default)s)")
    args = parser.parse(argv)
    if args.shards is not None and not is_dir(args.shards):
        raise UsageError(f"there is no --shards folder {args.shards}")
    from ccl.inspection.clips import AT_ONCE, batch_of, latents_of, shard_batches, world_clips
    from ccl.inspection.words import needed, spoken_of, worth_of

    pipe = pipeline_of(args)
    streams = needed(pipe.tasks, pipe.net)

    def of_world(split: Any, told: Any) -> Iterator[Any]:
        clips = iter(world_clips(pipe.grid, args.clips, split=split))
        for done in range(0, args.clips, AT_ONCE):
            yield batch_of(islice(clips, AT_ONCE))
            told(min(done + AT_ONCE, args.clips), args.clips)

    with bar("listening") as told:
        if args.shards is not None:
            found = {str(args.shards): shard_batches(args.shards, pipe.grid, pipe.codec, streams)}
        else:
            found = {f"the world's {split} split": of_world(split, told) for split in args.split}
        for name, batches in found.items():
            chosen = spoken_of(batches, args.clips)
            pairs = [(batch, latents_of(batch, pipe.codec, pipe.grid, streams, pipe.device)) for batch in chosen]
            settings = {"time": args.time, "draws": args.draws, "seed": args.seed, "name": name}
            with pipe.autocast():
                found_worth = worth_of(pipe.net, pipe.text, pairs, pipe.grid, **settings)
            say(f"words at t = {args.time:g}, {name}: {found_worth}")
    return 0
