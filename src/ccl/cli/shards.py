"""`ccl shards caption`, `make`, `world`, `encode`, `verify`: own videos, or the world, to shards, and those to latents.

The work lives in ccl.data; networks that it must not know of (who speaks, what is said) are handed to it from here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ccl.cli.as_json import add_json, say_json
from ccl.cli.errors import UsageError
from ccl.cli.named import part_named
from ccl.cli.parser import SEED, WORKERS, Number, Parser, Whole, file_to_write, folder_to_write, path_of, text_of
from ccl.cli.verbs import add_grid, grid_of, say
from ccl.grid import Grid
from ccl.spelling import counted


def make(argv: list[str]) -> int:
    parser = Parser(
        "shards make",
        "Write WebDataset shards from a folder of own videos: brought to one rate, size and length, mono.",
        "ccl shards make videos -o data/mine --captions videos/captions.csv",
        "ccl shards make videos -o data/paper --frames 81 --fps 16 --height 352 --width 640 --workers 8",
        "ccl shards make videos -o data/mine --filters silent cuts --speech 0.2 --transcribe large-v3",
        "ccl shards make videos -o data/several --fps 16 --buckets 81x352x640 81x640x352 49x352x640",
        "ccl shards make videos -o data/mixed --mixed --filters silent",
    )
    parser.add_argument("folder", type=path_of, help="searched with all folders in it")
    parser.add_argument(
        "-o", "--out", type=folder_to_write, required=True, help="folder of the shards and their index.json"
    )
    parser.add_argument(
        "--captions",
        type=path_of,
        help=".csv or .jsonl with `file`, `prompt`, perhaps `voice` and `mute`; without it, NAME.txt beside NAME.mp4",
    )
    parser.add_argument(
        "--transcribe",
        type=text_of,
        metavar="MODEL",
        help="clips without a caption get what Whisper of this size or file hears as their prompt, in double quotes",
    )
    parser.add_argument(
        "--empty-prompts",
        action="store_true",
        help="keep clips that have no caption, with an empty prompt; else they are skipped",
    )
    parser.add_argument("--language", type=text_of, default="en", help="that is spoken, for --transcribe (%(default)s)")
    parser.add_argument(
        "--filters", nargs="+", choices=("silent", "cuts"), default=[], help="leave out clips in which nothing is "
        "heard, or that cut to another scene; what is too short or corrupt is left out in any case, and what is mute "
        "without --mixed",
    )  # fmt: skip
    parser.add_argument(
        "--speech", type=Number(0, 1), metavar="SHARE", help="of the sound that must be speech (silero-vad)"
    )
    parser.add_argument("--lips", type=Number(), metavar="SYNC_C", help="SyncNet's confidence that a clip must have")
    parser.add_argument(
        "--faces",
        nargs="?",
        const="yunet",
        type=text_of,
        metavar="FILE",
        help="write down where faces are, from which UniAVGen's mask learns: by YuNet, of this file or fetched",
    )
    parser.add_argument("--device", type=text_of, default="cpu", help="of --transcribe and --lips (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="fail on the first clip that cannot be used")
    parser.add_argument("--shard-size", type=Whole(), default=256, help="clips a tar file (%(default)s)")
    parser.add_argument("--workers", type=Whole(0, WORKERS.most), default=0, help="processes; 0 works in this one")
    add_buckets(parser)
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--only", choices=("audio",), help="sound alone, of videos and files of sound, for stage 1")
    alone.add_argument(
        "--mixed",
        action="store_true",
        help="keep clips without sound, also by `mute` in the captions or by the filter `silent`, which train pictures "
        "alone, and files of sound, which train sound alone",
    )
    parser.add_argument(
        "--sample-rate", type=Whole(1, 768_000), default=16_000, help="Hz that the audio codec takes (%(default)s)"
    )
    add_grid(parser)
    args = parser.parse(argv)
    grid: Any = replace(grid_of(args), sample_rate=args.sample_rate)
    if args.buckets:
        grid = buckets_of(args.buckets, grid)
    from ccl.data.filters import Cuts, Filter, Silent
    from ccl.data.write import shards_make

    kinds: dict[str, Filter] = {"silent": Silent(), "cuts": Cuts()}
    filters = [kinds[name] for name in dict.fromkeys(args.filters)]
    listener = faces = None
    if any(one is not None for one in (args.speech, args.lips, args.transcribe, args.faces)):
        from ccl.cli import listen

        if args.speech is not None:
            filters.append(listen.speech(args.speech))
        if args.lips is not None:
            filters.append(listen.lips(args.lips, args.device))
        if args.transcribe is not None:
            listener = listen.Whisper(args.transcribe, args.language, args.device)
        if args.faces is not None:
            faces = listen.YuNet(None if args.faces == "yunet" else args.faces)
    how: dict[str, Any] = {"strict": args.strict, "shard_size": args.shard_size, "workers": args.workers}
    how |= {"sound": args.only == "audio", "mixed": args.mixed, "empty_prompts": args.empty_prompts}
    how |= {"listener": listener, "faces": faces}
    made = shards_make(args.folder, args.out, captions=args.captions, grid=grid, filters=filters, **how)
    say(made)
    if not (args.mixed or args.only) and {"no audio", "no video"} & made.removed.keys():
        say("  with --mixed, clips without sound train pictures alone, and sound without pictures sound alone")
    return 0


def add_buckets(parser: Parser) -> None:
    parser.add_argument(
        "--buckets",
        type=text_of,
        nargs="+",
        metavar="FRAMESxHEIGHTxWIDTH",
        help="several lengths and sizes: a clip goes into the bucket nearest in shape, the longest that it fills",
    )


def buckets_of(texts: list[str], usual: Grid) -> list[Grid]:
    """The grids that `--buckets` names."""
    from ccl.data.buckets import parse_buckets

    try:
        return parse_buckets(texts, usual)
    except ValueError as error:
        raise UsageError(f"--buckets: {error}") from error


def caption(argv: list[str]) -> int:
    parser = Parser(
        "shards caption",
        "Describe the clips of a folder, with what is said in them in double quotes, in a table that `ccl shards make "
        "--captions` reads. A run that was stopped goes on with the clips that have no caption. Length and size are "
        "those that `shards make` will be given, so that what is described is what is trained on. Exit 1 where a clip "
        "could not be described.",
        "ccl shards caption videos --captioner mine:describe --transcribe large-v3-turbo",
        "ccl shards caption videos --captioner hf:models/captioner --pictures 8 --device cuda --frames 81 --fps 16 "
        "--height 352 --width 640",
        "ccl shards make videos -o data/mine --captions videos/captions.jsonl",
    )
    parser.add_argument("folder", type=path_of, help="searched with all folders in it")
    parser.add_argument(
        "-o",
        "--out",
        type=file_to_write,
        help="the table, a .jsonl, gone on with where it is there (FOLDER/captions.jsonl)",
    )
    parser.add_argument(
        "--captioner",
        type=text_of,
        required=True,
        metavar="WHO",
        help="module:callable of your own, which takes a clip (.video, .audio, .fps, .sample_rate, .id) and returns "
        "text; or hf:MODEL, a folder or a name on the Hub, which transformers runs as image-text-to-text",
    )
    parser.add_argument(
        "--transcribe",
        type=text_of,
        default="large-v3",
        metavar="MODEL",
        help="size of Whisper, or a file of its weights, that hears what is said; none leaves quotes to the captioner "
        "(%(default)s)",
    )
    parser.add_argument("--language", type=text_of, default="en", help="that is spoken (%(default)s)")
    parser.add_argument(
        "--pictures", type=Whole(1, 1000), help="of a clip that hf:MODEL is shown (4, or 1 where it takes no chat)"
    )
    parser.add_argument(
        "--question", type=text_of, help="that hf:MODEL is asked; where it takes no chat, how its caption begins"
    )
    parser.add_argument("--device", type=text_of, default="cpu", help="of both models (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="describe clips anew that have a caption")
    add_buckets(parser)
    add_grid(parser)
    args = parser.parse(argv)
    grids = buckets_of(args.buckets, grid_of(args)) if args.buckets else [grid_of(args)]
    out = args.out or args.folder / "captions.jsonl"
    if out.suffix != ".jsonl":
        parser.error(f"-o is {out}; the name must end in .jsonl")
    model = args.captioner.removeprefix("hf:")
    name = args.captioner.replace(":", ".", 1) if model == args.captioner else ""  # of what is the user's own
    if not name and not model:
        parser.error("--captioner is hf: without a model")
    if name and "." not in name:
        parser.error(f"--captioner is {name}; it must be module:callable, or hf:MODEL")
    if name and (args.pictures or args.question):
        parser.error("--pictures and --question are for hf:MODEL; a callable is given the whole clip")
    from ccl.cli.own import reachable
    from ccl.data.captioning import write_captions
    from ccl.data.sources import media_files
    from ccl.progress import bar

    media_files(args.folder)  # told before anything large is imported
    with reachable([], also=[(name, "--captioner")] if name else []):
        from ccl.cli import captioners

        hear = None if args.transcribe == "none" else captioners.hearing(args.transcribe, args.language, args.device)
        hugging = partial(captioners.Hugging, model, args.device, args.pictures, args.question)
        begin = partial(captioners.together, partial(captioners.own, name) if name else hugging, hear)
        with bar(f"captions of {args.folder.name}") as progress:
            how: dict[str, Any] = {"grids": grids, "overwrite": args.overwrite, "progress": progress}
            made = write_captions(args.folder, out, begin, **how)
    say(made)
    return 1 if made.failed else 0


def world(argv: list[str]) -> int:
    parser = Parser(
        "shards world",
        "Write shards of the embedded talking world, by the writer that `ccl shards make` uses.",
        "ccl shards world -o data/world-test --split test --clips 200",
        "ccl shards world -o data/mine --clips 4000 --seed 1 --workers 2",
    )
    parser.add_argument(
        "-o", "--out", type=folder_to_write, required=True, help="folder of the shards and their index.json"
    )
    parser.add_argument("--clips", type=Whole(), default=1024, help="how many (%(default)s)")
    parser.add_argument("--start", type=Whole(0), default=0, help="index of the first (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="another seed, another world (%(default)s)")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="the test split has 200 clips")
    parser.add_argument("--shard-size", type=Whole(), default=256, help="clips a tar file (%(default)s)")
    parser.add_argument(
        "--workers", type=Whole(0, WORKERS.most), default=2, help="processes; 0 works in this one (%(default)s)"
    )
    add_grid(parser)
    args = parser.parse(argv)
    grid = grid_of(args)
    from ccl.data.make import shards_world

    report = shards_world(
        args.out,
        clips=args.clips,
        start=args.start,
        seed=args.seed,
        split=args.split,
        grid=grid,
        shard_size=args.shard_size,
        workers=args.workers,
    )
    say(report)
    return 0


def encode(argv: list[str]) -> int:
    parser = Parser(
        "shards encode",
        "Encode the clips and prompts of shards once, so that training needs neither codecs nor text encoder. A run "
        "that was stopped goes on with the shards it lacks. Without any part: the embedded codecs.",
        "ccl shards encode data/mine -o data/mine-latents",
        "ccl shards encode data/paper -o data/latents --config configs/joint.yaml --config configs/model/wan14b.yaml "
        "--device cuda --workers 8",
        "ccl shards encode data/paper -o data/latents --video-codec 'WanVideo {path: wan2.1-t2v-1.3b}' "
        "--audio-codec 'MMAudio {variant: 16k, vae: mmaudio-v1-16, vocoder: mmaudio-best-netg}' "
        "--text 'UMT5 {path: wan2.1-t2v-1.3b}'",
    )
    part = "a class and its arguments, or a YAML file with class_path and init_args"
    parser.add_argument("shards", type=path_of, help="a folder of media shards, or of buckets")
    parser.add_argument("-o", "--out", type=folder_to_write, required=True, help="folder of the latents")
    parser.add_argument(
        "--config", type=path_of, action="append", help="config of `ccl fit`, for its parts; may repeat"
    )
    parser.add_argument("--video-codec", type=text_of, metavar="CODEC", help=part)
    parser.add_argument("--audio-codec", type=text_of, metavar="CODEC", help="the same")
    parser.add_argument(
        "--text", type=text_of, metavar="ENCODER", help="the same, of a text encoder that does not train"
    )
    parser.add_argument("--no-text", action="store_true", help="leave prompts to training, whatever --config says")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of what is stored (%(default)s)",
    )
    parser.add_argument("--batch-size", type=Whole(), default=8, help="clips encoded together (%(default)s)")
    parser.add_argument(
        "--device",
        type=text_of,
        nargs="+",
        default=["cpu"],
        help="a worker for each: cuda:0 cuda:1; with --workers, `cuda` counts up",
    )
    parser.add_argument("--workers", type=WORKERS, help="processes, each with its own shards (one for each --device)")
    parser.add_argument(
        "--engine", choices=("processes", "ray"), default="processes", help="ray: on the cluster of RAY_ADDRESS"
    )
    args = parser.parse(argv)
    from ccl.data.index import settings_of

    words = {"video-codec": args.video_codec, "audio-codec": args.audio_codec, "text": args.text}
    given = {flag: part_named(text, f"--{flag}") for flag, text in words.items() if text is not None}
    settings_of(args.shards)  # told, as names of parts are, before anything large is imported
    from ccl.cli.encoders import devices_of, encoders
    from ccl.cli.own import check, reachable
    from ccl.data.make import shards_encode

    with reachable(args.config or [], argv):
        for flag, node in given.items():
            if isinstance(name := node.get("class_path"), str) and "." in name:
                check(name, None, f"--{flag}")
        codec, text, grid = encoders(args.config or [], given, args.shards)
        if args.no_text:
            text = None
        devices = devices_of(args.device, args.workers, here=args.engine == "processes")
        how: dict[str, Any] = {"dtype": args.dtype, "batch_size": args.batch_size, "engine": args.engine}
        say(shards_encode(args.shards, args.out, codec=codec, grid=grid, text=text, devices=devices, **how))
    return 0


def verify(argv: list[str]) -> int:
    parser = Parser(
        "shards verify",
        "Read shards whole: sizes, sums, counts and every clip's checksum; exit 1 where one is damaged. Training "
        "compares sizes, counts and the clips' checksums as it reads, encoding the sums too.",
        "ccl shards verify data/latents",
    )
    parser.add_argument("shards", type=path_of, help="a folder of shards, or of buckets")
    add_json(parser)
    args = parser.parse(argv)
    folder = args.shards
    from ccl.data.verify import shards_verify

    faults = dict(shards_verify(folder))
    damaged = {shard: fault for shard, fault in faults.items() if fault}
    if args.json:
        say_json({"folder": str(folder), "shards": len(faults), "damaged": damaged})
        return 1 if damaged else 0
    for fault in damaged.values():
        say(fault)
    say(f"{folder}: {len(faults) - len(damaged)} of {counted(len(faults), 'shard')} whole")
    return 1 if damaged else 0
