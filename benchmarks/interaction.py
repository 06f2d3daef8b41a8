"""Cost of an interaction as the clip grows eightfold: linear with windows, quadratic where all see all.

    python benchmarks/interaction.py [--threads 2] [--rounds 9] [--cpu]

Forward + backward of one block's interaction at the embedded default's widths. What is printed is the cost a token,
relative to the shortest clip. Goal for CCA with TARP: linear, 1.1 with a tenth for noise.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from _timing import turns, verdict
from ccl.grid import Grid
from ccl.interaction import CCA, TARP, Gate, Global, Interaction, Seen, Site
from ccl.types import AV, OPEN

SITE = Site(192, 128, AV(32, 32))
FRAMES = (21, 42, 84, 168)  # latent frames


def run_of(interaction: Interaction, grid: Grid) -> Callable[[], None]:
    layout = interaction.layout(grid, torch.device("cpu"))
    x = AV(torch.randn(2, grid.s_v, 192, requires_grad=True), torch.randn(2, grid.t_a, 128, requires_grad=True))

    def run() -> None:
        update = interaction("after", Seen(x, x, OPEN, layout=layout)).add
        (update.video.sum() + update.audio.sum()).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, interaction in (
        ("CCA, TARP", CCA(SITE, TARP("proportional"))),
        ("gate, global", Gate(SITE, Global())),
    ):
        grids = {f"{n} frames": Grid(frames=4 * n - 3) for n in FRAMES}
        seconds = turns({k: run_of(interaction, grid) for k, grid in grids.items()}, args.rounds, cpu=args.cpu)
        cost = {k: statistics.median(seconds[k]) / grid.s_v for k, grid in grids.items()}
        first, *_, last = cost.values()
        print(f"{name}, cost a token: " + ", ".join(f"{k} {c / first:.2f}" for k, c in cost.items()), flush=True)
        if name == "CCA, TARP":
            print(verdict("CCA, TARP, 8 times the clip", last / first, 1.1))


if __name__ == "__main__":
    main()
