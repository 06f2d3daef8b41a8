"""`ccl study`: blind pairs of clips for people to judge, and what their answers say. The work lies in ccl.study."""

from __future__ import annotations

from ccl.cli.as_json import add_json, say_json
from ccl.cli.errors import UsageError, is_dir
from ccl.cli.parser import Parser, Whole, add_seed, folder_to_write, path_of, text_of
from ccl.cli.testsets import PAPER, WORLD, testset_of
from ccl.cli.verbs import say
from ccl.progress import bar

RATERS = 10_000


def make(argv: list[str]) -> int:
    parser = Parser(
        "study make",
        "Write a study: OUT/page, a folder with blind pairs of clips that works from a disk or from any server and is "
        "handed out, and OUT/key.json, which says what they are and is not.",
        "ccl study make --methods ours=out/ours ovi=out/ovi --testset paper -o study",
        "ccl study make --methods a=clips/a b=clips/b c=clips/c --reference clips/true --question sync overall "
        "--raters 30 --per-rater 40 -o study",
        'ccl study make --methods a=clips/a b=clips/b --question "music=Which music fits better?" -o study',
    )
    parser.add_argument(
        "--methods",
        type=text_of,
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME=DIR",
        help="two systems or more, each a folder of clips, ID.mp4 for the rows of the test set",
    )
    parser.add_argument(
        "--testset",
        type=text_of,
        help=f"{PAPER}, {WORLD}, a .jsonl file or a folder of them (without it every clip of the folders)",
    )
    parser.add_argument("--reference", type=path_of, help="folder of true clips, for checks with another clip's sound")
    parser.add_argument("--pairs", type=Whole(), help="comparisons in all (every two systems on every row)")
    parser.add_argument(
        "--question",
        type=text_of,
        nargs="+",
        default=["sync", "sound", "picture", "overall"],
        metavar="KEY[=TEXT]",
        help="what is asked of each pair: sync, sound, picture, overall, or a text of your own (these four)",
    )
    parser.add_argument("--raters", type=Whole(1, RATERS), default=12, help="parts to hand out (%(default)s)")
    parser.add_argument("--per-rater", type=Whole(), help="comparisons in a part (all)")
    parser.add_argument(
        "--checks", type=Whole(0, 100), default=3, help="of attention, of each kind, in every part (%(default)s)"
    )
    parser.add_argument("--no-prompts", action="store_true", help="raters do not read what clips were made from")
    parser.add_argument("--together", action="store_true", help="both clips play at once, not one after the other")
    add_seed(parser, "sides, order and names")
    parser.add_argument("-o", "--out", type=folder_to_write, required=True, help="a folder")
    args = parser.parse(argv)
    from ccl.cli.evaluate import folders_of, rows_of

    methods = folders_of(args.methods)
    if len(methods) < 2:
        parser.error("--methods names one system; a study compares two or more")
    if args.reference and not is_dir(args.reference):
        raise UsageError(f"there is no --reference folder {args.reference}")
    from ccl.study import Order, questions_of
    from ccl.study import make as make_study

    try:
        questions = questions_of(args.question)
    except ValueError as error:
        raise UsageError(f"--question: {error}") from error
    order = Order(
        questions, args.pairs, args.raters, args.per_rater, args.checks, not args.no_prompts, args.together, args.seed
    )
    rows = testset_of(args.testset).rows() if args.testset else rows_of(list(methods.values()))
    with bar("writing clips") as progress:
        key = make_study(methods, rows, order, args.out, reference=args.reference, progress=progress)
    from ccl.study.key import KEY, PAGE
    from ccl.study.tables import some

    for row, why in list(key.left_out.items())[:5]:
        say(f"row {row} is left out: {why}")
    if len(key.left_out) > 5:
        say(f"{len(key.left_out)} rows are left out in all; {KEY} names them")
    if key.converted:
        say(f"{len(key.converted)} clips are encoded anew for browsers, their sound mono: {some(key.converted)}")
    compared = sum(not trial.check for trial in key.trials)
    say(f"{compared} comparisons, {len(key.trials) - compared} checks, {args.raters} parts")
    say(f"hand out {args.out / PAGE}, to rater N as index.html#N; keep {args.out / KEY}, which says what is what")
    return 0


def read(argv: list[str]) -> int:
    parser = Parser(
        "study read",
        "What raters answered: win rates with 95 % intervals over raters and rows, an order of more than two systems, "
        "agreement. Writes table.md and table.csv.",
        "ccl study read study answers/*.jsonl",
        "ccl study read study answers --keep-all -o study/everybody",
    )
    parser.add_argument("study", type=path_of, help="the folder that `ccl study make` wrote, with its key.json")
    parser.add_argument("answers", type=path_of, nargs="+", help="files that raters saved, or folders of them")
    parser.add_argument("--keep-all", action="store_true", help="count those, too, who fail the checks")
    parser.add_argument("-o", "--out", type=folder_to_write, help="folder of the tables (STUDY/results)")
    add_json(parser)
    args = parser.parse(argv)
    from ccl.files import one_writer, sweep
    from ccl.study import found, read_answers, read_key
    from ccl.study.tables import lines, write

    key = read_key(args.study)
    findings = found(key, read_answers(key, args.answers), keep_all=args.keep_all)
    out = args.out or args.study / "results"
    with one_writer(out):
        sweep(out)
        text = write(key, findings, out)
    if args.json:
        say_json({"study": key.study, "left_out": list(findings.left_out), "figures": lines(findings)})
        return 0
    say(text)
    say(out / "table.md")
    return 0
