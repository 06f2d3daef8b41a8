"""What the verbs of `ccl inspect` have in common: a model, and how they tell what they found, to people or a script."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ccl import __version__
from ccl.cli.as_json import say_json
from ccl.cli.parser import Parser, add_ckpt, add_device, add_loras, add_trust
from ccl.cli.verbs import check_there, say


def add_model(parser: Parser) -> None:
    """Options that name a model and where it works."""
    add_ckpt(parser)
    add_trust(parser)
    add_loras(parser, "put this LoRA on the model")
    add_device(parser)


def pipeline_of(args: Any) -> Any:
    """The model that the options name."""
    if args.ckpt is not None:
        check_there(args.ckpt)
    from ccl.cli import parts

    return parts.pipeline_of(args, parts.device_of(args.device))


def model_settings(args: Any, pipe: Any) -> dict[str, Any]:
    """The model, among a verb's settings."""
    ckpt = None if args.ckpt is None else str(args.ckpt)
    loras = [lora.record(scale) for lora, scale in pipe.loras.on]
    weights = pipe.provenance.get("weights_sha256")
    return {"ckpt": ckpt, "weights": weights, "loras": loras, "device": str(pipe.device)}


class Told(NamedTuple):
    """What a verb has to tell at a time.

    Args:
        lines: for people.
        figures: what the lines were made of.
        files: that were written.
    """

    lines: Iterable[object] = ()
    figures: Iterable[dict[str, Any]] = ()
    files: Iterable[Path] = ()


def tell(args: Any, settings: dict[str, Any], found: Iterable[Told]) -> None:
    """Lines, each as soon as it is there; with --json one value, when all is."""
    figures: list[dict[str, Any]] = []
    files: list[str] = []
    for one in found:
        figures += one.figures
        files += map(str, one.files)
        for line in () if args.json else one.lines:
            say(line)
    if args.json:
        say_json({"ccl": __version__, "settings": settings, "figures": figures, "files": files})
