"""Verbs that take options instead of YAML: each parses, imports its machinery and calls it.

The work itself lives with its owner: ccl.generation (generate, export), ccl.evaluation, ccl.codecs.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ccl.cli.errors import UsageError, is_dir, is_file
from ccl.cli.parser import (
    SHIFT,
    SIDE,
    STEPS,
    Number,
    Parser,
    Whole,
    add_ckpt,
    add_device,
    add_dtype,
    add_loras,
    add_offload,
    add_seed,
    add_trust,
    any_text,
    file_to_write,
    folder_to_write,
    model_of,
    path_of,
    text_of,
)
from ccl.cli.rules import add_guidance, check_guidance
from ccl.files.plaintext import check_prompt, printable
from ccl.grid import Grid
from ccl.progress import bar
from ccl.rows import MEDIA

# Of a row's media.
FLAGS = {key: f"--{key.replace('_', '-')}" for key in MEDIA} | {"prefix": "--continue", "suffix": "--precede"}
NOTES = 8  # that are printed; all are in the clips' records


def say(text: object) -> None:
    sys.stdout.write(f"{printable(str(text))}\n")


def add_grid(parser: Parser) -> None:
    """Options for the length and size of a clip; the embedded default's where they are not given."""
    usual = Grid()
    parser.add_argument(
        "--frames", type=Whole(1, 100_000), default=usual.frames, help="pictures of a clip, 4k + 1 (%(default)s)"
    )
    parser.add_argument(
        "--fps", type=Number(0, 1000, above=True), default=usual.fps, help="pictures a second (%(default)s)"
    )
    parser.add_argument(
        "--height", type=Whole(1, SIDE), default=usual.height, help="pixels, a multiple of 16 (%(default)s)"
    )
    parser.add_argument(
        "--width", type=Whole(1, SIDE), default=usual.width, help="pixels, a multiple of 16 (%(default)s)"
    )


def grid_of(args: Any) -> Grid:
    try:
        return Grid(frames=args.frames, fps=args.fps, height=args.height, width=args.width)
    except ValueError as error:
        raise UsageError(str(error).replace("grid.", "--")) from error


def testset(argv: list[str]) -> int:
    parser = Parser(
        "testset",
        "Write the talking world's test set, 100 portraits and 100 figures that share their sound: easy.jsonl and "
        "hard.jsonl with first pictures, sounds and true clips beside them.",
        "ccl testset -o evaluation/testset/world",
    )
    parser.add_argument("-o", "--out", type=folder_to_write, required=True, help="a folder")
    parser.add_argument("--no-clips", action="store_true", help="without the true clips, the references of scores")
    add_seed(parser, "the world")
    add_grid(parser)
    args = parser.parse(argv)
    grid = grid_of(args)
    from ccl.data.world.testset import write_testset
    from ccl.files import one_writer, sweep

    with one_writer(args.out):
        for folder in (args.out, *(args.out / kind for kind in ("images", "audio", "clips"))):
            sweep(folder)
        for manifest in write_testset(args.out, seed=args.seed, grid=grid, clips=not args.no_clips):
            say(manifest)
    return 0


def codec_fit(argv: list[str]) -> int:
    parser = Parser(
        "codec fit",
        "Fit the bases of the embedded codecs to clips of the world's training split.",
        "ccl codec fit -o basis.safetensors --clips 400",
        "ccl codec fit -o better.safetensors --keep-basis basis.safetensors",
    )
    parser.add_argument("-o", "--out", type=file_to_write, required=True, help="a .safetensors file, at most 1 MB")
    parser.add_argument("--clips", type=Whole(), default=400, help="of the training split (%(default)s)")
    add_seed(parser, "the world")
    parser.add_argument(
        "--video-channels", type=Whole(1, 768), default=16, help="numbers a block of 4 x 8 x 8 pixels (%(default)s)"
    )
    parser.add_argument(
        "--audio-channels", type=Whole(1, 1024), default=40, help="numbers a pair of mel frames (%(default)s)"
    )
    parser.add_argument(
        "--keep-basis",
        type=path_of,
        help="take this file's bases, so that its latents stay good; fit corrections alone",
    )
    args = parser.parse(argv)
    from ccl.codecs.fit import fit
    from ccl.data.world import World

    world = World(seed=args.seed, split="train")
    clips = (world.clip(index) for index in range(args.clips))
    channels = {"video_channels": args.video_channels, "audio_channels": args.audio_channels}
    say(fit(args.out, clips, **channels, keep_basis=args.keep_basis))
    return 0


def generate(argv: list[str]) -> int:
    parser = Parser(
        "generate",
        "Make clips: from a prompt; with --image and --last-image, its first and last picture; with --audio (a2v) or "
        "--video (v2a), the other stream; with --continue, what comes after a clip, with --precede, what comes before; "
        "with --seconds, longer ones; with --only, one stream alone. Spoken words stand in double quotes.",
        """ccl generate --prompt 'a woman with red hair says "good morning"' -o out.mp4""",
        "ccl generate --ckpt runs/joint/checkpoints/last.ckpt --prompts prompts.jsonl -o out",
        """ccl generate --prompt 'a man speaks' --audio voice.wav --guidance ucg3 --scale 4 3 -o a2v.mp4""",
        """ccl generate --prompt 'a man says "good night"' --continue out.mp4 --seconds 12 -o longer.mp4""",
        "torchrun --nproc-per-node 8 --no-python ccl generate --prompts rows.jsonl -o out --dtype bfloat16 --offload",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", type=text_of, help="one for both streams")
    parser.add_argument(
        "--then",
        type=text_of,
        action="append",
        default=[],
        metavar="PROMPT",
        help="that of the next window, once for each one of a longer clip (--prompt for all)",
    )
    what.add_argument(
        "--prompts",
        type=path_of,
        help='a JSONL file, a row a clip: {"id", "prompt", "then" (a list), "image", "last_image", "audio", "video", '
        '"seed", "prefix" (as --continue), "suffix" (as --precede), ...}',
    )
    parser.add_argument("-o", "--out", type=path_of, required=True, help="a file for --prompt, a folder for --prompts")
    add_ckpt(parser)
    add_trust(parser)
    add_loras(parser, "put this LoRA on the model")
    parser.add_argument("--image", type=path_of, help="first picture")
    parser.add_argument("--last-image", type=path_of, help="last picture")
    parser.add_argument("--continue", dest="prefix", type=path_of, metavar="CLIP", help="go on from the end of it")
    parser.add_argument("--precede", dest="suffix", type=path_of, metavar="CLIP", help="lead to the beginning of it")
    parser.add_argument("--voice", type=path_of, help="a sound of whoever is to speak, for its voice alone")
    parser.add_argument("--audio", type=path_of, help="given sound: pictures are made for it")
    parser.add_argument("--video", type=path_of, help="given pictures: sound is made for them")
    parser.add_argument(
        "--give",
        nargs="+",
        choices=("text", *MEDIA),
        help="for --prompts: give these of the rows' media alone, `text` none of them (all that a row names)",
    )
    parser.add_argument("--only", choices=("audio", "video"), help="make this stream alone")
    parser.add_argument(
        "--seconds",
        type=Number(0, 600, above=True),
        help="of the clip, window after window, what --continue or --precede gives included (one window)",
    )
    parser.add_argument(
        "--overlap",
        type=Number(0, 600, above=True),
        help="seconds that windows share (as trained, or 1)",
    )
    parser.add_argument("--task", type=text_of, help="one that the model was trained on, by its name (what suits)")
    parser.add_argument("--negative", type=any_text, default="", help="prompt to lead away from")
    parser.add_argument("--negative-audio", type=any_text, help="the sound's own such prompt (that of --negative)")
    add_guidance(parser)
    parser.add_argument("--steps", type=STEPS, help="of the solver (the model's)")
    parser.add_argument("--shift", type=SHIFT, help="moves its times towards noise; 1 leaves them even (the model's)")
    parser.add_argument(
        "--step-cache",
        type=Number(0, 1),
        default=0.0,
        metavar="BOUND",
        help="take a step's predictions again until the clip has moved by that part of its size (%(default)s: never)",
    )
    add_seed(parser)
    parser.add_argument("--batch-size", type=Whole(), default=8, help="clips made together (%(default)s)")
    add_device(parser)
    add_dtype(parser)
    add_offload(parser)
    parser.add_argument(
        "--context",
        type=Whole(1, 64),
        default=1,
        metavar="N",
        help="under torchrun: N processes make each clip together, its video tokens split over them (%(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="for --prompts: make finished clips anew")
    args = parser.parse(argv)
    if args.context > 1 and args.step_cache:
        parser.error("--step-cache decides by each process's own clip, which --context shares; leave one of them out")
    given: dict[str, Any] = {name: str(path) for name in MEDIA if (path := getattr(args, name))}
    if args.prompts and args.then:
        parser.error('--then goes with --prompt; rows of --prompts have their own, as "then": ["...", "..."]')
    if args.prompts and given:
        parser.error(f"{FLAGS[next(iter(given))]} goes with --prompt; rows of --prompts name their own media")
    files = given | ({"prompts": args.prompts} if args.prompts else {})
    for name, path in files.items():
        if not is_file(Path(path)):
            parser.error(f"there is no {FLAGS.get(name, '--prompts')} file {path}")
    out = args.out
    if args.prompt is not None:
        for flag, text in [("--prompt", args.prompt), *(("--then", text) for text in args.then)]:
            try:
                check_prompt(text)
            except ValueError as error:
                parser.error(f"{flag} {str(error).removeprefix('its prompt ')}")
        if out.name in ("", "..") or (out.suffix and is_dir(out)):
            parser.error(f"-o is {out}, a folder; a clip is a file")
        out = out if out.suffix else out.with_suffix(".wav" if args.only == "audio" else ".mp4")
        if out.suffix != ".mp4" and (out.suffix, args.only) != (".wav", "audio"):
            parser.error(f"-o is {out}; a clip is an .mp4, or with --only audio a .wav")
    elif out.exists() and not out.is_dir():
        parser.error(f"-o is {out}, a file; --prompts needs a folder")
    check_guidance(args.guidance)
    if args.ckpt is not None:
        check_there(args.ckpt)
    from ccl.cli.parts import device_of, guidance_of, pipeline_of, share_of, sharing
    from ccl.files import writable
    from ccl.generation.generate import generate_file, generate_files
    from ccl.rows import Row, read_rows
    from ccl.types import AV

    rule = guidance_of(args.guidance, args.scale, args.modal)
    rows = read_rows(args.prompts, give=args.give) if args.prompts else []
    share, device = share_of(device_of(args.device))
    if args.prompt is not None and args.context > 1 and share[1] > args.context:
        parser.error(
            f"one clip is made by {args.context} processes, and there are {share[1]}; --prompts has work for all"
        )
    if args.prompt is not None and args.context == 1 and share[0]:
        return 0  # one clip is one process's work
    loaded: dict[str, Any] = {"dtype": args.dtype, "offload": args.offload, "step_cache": args.step_cache}
    pipe = pipeline_of(args, device, **loaded)
    wanted = AV(args.only != "audio", args.only != "video")
    settings: dict[str, Any] = {"wanted": wanted, "guidance": rule(pipe.guidance), "task": args.task}
    settings |= {"steps": args.steps, "shift": args.shift, "seconds": args.seconds, "overlap": args.overlap}
    notes: Counter[str] = Counter()
    writable(out.parent if args.prompt is not None else out)  # told before the work
    with (
        sharing(pipe.net, args.context, share) as (part, writes),
        bar("generating") if share[0] == 0 else nullcontext() as progress,
    ):
        if args.prompt is not None:
            texts = {"prompt": args.prompt, "then": args.then, "negative": args.negative}
            texts["negative_audio"] = args.negative_audio
            row = Row(out.stem, **texts, seed=args.seed, **given)
            clip = generate_file(pipe, row, out, progress=progress, writes=writes, **settings)
            notes.update(clip.meta.get("notes", ()) if writes else ())
        else:
            order: dict[str, Any] = {"batch_size": args.batch_size, "seed": args.seed, "resume": not args.overwrite}
            order |= {"share": part, "writes": writes}
            order["made"] = lambda clip: notes.update(clip.meta.get("notes", ()))
            generate_files(pipe, rows, out, **order, progress=progress, **settings)
    for note, count in notes.most_common(NOTES):
        sys.stderr.write(f"note{f', of {count} clips' if count > 1 else ''}: {note}\n")
    if len(notes) > NOTES:
        sys.stderr.write(f"note: {len(notes) - NOTES} more stand in the records beside the clips\n")
    if share[0] == 0:
        say(out)
    return 0


def check_there(ckpt: Path | str) -> None:
    """ValueError where there is no such model, run or checkpoint here; a name of the hub, a text, is asked of it."""
    if isinstance(ckpt, Path) and not (is_file(ckpt) or is_dir(ckpt)):
        raise ValueError(f"there is no checkpoint {ckpt}")


def export(argv: list[str]) -> int:
    parser = Parser(
        "export",
        "Turn a run, or one checkpoint of it, into a model folder (config.yaml and the averaged weights), with LoRAs "
        "in them where --lora names some; or write its video stream, or its adapters alone, as others read them.",
        "ccl export runs/joint -o models/joint",
        "ccl export runs/joint/checkpoints/step=000500.ckpt -o models/joint-500 --dtype float32",
        "ccl export models/joint -o wan --format diffusers",
        "ccl export models/joint -o wan.safetensors --format safetensors",
        "ccl export runs/voice -o voice --format peft",
        "ccl export models/joint -o models/both --lora voice --lora style.safetensors=0.6",
    )
    parser.add_argument(
        "run",
        type=model_of,
        help="a run folder, for its last checkpoint, a .ckpt in one, a model folder, or OWNER/NAME[@REVISION] of the "
        "hub",
    )
    parser.add_argument(
        "-o", "--out", type=path_of, required=True, help="the folder; a file for --format safetensors and comfyui"
    )
    parser.add_argument(
        "--format",
        choices=("model", "diffusers", "safetensors", "peft", "comfyui"),
        default="model",
        help="model: what ccl reads, both streams; diffusers: the video stream as a WanTransformer3DModel; "
        "safetensors: the same in one file, in Wan2.1's own names; neither holds the interaction; of a run with "
        "adapters, peft: a LoRA with all that it trained; comfyui: a LoRA of its video stream (%(default)s)",
    )
    add_loras(parser, "add this LoRA to the weights")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="(%(default)s)")
    add_trust(parser)
    args = parser.parse(argv)
    if args.loras and args.format in ("peft", "comfyui"):
        parser.error(f"--lora goes into weights, and --format {args.format} writes the run's own adapters alone")
    check_there(args.run)
    import torch

    from ccl.storage.model_folder import export as write
    from ccl.storage.model_folder import export_lora, export_video

    dtype, notes = getattr(torch, args.dtype), []
    if args.format == "model":
        notes = write(args.run, args.out, dtype=dtype, trust=args.trust, loras=args.loras)
    elif args.format in ("diffusers", "safetensors"):
        notes = export_video(args.run, args.out, layout=args.format, dtype=dtype, loras=args.loras)
    elif left := export_lora(args.run, args.out, layout=args.format, dtype=dtype):
        notes = [f"{args.out} holds the video stream's adapters alone; {left} of the run are not in it (--format peft)"]
    for note in notes:
        sys.stderr.write(f"note: {printable(note)}\n")
    say(args.out)
    return 0
