"""The time of a training step of each interaction beside that of none: what docs/systems.md shows.

    python benchmarks/systems.py [--rounds 9] [--clips 4] [--write docs/systems.json]

Forward and backward of the embedded default's network (configs/joint.yaml) with each of configs/interaction in turn,
one thread, seconds of the process's own; the median over the rounds of the ratio to `none`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from _timing import ratio, turns
from ccl.cli.check import inlined
from ccl.cli.parts import build
from ccl.files import write_whole
from ccl.grid import Grid
from ccl.model import DualStreamTransformer
from ccl.planning.follow import inputs

CONFIGS = Path(__file__).parent.parent / "configs"


def read(file: Path) -> Any:
    return inlined(yaml.safe_load(file.read_text()), file)


def step_of(joint: dict[str, Any], interaction: Path, clips: int) -> Callable[[], None]:
    """A step of a network that is begun from nothing, on noise."""
    node, grid = joint["model"]["net"], Grid(**joint["grid"])
    net = build(
        DualStreamTransformer, {**node, "init_args": {**node["init_args"], "interaction": read(interaction)}}, ""
    )
    torch.manual_seed(0)
    x, t, text = inputs(net, grid, clips, joint["model"]["text"]["init_args"]["length"])
    x, text, extras = x.map(torch.randn_like), torch.randn_like(text), net.interaction.example(grid, clips)

    def run() -> None:
        velocity, losses = net(x, t, text, grid=grid, extras=extras)
        loss = sum(part.square().mean() for part in velocity) + sum(part.mean() for part in losses.values())
        loss.backward()
        net.zero_grad()

    return run


def machine() -> str:
    """Its processor, in the words of the system."""
    found = (
        re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if Path("/proc/cpuinfo").exists()
        else None
    )
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    joint = read(CONFIGS / "joint.yaml")
    runs = {file.stem: step_of(joint, file, args.clips) for file in sorted((CONFIGS / "interaction").glob("*.yaml"))}
    seconds = turns(runs, args.rounds, cpu=True)
    found = {name: round(ratio(each, seconds["none"]), 3) for name, each in seconds.items()}
    how = (
        f"Times: forward and backward of the embedded default's network, {args.clips} clips, each interaction in turn, "
        f"{args.rounds} rounds, one thread ({machine()}, torch {torch.__version__}); the median of the rounds' "
        "ratios to `none` (`python benchmarks/systems.py`)."
    )
    print(json.dumps(found, indent=1))
    print(how)
    if args.write:
        write_whole(args.write, json.dumps({"how": how, "ratio": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
