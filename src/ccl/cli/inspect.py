"""`ccl inspect`: into a model or a config, in pictures and figures. The work lies in ccl.inspection."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ccl.cli.as_json import add_json
from ccl.cli.errors import UsageError, is_dir, is_file
from ccl.cli.front import config_files
from ccl.cli.inspected import Told, add_model, model_settings, pipeline_of, tell
from ccl.cli.parser import Number, Parser, Whole, add_seed, any_text, file_to_write, folder_to_write, path_of, text_of
from ccl.cli.rules import check_guidance
from ccl.progress import bar


def words(argv: list[str]) -> int:
    parser = Parser(
        "inspect words",
        "How much a model listens: by how much the loss of its sound rises when the sentence in its prompt's quotes is "
        "another clip's, and the loss of its pictures when the description around the quotes is, with a 95 % interval "
        "over clips. 0 is a model that does not.",
        "ccl inspect words --ckpt runs/joint",
        "ccl inspect words --ckpt runs/audio --split test train --clips 50",
        "ccl inspect words --ckpt runs/mine --shards held-out",
    )
    add_model(parser)
    parser.add_argument("--shards", type=path_of, help="clips of this folder (the world's)")
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("test", "train"),
        default=["test"],
        help="of the world; test: sentences and people that training never has; train: new clips of its own (test)",
    )
    parser.add_argument(
        "--clips",
        type=Whole(2, 10_000),
        default=100,
        help="that say something, and as many that have a description (%(default)s)",
    )
    parser.add_argument(
        "--time", type=Number(0, 1, above=True), default=0.8, help="of the noise, 1 is nothing but noise (%(default)s)"
    )
    parser.add_argument("--draws", type=Whole(1, 1000), default=4, help="of the noise, for each clip (%(default)s)")
    add_seed(parser)
    add_json(parser)
    args = parser.parse(argv)
    if args.shards is not None and not is_dir(args.shards):
        raise UsageError(f"there is no --shards folder {args.shards}")
    from ccl.inspection.clips import AT_ONCE, batch_of, latents_of, shard_batches, world_clips
    from ccl.inspection.parts import PARTS
    from ccl.inspection.words import gathered, probed, read, worth_of

    pipe = pipeline_of(args)
    needs, faults = probed(pipe.tasks, pipe.net)
    if not needs:
        raise ValueError("; ".join(dict.fromkeys(faults.values())))

    def of_world(split: Any, told: Any) -> Iterator[Any]:
        clips = iter(world_clips(pipe.grid, args.clips, split=split))
        for done in range(0, args.clips, AT_ONCE):
            yield batch_of(islice(clips, AT_ONCE))
            told(min(done + AT_ONCE, args.clips), args.clips)

    def encode(batch: Any, streams: Any) -> Any:
        return latents_of(batch, pipe.codec, pipe.grid, streams, pipe.device)

    noise = {"time": args.time, "draws": args.draws, "seed": args.seed}

    def told() -> Iterator[Told]:
        with bar("listening") as progress:
            if args.shards is not None:
                found = {str(args.shards): shard_batches(args.shards, pipe.grid, pipe.codec, read(needs))}
            else:
                found = {f"the world's {split} split": of_world(split, progress) for split in args.split}
            for name, batches in found.items():
                pairs, unfit = gathered(batches, args.clips, needs, encode)
                if not pairs:
                    raise ValueError(f"{name}: {'; '.join(unfit.values())}")
                unfit |= faults
                for part in PARTS:
                    head = f"{part} at t = {args.time:g}, {name}"
                    what = {"of": name, "part": part.name, "stream": part.stream}
                    if part in pairs:
                        with pipe.autocast():
                            worth = worth_of(pipe.net, pipe.text, pairs[part], pipe.grid, part, **noise, name=name)
                        yield Told([f"{head}: {worth}"], [what | worth.figures])
                    elif part in unfit:
                        yield Told([f"{head}: not measured: {unfit[part]}"], [what | {"not_measured": unfit[part]}])

    tell(args, {**model_settings(args, pipe), "clips": args.clips, **noise}, told())
    return 0


def attention(argv: list[str]) -> int:
    parser = Parser(
        "inspect attention",
        "What pictures and sound attend to of each other: maps of a clip, and over clips of the world the shares that "
        "context tokens take of mouths, persons and background, of voice and silence, with 95 % intervals over clips.",
        "ccl inspect attention --ckpt runs/joint -o inside",
        "ccl inspect attention --ckpt runs/joint --index 103 --times 0.9 0.5 -o inside",
        """ccl inspect attention --clip mine.mp4 --prompt 'A man says "good morning"' -o inside""",
    )
    add_model(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--clip", type=path_of, help="one of your own, alone; without figures of mouth and background")
    which.add_argument(
        "--index", type=Whole(0, 199), default=0, help="test clip of the world that is drawn (%(default)s)"
    )
    parser.add_argument("--prompt", type=any_text, default="", help="of --clip")
    parser.add_argument("--clips", type=Whole(2, 200), default=24, help="of the world that are measured (%(default)s)")
    parser.add_argument(
        "--times", type=Number(0, 1, above=True), nargs="+", default=[0.9, 0.5, 0.1], help="noise levels (0.9 0.5 0.1)"
    )
    add_seed(parser)
    parser.add_argument("-o", "--out", type=folder_to_write, required=True, help="folder of pictures and arrays")
    add_json(parser)
    args = parser.parse(argv)
    if args.clip is not None and not is_file(args.clip):
        raise UsageError(f"there is no --clip file {args.clip}")
    pipe = pipeline_of(args)
    from ccl.inspection.attention import look
    from ccl.inspection.clips import batch_of, latents_of, own_clip, world_clips
    from ccl.inspection.regions import regions_of
    from ccl.inspection.report import figures_of, lines_of, write
    from ccl.inspection.watch import untold
    from ccl.types import AV

    if fault := untold(pipe.net):
        raise ValueError(fault)
    with bar("looking") as progress:
        if args.clip is not None:
            clips = [own_clip(args.clip, args.prompt, pipe.grid)]
        else:
            clips = list(world_clips(pipe.grid, args.clips, figures=True, first=args.index))
        regions = [regions_of(clip, pipe.grid) for clip in clips]
        z = latents_of(batch_of(clips), pipe.codec, pipe.grid, AV(True, True), pipe.device)
        looks = []
        for done, time in enumerate(args.times):
            progress(done, len(args.times), f"t = {time:g}")
            with pipe.autocast():
                prompts = [clip.prompt for clip in clips]
                looks.append(look(pipe.net, pipe.text, z, prompts, pipe.grid, regions, time=time, seed=args.seed))

    def told() -> Iterator[Told]:
        for one in looks:
            figures = figures_of(one, len(clips))
            yield Told(lines_of(figures), [figures])
        for path in write(looks, clips[0], pipe.grid, args.out):
            yield Told([path], files=[path])

    source = {"index": args.index} if args.clip is None else {"clip": str(args.clip), "prompt": args.prompt}
    tell(
        args,
        {**model_settings(args, pipe), **source, "clips": len(clips), "times": args.times, "seed": args.seed},
        told(),
    )
    return 0


def quantized(argv: list[str]) -> int:
    parser = Parser(
        "inspect quantized",
        "What a model loses where matrices are kept in 8 bits (--model.quantize): how far tokens of pictures and sound "
        "are from those of float32 after each block, and the velocities; with the video stream's matrices in int8 and "
        "float8, with the audio stream's too, and beside bfloat16.",
        "ccl inspect quantized",
        "ccl inspect quantized --ckpt runs/joint --clips 16 --times 0.9 0.1",
    )
    add_model(parser)
    parser.add_argument("--clips", type=Whole(1, 200), default=8, help="of the world's test split (%(default)s)")
    parser.add_argument(
        "--times", type=Number(0, 1, above=True), nargs="+", default=[0.9, 0.5, 0.1], help="noise levels (0.9 0.5 0.1)"
    )
    add_seed(parser)
    add_json(parser)
    args = parser.parse(argv)
    pipe = pipeline_of(args)
    from ccl.inspection.clips import batch_of, latents_of, world_clips
    from ccl.inspection.quantized import errors, figures_of, lines
    from ccl.types import AV

    batch = batch_of(world_clips(pipe.grid, args.clips, figures=True))
    z = latents_of(batch, pipe.codec, pipe.grid, AV(True, True), pipe.device)

    def told() -> Iterator[Told]:
        for time in args.times:
            with bar(f"t = {time:g}") as progress:
                found = errors(
                    pipe.net, pipe.text, z, batch.prompt, pipe.grid, time=time, seed=args.seed,
                    told=lambda done, of: progress(done, of, "ways"),
                )  # fmt: skip
            figures = figures_of(found, time, args.clips)
            yield Told(lines(figures), [figures])

    tell(args, {**model_settings(args, pipe), "clips": args.clips, "times": args.times, "seed": args.seed}, told())
    return 0


def route(argv: list[str]) -> int:
    parser = Parser(
        "inspect route",
        "Who sees whom: a row for each training task and each pass of the guidance rule on it; with -o, drawn in the "
        "colours of the paper's Fig. 4. Of a model, or of a config and other options of `ccl fit`.",
        "ccl inspect route",
        "ccl inspect route --config configs/joint.yaml --guidance ucg3 -o route.svg",
    )
    add_model(parser)
    parser.add_argument("--guidance", type=text_of, help="a rule's name, a class or a YAML file (the model's)")
    parser.add_argument("-o", "--out", type=file_to_write, help="an .svg file")
    add_json(parser)
    args, rest = parser.parse_known(argv)
    if args.out is not None and args.out.suffix != ".svg":
        parser.error(f"-o is {args.out}; the drawing is an .svg")
    if rest and not config_files(rest):
        parser.error(f"there is no option {rest[0]}")
    check_guidance(args.guidance)
    from ccl.cli.parts import guidance_of
    from ccl.files import write_whole
    from ccl.inspection.route import rows_of, svg_of, table_lines

    rule = guidance_of(args.guidance, None, None)
    if config_files(rest):
        tasks, own, closed = of_config(rest)
        which = {"configs": [str(file) for file in config_files(rest)]}
    else:
        pipe = pipeline_of(args)
        tasks, own, closed = pipe.tasks, pipe.guidance, pipe.net.closed
        which = model_settings(args, pipe)
    chosen = rule(own)
    rows = rows_of(tasks, chosen, closed)

    def told() -> Iterator[Told]:
        yield Told(table_lines(rows), [row.figures for row in rows])
        if args.out is not None:
            write_whole(args.out, svg_of(rows, f"Who sees whom; passes of {chosen.called}"))
            yield Told([args.out], files=[args.out])

    tell(args, {**which, "guidance": chosen.called}, told())
    return 0


def of_config(argv: list[str]) -> tuple[Any, Any, Any]:
    """Tasks, guidance rule and what a closed route leaves, of a config of `ccl fit`."""
    import torch

    from ccl.cli.own import reachable
    from ccl.cli.parts import build
    from ccl.cli.planned import planned_of
    from ccl.guidance import Guidance

    with reachable(config_files(argv), argv):
        planned = planned_of(argv)
        with torch.device("meta"):
            closed = planned.make().closed
        own = build(Guidance, planned.config["sampling"]["guidance"], "sampling.guidance")
        return planned.tasks, own, closed


def alignment(argv: list[str]) -> int:
    parser = Parser(
        "inspect alignment",
        "What the windows between pictures and sound do to the clips of a config: by how much they are early or late, "
        "which audio tokens no frame sees, and a drawing; for the paper's centres, proportional and true ones.",
        "ccl inspect alignment --config configs/joint.yaml -o windows.png",
        "ccl inspect alignment --config configs/joint.yaml --config configs/model/wan14b.yaml",
    )
    parser.add_argument("-o", "--out", type=file_to_write, help="a .png file")
    add_json(parser)
    args, rest = parser.parse_known(argv)
    if not config_files(rest):
        parser.error("it needs a config, as `ccl fit` does: --config configs/joint.yaml")
    if args.out is not None and args.out.suffix != ".png":
        parser.error(f"-o is {args.out}; the drawing is a .png")
    from ccl.cli.own import reachable
    from ccl.cli.planned import planned_of
    from ccl.files import write_whole
    from ccl.inspection.picture import pixels_of, png_of
    from ccl.inspection.windows import windows_figure, windows_of

    with reachable(config_files(rest), rest):
        planned = planned_of(rest)
    grid = planned.grid
    align = planned.config["model"]["net"]["init_args"]["interaction"].get("init_args", {}).get("align") or {}
    given = align.get("init_args") or {}
    edges, own = given.get("edges", "mask"), given.get("centre", "")
    found = windows_of(grid, edges)
    none = "" if own else f"this config has no windows: {align.get('class_path', 'its interaction has no alignment')}"
    head = f"t_v {grid.t_v} latent frames, t_a {grid.t_a} audio tokens, c {grid.c}: windows of {3 * grid.c} tokens"
    lengths = {"latent_frames": grid.t_v, "audio_tokens": grid.t_a, "c": grid.c, "window_tokens": 3 * grid.c}

    def told() -> Iterator[Told]:
        yield Told([head])
        for one in found:
            mine = one.centre == own
            yield Told([f"{one}{' <- this config' if mine else ''}"], [{**one.figures, "this_config": mine}])
        if none:
            yield Told([none])
        if args.out is not None:
            write_whole(args.out, png_of(pixels_of(windows_figure(grid, found, own, edges))))
            yield Told([args.out], files=[args.out])

    how = {"no_windows": none} if none else {"centre": own, "edges": edges}
    tell(args, {"configs": [str(file) for file in config_files(rest)], **lengths, **how}, told())
    return 0
