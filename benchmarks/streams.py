"""What two streams and their interaction cost over the streams alone, and what a guided step costs over one forward.

    python benchmarks/streams.py [--threads 2] [--rounds 9] [--batch 16] [--cpu]

The embedded default's network and clip. Training step (forward + backward) of the dual stream over the sum of its
streams alone, divided by the ratio of their FLOPs: 1 would be an interaction as efficient as the rest, goal 1.15. UCG,
two passes in one forward, over one pass: goal 2.0. --cpu counts the process's own seconds, for a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from _timing import ratio, turns, verdict
from ccl.grid import Grid
from ccl.interaction import CCA, TARP, Gate, NoInteraction
from ccl.model import DualStreamTransformer, WanStream
from ccl.types import AV, CLOSED, OPEN, View

GRID = Grid()
KINDS: dict[str, Any] = {
    "CCA": partial(CCA, align=TARP("proportional"), num_context_video=32),
    "gate": partial(Gate, align=TARP("proportional")),
    "none": NoInteraction,
}


def network(interaction: Any) -> DualStreamTransformer:
    return DualStreamTransformer(
        video=WanStream(192, 768, 16),
        audio=WanStream(128, 512, 40),
        layers=4,
        head_dim=32,
        text_dim=128,
        interaction=interaction,
    )


def flops(run: Callable[[], None]) -> int:
    """Of matrix products and attention; by the plain kernel, because the counter does not know the CPU's fused one."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    nets = {name: network(kind) for name, kind in KINDS.items()}
    size = (GRID.t_v, GRID.latent_height, GRID.latent_width)
    x = AV(torch.randn(args.batch, 16, *size), torch.randn(args.batch, 40, GRID.t_a))
    t = AV(torch.rand(args.batch), torch.rand(args.batch))
    text = torch.randn(args.batch, 48, 128)

    def step(net: DualStreamTransformer, route: Any, x: AV[Any] = x, t: AV[Any] = t) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad()
            sum(
                v.square().mean() for v in net(x, t, text, grid=GRID, view=View(route)).velocity if v is not None
            ).backward()

        return run

    steps = {
        "video": step(nets["none"], CLOSED, AV(x.video, None), AV(t.video, None)),
        "audio": step(nets["none"], CLOSED, AV(None, x.audio), AV(None, t.audio)),
        "CCA, routes open": step(nets["CCA"], OPEN),
        "CCA, routes closed": step(nets["CCA"], CLOSED),
        "gate, open": step(nets["gate"], OPEN),
    }
    work = {name: flops(run) for name, run in steps.items()}
    seconds = turns(steps, args.rounds, cpu=args.cpu)
    for name in steps:
        print(f"{name}: {1e3 * statistics.median(seconds[name]):.0f} ms a step, {work[name] / 1e9:.1f} GFLOP")
    alone = [a + b for a, b in zip(seconds["video"], seconds["audio"], strict=True)]
    for name in list(steps)[2:]:
        time, amount = ratio(seconds[name], alone), work[name] / (work["video"] + work["audio"])
        print(verdict(f"{name}: time {time:.3f} / FLOPs {amount:.3f}", time / amount, 1.15))

    net = nets["CCA"].eval()
    twice = lambda z: torch.cat([z, z])  # noqa: E731
    one, two = net.prepare(text), net.prepare(twice(text))
    x2, t2 = x.map(twice), t.map(twice)

    def guided() -> None:
        with torch.inference_mode():
            net(x2, t2, two, grid=GRID, view=(View(OPEN), View(CLOSED)))

    def single() -> None:
        with torch.inference_mode():
            net(x, t, one, grid=GRID, view=View(OPEN))

    seconds = turns({"two passes": guided, "one": single}, args.rounds, cpu=args.cpu)
    print(verdict("UCG, two passes over one forward", ratio(seconds["two passes"], seconds["one"]), 2.0))


if __name__ == "__main__":
    main()
