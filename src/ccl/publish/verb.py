"""`ccl push`: a model folder or a run to the hub, with its card. The work lies in ccl.publish."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ccl
from ccl.cli.errors import UsageError, is_file
from ccl.cli.parser import Parser, add_trust, folder_to_write, path_of, text_of
from ccl.cli.verbs import check_there, say
from ccl.files import own_folder, reading
from ccl.files.plaintext import printable

if TYPE_CHECKING:
    from ccl.publish import File, Pushed, Sample

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"


def main(argv: list[str]) -> int:
    parser = Parser(
        "push",
        "Send a model to the Hugging Face hub, with a card that is made of it: a model folder as it is, or a run, "
        "which is exported elsewhere first. config.yaml, model.safetensors, the card and sample clips go up, in one "
        "commit, and nothing else. Needs a token: `hf auth login`, or HF_TOKEN.",
        "ccl push runs/joint ann/joint --dry",
        "ccl push models/joint ann/joint --private",
        "ccl push runs/joint ann/joint --licence apache-2.0 --data 'the talking world' --sample out.mp4",
        "ccl push models/joint ann/joint --scores scores/results.json --card",
    )
    parser.add_argument(
        "folder", type=path_of, metavar="FOLDER", help="a model folder, a run folder (its last checkpoint) or a .ckpt"
    )
    parser.add_argument(
        "name", type=text_of, metavar="OWNER/NAME", help="of the repository, which is made where there is none"
    )
    parser.add_argument("--private", action="store_true", help="a repository that is made is for its owner alone")
    parser.add_argument("--dry", action="store_true", help="send nothing: list what would go, and write the card")
    parser.add_argument(
        "-o", "--out", type=folder_to_write, default=Path("card"), help="with --dry, folder of the card (%(default)s)"
    )
    parser.add_argument("--message", type=text_of, help="of the commit (of which run and step it is)")
    add_trust(parser)
    made = parser.add_argument_group("the card")
    made.add_argument(
        "--card", action="store_true", help="write it anew, in the place of a README.md in FOLDER, -o or on the hub"
    )
    made.add_argument("--licence", type=text_of, help="of the weights, as the hub calls it: apache-2.0 (none stated)")
    made.add_argument("--data", type=text_of, metavar="TEXT", help="what the model was trained on (what its run says)")
    made.add_argument(
        "--sample",
        dest="samples",
        type=path_of,
        action="append",
        default=[],
        metavar="CLIP",
        help="an mp4 to show; repeatable (those in FOLDER/samples, or the first of FOLDER/evaluation)",
    )
    made.add_argument(
        "--scores",
        type=path_of,
        action="append",
        default=[],
        metavar="FILE",
        help="a results.json of `ccl evaluate`; repeatable (those in FOLDER/evaluation)",
    )
    args = parser.parse(argv)
    from ccl.publish.upload import CARD, Hub, address, check_name

    try:
        check_name(args.name)
    except ValueError as error:
        raise UsageError(
            f"'{args.name}' is no name of a repository, OWNER/NAME of letters, digits, '-', '_' and '.': {error}"
        ) from error
    check_there(args.folder)
    hub = None if args.dry else Hub(args.name)
    from ccl.publish import File, Said, card, inside, outline, ready, samples_of, scores_of

    model = outline(args.folder, args.trust)
    samples, scores = samples_of(model.home, args.samples), scores_of(model.home, args.scores)
    held = hub.held(private=args.private) if hub else None
    mine = inside(model.home, model.home / CARD) if is_file(model.home / CARD) and not args.card else None
    if mine is not None:
        with reading(mine, "a card"):
            mine.read_text(encoding="utf-8")
    stays = mine is None and not args.card and CARD in (held or ())  # that on the hub
    written = args.out / CARD
    if args.dry and mine is None and not args.card and is_file(written):
        raise ValueError(f"{written} is there, which may be edited; --card writes it anew, -o names another folder")
    with own_folder("ccl-push-") as spare:
        pushed = ready(model, spare / "model")
        files = [
            File(CONFIG, pushed.text),
            File(WEIGHTS, pushed.weights),
            *(File(one.name, one.file) for one in samples),
        ]
        if mine is not None:
            files.append(File(CARD, mine))
        elif not stays:
            said = Said(args.licence or "", args.data or "")
            text = card(args.name, pushed, said=said, samples=samples, scores=scores, page=address(args.name))
            files.append(File(CARD, text))
        note(args, pushed, str(mine) if mine else f"that of {args.name}" if stays else "", samples, scores)
        if hub is None:
            rehearse(args, files)
            return 0
        if WEIGHTS in (held or ()):
            tell(f"{args.name} held a model before, which stays in its history")
        hub.push(files, args.message or message(pushed), private=args.private)
    say(address(args.name))
    say(f"ccl generate --ckpt {args.name} --prompt '...' -o out.mp4")
    return 0


def note(args: Namespace, model: Pushed, kept: str, samples: Sequence[Sample], scores: Sequence[str]) -> None:
    """What a user would otherwise miss, to stderr; `kept` is the card that is not made, in words."""
    outline = model.outline
    if kept:
        tell(f"the card is {kept}, as it is; --card writes one of the model in its place")
    else:
        if not args.licence:
            tell("the card states no licence of the weights; --licence names one")
        if not (args.data or outline.training):
            tell("a model folder does not say what it was trained on; --data does, or push its run")
        lacking = [flag for flag, found in (("--sample", samples), ("--scores", scores)) if not found]
        if lacking:
            tell(f"the card has no {' and no '.join(x.removeprefix('--') for x in lacking)}: {' and '.join(lacking)}")
    if words := (outline.config.get("provenance") or {}).get("words"):
        tell(f"{CONFIG} lists the {len(words)} words of its captions, by which it tells a prompt's unknown ones")
    if modules := outline.modules:
        tell(f"its config names classes of {' and '.join(modules)}, whose code does not go up")


def rehearse(args: Namespace, files: Sequence[File]) -> None:
    """Write what a push would make, and list what it would send."""
    from ccl.files import one_writer, sweep, write_whole
    from ccl.publish.upload import CARD, address

    made = next((file for file in files if file.name == CARD and isinstance(file.content, str)), None)
    if made:
        args.out.mkdir(parents=True, exist_ok=True)
        with one_writer(args.out):
            sweep(args.out)
            write_whole(args.out / CARD, str(made.content))
    say(f"would go to {address(args.name)}{', if it is new for you alone' if args.private else ''}:")
    for file in files:
        say(f"  {file.name:<24} {size(file.size):>9}")
    if made:
        say(args.out / CARD)


def message(model: Pushed) -> str:
    """Of a commit: which run and step the model is of."""
    known = model.config["provenance"]
    step = f", step {known['step']}" if "step" in known else ""
    return f"{known.get('run') or model.outline.home.resolve().name}{step} (ccl {ccl.__version__})"


def tell(said: str) -> None:
    sys.stderr.write(f"note: {printable(said)}\n")


def size(count: int) -> str:
    """Bytes in words."""
    for unit, each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= each:
            return f"{count / each:.3g} {unit}"
    return f"{count} B"
