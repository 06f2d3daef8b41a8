"""`--guidance` before anything large is imported: the names of ccl's rules, and the keys of their YAML files."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ccl import guidance
from ccl.cli.errors import CLASS, UsageError, compose, is_yaml, nodes, others, read_yaml
from ccl.cli.parser import Number, text_of
from ccl.guidance.named import known, rules
from ccl.spelling import did_you_mean
from ccl.types import Scale


def add_guidance(parser: Any) -> None:
    """Options for the rule that clips are made with, and its strengths."""
    parser.add_argument(
        "--guidance", type=text_of, help=f"{', '.join(rules())}, a class as mine.Rule, or a YAML file (the model's)"
    )
    parser.add_argument(
        "--scale", type=Number(), nargs=2, metavar=("VIDEO", "AUDIO"), help="its strength (the model's)"
    )
    parser.add_argument(
        "--modal",
        type=Number(),
        nargs=2,
        metavar=("VIDEO", "AUDIO"),
        help="of the other stream, for ucg3 and dual_cfg (the model's)",
    )


def check_guidance(given: str | None) -> None:
    """UsageError where it can be right for no model: a name that there is not, or a file with a wrong key."""
    if given is not None and is_yaml(given):
        check_keys(Path(given))
    elif given is not None and "." not in given:  # else a class, which is looked for later
        try:
            known(given)
        except ValueError as error:
            raise UsageError(str(error)) from error


def check_keys(file: Path) -> None:
    """UsageError, with the line, at the first key that its rule has not; those of a rule that is no one of ccl's, or
    that is named otherwise, are known once it is imported."""
    room, _, name = str(read_yaml(file).get("class_path")).rpartition(".")
    rule = vars(guidance).get(name) if room == "ccl.guidance" else None
    if not (isinstance(rule, type) and issubclass(rule, guidance.Guidance)):
        return
    kinds = get_type_hints(rule.__init__)
    there = tuple(signature(rule).parameters)
    keys: dict[tuple[str, ...], tuple[str, ...]] = {(): CLASS, ("init_args",): there}
    scales = [key for key in there if Scale in (kinds.get(key), *get_args(kinds.get(key)))]
    keys |= {("init_args", key): tuple(field.name for field in fields(Scale)) for key in scales}
    for (*above, key), part, line, _ in nodes(compose(file), file):
        words = keys.get(tuple(above))
        if words is not None and key not in words:
            where = f"there is no key '{'.'.join((*above, key))}' in {part}, line {line}"
            raise UsageError(f"{where}{did_you_mean(key, words) or others(list(words))}")
