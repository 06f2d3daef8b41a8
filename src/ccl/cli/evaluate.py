"""`ccl evaluate`: a checkpoint's clips, or any folders of clips, to scores, tables and a report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ccl
from ccl.cli.errors import UsageError
from ccl.cli.machine import best_device
from ccl.cli.metrics import metrics_of, names_of
from ccl.cli.parser import (
    SEED,
    SHIFT,
    STEPS,
    Number,
    Parser,
    Whole,
    add_device,
    add_loras,
    add_offload,
    add_trust,
    folder_to_write,
    model_of,
    path_of,
    text_of,
)
from ccl.cli.protocols import Protocol, protocols_of, shipped
from ccl.cli.rules import add_guidance, check_guidance
from ccl.cli.testsets import (
    MOST,
    PAPER,
    WORLD,
    ShardSet,
    TestSet,
    about,
    is_embedded,
    own_shards,
    published,
    testset_of,
)
from ccl.cli.verbs import check_there
from ccl.files import sha256
from ccl.progress import bar
from ccl.spelling import counted

SHIPPED = Path(ccl.__file__).parent / "checkpoints" / "embedded"
SCORES = Path("scores")
# What belongs to clips that --ckpt makes; --lora's value has a name of its own.
MAKING = ("name", "lora", "guidance", "scale", "modal", "steps", "shift", "task", "give", "prompts", "dtype", "offload")
PROTOCOLS = "protocols"  # the folder, in that of the results, of each of several protocols' scores

if TYPE_CHECKING:
    from ccl.evaluation.metrics import Metric
    from ccl.evaluation.tables.results import Results
    from ccl.rows import Row


def evaluate(argv: list[str]) -> int:
    args = parse(argv)
    methods_of(args)  # told before anything large is imported
    protocols = protocols_of(args.protocol)
    names_of(args, protocols)
    if args.ckpt:
        check_there(args.ckpt)
    from ccl.cli.own import reachable
    from ccl.weights import catalogue as weights

    with weights.named_files():
        for pair in args.weights:
            name, sign, file = pair.partition("=")
            if not (name and sign and file):
                raise UsageError(f"--weights is {pair}; it must be NAME=FILE")
            try:
                weights.use(name, file)
            except ValueError as error:
                raise UsageError(f"--weights {pair}: {error}") from error
        files = [protocol.file for protocol in protocols if protocol.file]
        with reachable(files):  # until the end: a metric may import when it runs
            run(args, protocols)
    return 0


def run(args: Namespace, protocols: Sequence[Protocol]) -> None:
    """Make the clips where a checkpoint is given, score them, write and show."""
    from rich.console import Console

    from ccl.evaluation import CEILING
    from ccl.evaluation.controls import controlled, cost
    from ccl.evaluation.film import Looked
    from ccl.evaluation.report import page as report
    from ccl.evaluation.score import ELSEWHERE
    from ccl.evaluation.tables import table
    from ccl.evaluation.tables.results import joined
    from ccl.files import one_writer, sweep

    methods = methods_of(args)
    testset = chosen_testset(args, methods)
    rows = limited(testset.rows() if testset else rows_of(list(methods.values())), args.limit)
    # What is wrong with the command line is told before the work.
    every = protocols or [Protocol(PAPER)]
    metrics = {p: metrics_of(args, rows, isinstance(testset, ShardSet), p, beside=protocols) for p in every}
    made: list[Row] = []
    if args.ckpt:
        assert testset is not None
        made = rows_to_make(args, testset)
    out = out_of(args, methods, testset.name if testset else "")
    if args.ckpt:
        methods = {args.name or called(args.ckpt): out / "clips"}
    places = {p: out / PROTOCOLS / p.name if len(every) > 1 else out for p in every}
    if CEILING in methods:
        raise UsageError(f"no system can be called '{CEILING}': that is what tables call true clips, --reference DIR")
    truth = CEILING if args.reference else None
    beside = published() if args.published or (testset is not None and testset.name == PAPER) else None
    console = Console()
    if testset and not args.testset:
        console.print(testset.sentence, markup=False, highlight=False, soft_wrap=True)
    with one_writer(out, ELSEWHERE):
        for folder in (out / "clips", out / "true"):
            sweep(folder)  # of what a kill left half-written
        if testset:
            testset.prepare()
        if args.ckpt:
            generate(args, made, out / "clips")
        if args.reference:
            methods[CEILING] = args.reference
        looked: Looked = {}  # faces and motion, which protocols and controls look for in the same pictures
        with bar("scoring") as progress:
            how = {"about": about_of(args, testset, len(rows)), "progress": progress, "looked": looked}
            found = scored(methods, rows, metrics, places, reference=truth, **how)
        for protocol, one in found.items() if args.controls else ():
            console.print(cost(one, metrics[protocol]), markup=False, highlight=False, soft_wrap=True)
            with bar("controls") as progress:
                found[protocol] = controlled(one, metrics[protocol], places[protocol], progress=progress, looked=looked)
        for protocol, one in found.items() if len(found) > 1 else ():
            table.write(one, places[protocol])
        results = joined({protocol.name: one for protocol, one in found.items()})
        table.write(results, out, published=beside)
        with bar("looking at clips for the page") as progress:
            report.write(results, out / "report.html", limit_mb=args.embed_mb, published=beside, progress=progress)
    table.show(results, console, published=beside)
    for file in (out / "table.md", out / "report.html", *(place / "scores.jsonl" for place in places.values())):
        console.print(str(file), highlight=False, soft_wrap=True, markup=False)


def scored(
    methods: Mapping[str, Path],
    rows: Sequence[Row],
    metrics: Mapping[Protocol, Sequence[Metric]],
    places: Mapping[Protocol, Path],
    *,
    reference: str | None,
    **how: Any,
) -> dict[Protocol, Results]:
    """The scores by each protocol, in its folder; where there are several, methods are named after them too."""
    from dataclasses import replace

    from ccl.evaluation import score
    from ccl.evaluation.tables.results import PROTOCOL, under

    found = {}
    for protocol, asked in metrics.items():

        def named(method: str, protocol: Protocol = protocol) -> str:
            return under(method, protocol.name) if len(metrics) > 1 else method

        names = {named(method): folder for method, folder in methods.items()}
        true = named(reference) if reference else None
        one = score(names, rows, asked, places[protocol], reference=true, **how)
        lacks = protocol.lacks([metric.name for metric in asked if metric.name not in one.missing])
        by = dict.fromkeys(names, protocol.name) if len(metrics) > 1 else {}
        found[protocol] = replace(one, about={**one.about, PROTOCOL: protocol.name}, lacks=lacks, protocols=by)
    return found


def parse(argv: list[str]) -> Namespace:
    parser = Parser(
        "evaluate",
        "Score clips, whatever made them: those of a checkpoint, which are made first, or folders of any system's "
        "mp4s. Writes scores.jsonl, table.md, .csv, .tex, report.html and, for a script, results.json; a second run "
        "computes what is missing.",
        "ccl evaluate --ckpt runs/joint",
        "ccl evaluate --videos out/mine --testset paper",
        "ccl evaluate --methods ovi=clips/ovi --methods mova=clips/mova --testset paper --metrics wer sync -o scores",
        "ccl evaluate --videos clips --whisper tiny.en --weights yunet=yunet.onnx",
        "ccl evaluate --videos clips --metrics sync --protocol mova --protocol joonson",
    )
    what = parser.add_argument_group("what is scored (one of the first three)")
    what.add_argument(
        "--ckpt",
        nargs="?",
        const=SHIPPED,
        type=model_of,
        help="make the test set's clips first, with this run, .ckpt, model folder or OWNER/NAME[@REVISION] of the "
        "hub; no value: what ships",
    )
    what.add_argument("--videos", type=path_of, help="a folder of clips, ID.mp4 for the rows of the test set")
    what.add_argument(
        "--methods",
        type=text_of,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=DIR",
        help="several systems in one table; repeatable",
    )
    what.add_argument(
        "--testset",
        type=text_of,
        help=f"{PAPER}, {WORLD}, a .jsonl file, a folder of them or of shards (with --ckpt the run's own validation "
        "shards, else what suits the model; without it all clips)",
    )
    what.add_argument("--reference", type=path_of, help="folder of true clips under the same names: ceiling, FVD")
    what.add_argument("--limit", type=Whole(), help="the first N rows of each subset alone")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--metrics",
        type=text_of,
        nargs="+",
        metavar="NAME",
        help="these alone, comma or space between (the usual ones that fit)",
    )
    how.add_argument(
        "--controls",
        action="store_true",
        help="score each clip again with another's sound, its own moved, one still picture, and silence: whether "
        "measures of sync see it on these clips",
    )
    how.add_argument(
        "--protocol",
        type=text_of,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help=f"whose conventions: {', '.join(shipped())}, or a YAML file as evaluation/protocol.yaml is (paper); "
        "repeatable, then each measures what it states, all in one table",
    )
    how.add_argument("--whisper", type=text_of, help="size of Whisper, or a file of its weights (large-v3)")
    how.add_argument(
        "--weights",
        type=text_of,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="take this file; `ccl weights list`",
    )
    how.add_argument("--precision", choices=("fp32", "bf16"), help="of the networks that have a choice (fp32)")
    add_device(how)
    how.add_argument("--batch-size", type=Whole(), help="clips a network takes together (the metric's own)")
    made = parser.add_argument_group("with --ckpt")
    add_trust(made)
    made.add_argument("--name", type=text_of, help="of the method in tables (that of the run)")
    add_loras(made, "put this LoRA on the model")
    add_guidance(made)
    made.add_argument("--steps", type=STEPS, help="of the solver (the model's)")
    made.add_argument("--shift", type=SHIFT, help="moves its times towards noise; 1 leaves them even (the model's)")
    made.add_argument("--task", type=text_of, help="one that the model was trained on, by its name (what suits)")
    made.add_argument("--seed", type=SEED, default=0, help="for rows without one of their own (%(default)s)")
    made.add_argument(
        "--give",
        nargs="+",
        choices=("text", "image", "audio", "video"),
        help=f"these of the rows' media (image for {PAPER}, else text alone)",
    )
    made.add_argument("--prompts", type=path_of, help="JSONL of id and prompt, in place of the test set's own")
    made.add_argument("--dtype", choices=("bfloat16", "float32"), help="of the network in memory (float32)")
    add_offload(made)
    result = parser.add_argument_group("results")
    result.add_argument(
        "-o",
        "--out",
        type=folder_to_write,
        help="folder of the results (VIDEOS/scores, RUN/evaluation/TESTSET; scores/OWNER/NAME/evaluation/TESTSET)",
    )
    result.add_argument("--published", action="store_true", help="the paper's numbers beside, whatever the test set")
    result.add_argument("--embed-mb", type=Number(0), default=100.0, help="of clips inside report.html (%(default)g)")
    args = parser.parse(argv)
    given = [flag for flag in ("ckpt", "videos", "methods") if getattr(args, flag)]
    if not given:
        parser.error("nothing to score: give --ckpt RUN, --videos DIR, or --methods NAME=DIR")
    if args.ckpt and len(given) > 1:
        parser.error(f"--ckpt makes clips and --{given[1]} scores those that are there; run them one after the other")
    for flag in (*MAKING, "trust"):
        if getattr(args, "loras" if flag == "lora" else flag) and not args.ckpt:
            parser.error(f"--{flag} is for the clips that --ckpt makes")
    check_guidance(args.guidance)
    if args.reference and not args.reference.is_dir():
        raise UsageError(f"there is no --reference folder {args.reference}")
    return args


def methods_of(args: Namespace) -> dict[str, Path]:
    """Folders by the name of their system. UsageError where one is not there or a name comes twice."""
    return folders_of(args.methods, [(args.videos.resolve().name, args.videos)] if args.videos else [])


def folders_of(methods: Sequence[str], before: Sequence[tuple[str, Path]] = ()) -> dict[str, Path]:
    """Folders by name, of those before and of `NAME=DIR`. UsageError where one is not there or a name comes twice."""
    pairs = list(before)
    for pair in methods:
        # A name and a folder may hold "=" themselves: the first at which a folder begins.
        places = [place for place, sign in enumerate(pair) if sign == "=" and place and pair[place + 1 :]]
        if not places:
            raise UsageError(f"--methods is {pair}; it must be NAME=DIR")
        place = next((place for place in places if Path(pair[place + 1 :]).is_dir()), places[0])
        pairs.append((pair[:place], Path(pair[place + 1 :])))
    found: dict[str, Path] = {}
    for name, path in pairs:
        if not path.is_dir():
            raise UsageError(f"there is no folder of clips {path}")
        if name in found:
            raise UsageError(f"two systems are called '{name}'; name them with --methods NAME=DIR")
        found[name] = path
    return found


def rows_of(folders: list[Path]) -> list[Row]:
    """Without a test set: a row for every clip of any of the folders."""
    from ccl.cli.parts import rows_of as rows_of_folder

    rows = {row.id: row for folder in folders for row in rows_of_folder(folder)}
    return list(rows.values())


def limited(rows: list[Row], limit: int | None) -> list[Row]:
    """The first rows of each subset."""
    if limit is None:
        return rows
    count: dict[str, int] = {}
    kept = []
    for row in rows:
        count[row.subset] = count.get(row.subset, 0) + 1
        if count[row.subset] <= limit:
            kept.append(row)
    return kept


def about_of(args: Namespace, testset: TestSet | None, rows: int) -> dict[str, str]:
    """What tables say of the scoring itself."""
    from ccl.cli.parts import device_of

    part = f", the first {args.limit} of each subset" if args.limit else ""
    said = f"{testset.said if testset else 'none, every clip of the folders'}{part}; {counted(rows, 'row')}"
    if args.prompts:
        said += f"; prompts of {args.prompts.name}, sha256 {sha256(args.prompts)[:16]}"
    return about(said, device_of(args.device) or best_device())


def chosen_testset(args: Namespace, methods: dict[str, Path]) -> TestSet | None:
    """The test set that was named; of a checkpoint without one what it was validated on, where that is its user's own.

    Else the world's where the model has the embedded codecs, whose training clips are the better test set where nothing
    was held out, and the paper's for every other.
    """
    from ccl.data.captions import is_shards

    folder, whose = Path(args.testset or ""), ""
    if args.testset:
        if not is_shards(folder):
            return testset_of(args.testset)
    elif not args.ckpt:
        return None
    else:
        config = config_of(args.ckpt)
        embedded = is_embedded(config)
        own = own_shards(config, trained_on=embedded)
        if own is None:
            return testset_of(WORLD if embedded else PAPER)
        folder, whose = own
    name = folder.resolve().name
    return ShardSet(name, (), folder, out_of(args, methods, name) / "true", args.limit or MOST, whose)


def out_of(args: Namespace, methods: dict[str, Path], testset: str) -> Path:
    """The folder of the results."""
    if args.out:
        return args.out
    if args.ckpt:
        return place_of(args.ckpt) / "evaluation" / testset
    return next(iter(methods.values())) / "scores" if len(methods) == 1 else SCORES


def place_of(ckpt: Path | str) -> Path:
    """Where a model's scores go: beside it, where it is the user's own; else below scores/ in the working directory."""
    if isinstance(ckpt, str):  # of the hub, whose cache is no place for results
        return SCORES / ckpt
    return SCORES if ckpt == SHIPPED else home_of(ckpt)


def called(ckpt: Path | str) -> str:
    """What tables call a model that has been given no name."""
    return ckpt if isinstance(ckpt, str) else home_of(ckpt).name


def config_of(ckpt: Path | str) -> dict[str, Any]:
    """The config of a run or a model folder, as it stands there."""
    from ccl.files.yamltext import read_yaml
    from ccl.storage.source import CONFIG, find_source

    return find_source(ckpt).config if isinstance(ckpt, str) else read_yaml(home_of(ckpt) / CONFIG)


def home_of(ckpt: Path) -> Path:
    """The run or model folder that a checkpoint belongs to."""
    if ckpt.suffix == ".ckpt":
        return ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    return ckpt


def rows_to_make(args: Namespace, testset: TestSet) -> list[Row]:
    """The test set's rows with what is given of their media, and with --prompts in place of their own."""
    from dataclasses import replace

    from ccl.rows import read_rows

    give = tuple(args.give or (("image",) if testset.name == PAPER else ("text",)))
    try:
        rows = limited(testset.rows(give=give), args.limit)
    except ValueError as error:
        hint = "; `ccl testset images` makes first pictures, `--give text` does without" if "image" in give else ""
        raise UsageError(f"{error}{hint}") from error
    if args.prompts:
        refined = {row.id: row.prompt for row in read_rows(args.prompts, give=())}
        if strange := refined.keys() - {row.id for row in testset.rows()}:
            raise UsageError(f"{args.prompts} has a prompt for '{min(strange)}', which the test set does not know")
        rows = [replace(row, prompt=refined.get(row.id, row.prompt)) for row in rows]
    return rows


def generate(args: Namespace, rows: list[Row], folder: Path) -> None:
    """Make the clips; what is finished is skipped."""
    from ccl.cli.parts import device_of, guidance_of, pipeline_of
    from ccl.generation.generate import generate_files

    rule = guidance_of(args.guidance, args.scale, args.modal)
    pipe = pipeline_of(args, device_of(args.device), dtype=args.dtype or "float32", offload=args.offload)
    with bar("generating") as progress:
        try:
            how = {"steps": args.steps, "shift": args.shift, "task": args.task, "seed": args.seed}
            generate_files(pipe, rows, folder, guidance=rule(pipe.guidance), **how, progress=progress)
        except ValueError as error:
            text = str(error)
            if "was made with another" not in text:
                raise
            raise ValueError(f"{text.split('; choose')[0]}; give another folder with -o, or remove {folder}") from error
