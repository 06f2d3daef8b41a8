"""`ccl shards make`, `world`, `encode`, `verify`: own videos, or the world, to shards of clips, and those to latents.

The work lives in ccl.data; networks that it must not know of (who speaks, what is said) are handed to it from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ccl.cli.errors import UsageError
from ccl.cli.named import part_named
from ccl.cli.parser import SEED, WORKERS, Number, Parser, Whole, folder_to_write, path_of, text_of
from ccl.cli.verbs import add_grid, grid_of, say


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
    parser.add_argument(
        "--buckets",
        type=text_of,
        nargs="+",
        metavar="FRAMESxHEIGHTxWIDTH",
        help="several lengths and sizes: a clip goes into the bucket nearest in shape, the longest that it fills",
    )
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
        from ccl.data.buckets import parse_buckets

        try:
            grid = parse_buckets(args.buckets, grid)
        except ValueError as error:
            raise UsageError(f"--buckets: {error}") from error
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
    folder = parser.parse(argv).shards
    from ccl.data.verify import shards_verify

    faults = [fault for _, fault in shards_verify(folder)]
    damaged = [fault for fault in faults if fault]
    for fault in damaged:
        say(fault)
    say(f"{folder}: {len(faults) - len(damaged)} of {len(faults)} shards are whole")
    return 1 if damaged else 0
