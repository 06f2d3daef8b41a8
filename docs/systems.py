"""Writes docs/systems.md anew below its marker: the systems of the field side by side, and with every guidance rule.

python docs/systems.py

Prose is of docs/systems.yaml, what a stack lacks of its header in configs/model, refusals and remarks of the code that
tells them to who samples, parameters and FLOPs of ccl.planning, times of docs/systems.json (benchmarks/systems.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml

from ccl import planning
from ccl.cli.check import inlined
from ccl.cli.parts import build
from ccl.cli.planned import not_here
from ccl.contracts.guidance import BOTH, TIMES
from ccl.contracts.sites import Sites
from ccl.grid import Grid
from ccl.guidance import Guidance, check_passes, occurring, remark
from ccl.interaction import Interaction, Site
from ccl.model import DualStreamTransformer
from ccl.types import OPEN

DOCS = Path(__file__).parent
CONFIGS = DOCS.parent / "configs"
PAGE = DOCS / "systems.md"
MARKER = "<!-- made by `python docs/systems.py` -->\n"
STREAMS = ("video", "audio")  # parts of a network that are not of its interaction
PLACES = {"before": "before self-attention", "text": "inside text attention", "after": "after text attention"}
LEFT = {"context": "context tokens", "own": "the own tokens", "nothing": "nothing", "same": "as much as an open one"}
SIZES = (
    "Parameters, and FLOPs of a clip's forward with open routes, at the size of the stack in configs/model, as `ccl "
    "plan` counts them: of both streams without an interaction, and what it adds. Tokens are those of video and audio."
)
LEGEND = (
    "`+` generates; a number does too, and its note says what the rule is there; `no` is refused, and the note is why. "
    "Rows and columns are files of configs/interaction and configs/guidance, rules for the embedded size left out."
)


@cache
def systems() -> dict[str, dict[str, str]]:
    """Prose of each system by its name."""
    return yaml.safe_load((DOCS / "systems.yaml").read_text())


@cache
def part(kind: str, name: str) -> dict[str, Any]:
    """A YAML file of configs, with the files that it names."""
    file = CONFIGS / kind / f"{name}.yaml"
    return inlined(yaml.safe_load(file.read_text()), file)


@cache
def made(name: str, least: int = 0) -> Sites:
    """An interaction in the smallest network that it acts in, of so many blocks at least."""
    return Sites(build(Callable[[Site], Interaction], part("interaction", name), name), least)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def prose() -> str:
    """Each system in words."""
    rows = []
    for name, one in systems().items():
        part = network(one["interaction"]).interaction
        acts = ", ".join(PLACES[where] for where in part.at) or "nowhere"
        start = "" if part.starts_at_zero else "; not zero at the start"
        lacks = not_here(CONFIGS / "model" / f"{one['stack']}.yaml") or "nothing"
        rows.append([name, one["paper"], acts + start, LEFT[part.closed], one["built"], one["differs"], lacks])
    return table(["system", "paper", "acts", "a closed route leaves", "built", "differs, and why", "not here"], rows)


@cache
def rules() -> dict[str, Guidance]:
    """Every guidance rule that ships, by the name of its file."""
    files = sorted(file.stem for file in (CONFIGS / "guidance").glob("*.yaml") if not file.stem.endswith("_embedded"))
    return {name: build(Guidance, part("guidance", name), name) for name in files}


@cache
def network(interaction: str) -> DualStreamTransformer:
    """A small one of that interaction, without weights."""
    return made(interaction).network(meta=True)


def told(interaction: str, rule: Guidance) -> tuple[bool, str]:
    """Whether clips are sampled so, and what is said of it."""
    passes = occurring(rule, OPEN, TIMES, BOTH)
    part = network(interaction).interaction
    net = SimpleNamespace(interaction=part, blocks=range(deepest(rule)))  # which rules of some layers ask for
    try:
        said = remark(rule, OPEN, part.closed, TIMES)
        check_passes(rule, passes, net)
    except ValueError as error:
        return False, str(error)
    return True, said


def deepest(rule: Guidance) -> int:
    """How many blocks a network must have for the rule."""
    passes = occurring(rule, OPEN, TIMES, BOTH)
    return 1 + max((layer for one in passes for skip in one.view.skip for layer in skip.layers), default=1)


def matrix() -> str:
    """Every interaction with every rule."""
    notes: dict[str, int] = {}
    rows = []
    for name in sorted(file.stem for file in (CONFIGS / "interaction").glob("*.yaml")):
        cells = []
        for rule in rules().values():
            works, said = told(name, rule)
            note = str(notes.setdefault(said, len(notes) + 1)) if said else "+"
            cells.append(note if works else f"no {note}")
        rows.append([name, *cells])
    listed = "".join(f"{i}. {said}.\n" for said, i in notes.items())
    return f"{LEGEND}\n\n{table(['', *rules()], rows)}\n{listed}"


def counted(name: str) -> list[str]:
    """A system's parameters, and FLOPs of a clip's forward, at the size of its stack."""
    one = systems()[name]
    stack = part("model", one["stack"])
    node = {**stack["model"]["net"]}
    node["init_args"] = {**node["init_args"], "interaction": part("interaction", one["interaction"])}
    with torch.device("meta"):
        net = build(DualStreamTransformer, node, one["stack"])
    grid = Grid(**stack["grid"])
    sizes = {part: size.all for part, size in planning.parameters(net).items()}
    table = planning.forward_flops(planning.shorten(net), grid, text=stack["model"]["text"]["init_args"]["length"])
    rows = planning.gathered_rows(table)
    streams, added = (sum(n for part, n in sizes.items() if (part in STREAMS) == own) for own in (True, False))
    flops = rows.pop("interaction", 0.0)
    return [
        name,
        f"{one['stack']}.yaml",
        f"{grid.s_v:,} + {grid.t_a:,}",
        f"{streams / 1e9:.3f} B",
        f"{added / 1e9:.3f} B, {added / streams:.1%}" if added else "0",
        f"{sum(rows.values()) / 1e12:.1f} T",
        f"{flops / 1e12:.2f} T, {flops / sum(rows.values()):.1%}" if flops else "0",
    ]


def sizes() -> str:
    """What each system's interaction adds to its streams, and the time of a step beside one without."""
    times = json.loads((DOCS / "systems.json").read_text())
    rows = [[*counted(name), f"{times['ratio'][one['interaction']]:.2f}"] for name, one in systems().items()]
    head = ["system", "counted at", "tokens", "streams", "it adds", "FLOPs of a forward", "it adds", "a step, none = 1"]
    return f"{SIZES}\n\n{table(head, rows)}\n{times['how']}\n"


def page() -> str:
    """The file as it should be."""
    before = PAGE.read_text().split(MARKER)[0]
    parts = {"Side by side": prose, "Sizes and times": sizes, "Interactions and guidance rules": matrix}
    return before + MARKER + "".join(f"\n## {title}\n\n{make()}" for title, make in parts.items())


if __name__ == "__main__":
    PAGE.write_text(page())
