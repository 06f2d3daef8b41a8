"""The video stream against diffusers' WanTransformer3DModel of equal weights: forward, and forward + backward.

    python benchmarks/wan.py [--threads 2] [--rounds 9] [--layers 8] [--cpu]

Float32, one clip, 384 wide, heads of 64. Both spend 90 % of their time in the same matrix products, so the floor is
near 0.91. Goals: 0.96 at 256 tokens, 1.0 at 2,048. --cpu counts the process's own seconds, for a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from _timing import ratio, turns, verdict
from ccl.grid import Grid
from ccl.interaction import NoInteraction
from ccl.model import DualStreamTransformer, WanStream
from ccl.model.load import load_stream
from ccl.types import ALONE, AV

WIDTH, HEAD, TEXT = 384, 64, 64
GOALS = {256: (4, 8, 0.96), 2048: (8, 16, 1.0)}  # tokens: latent frames, tokens each way, goal


def peers(layers: int) -> tuple[WanTransformer3DModel, DualStreamTransformer]:
    theirs = WanTransformer3DModel(
        num_attention_heads=WIDTH // HEAD,
        attention_head_dim=HEAD,
        text_dim=TEXT,
        ffn_dim=4 * WIDTH,
        num_layers=layers,
    )
    ours = DualStreamTransformer(
        video=WanStream(WIDTH, 4 * WIDTH, 16),
        audio=WanStream(HEAD, HEAD, 8),
        layers=layers,
        head_dim=HEAD,
        text_dim=TEXT,
        interaction=NoInteraction,
    )
    load_stream(ours, theirs.state_dict())
    return theirs, ours


def forward(net: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            net()

    return run


def backward(net: Callable[[], Tensor], module: nn.Module) -> Callable[[], None]:
    def run() -> None:
        module.zero_grad()
        net().square().mean().backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    theirs, ours = peers(args.layers)
    t, text = torch.tensor([0.5]), torch.randn(1, TEXT, TEXT)
    for tokens, (frames, side, goal) in GOALS.items():
        grid = Grid(frames=4 * frames - 3, height=16 * side, width=16 * side)
        x = torch.randn(1, 16, frames, 2 * side, 2 * side)

        def our(x: Tensor = x, grid: Grid = grid) -> Tensor:
            return ours(AV(x, None), AV(t, None), text, grid=grid, view=ALONE).velocity.video

        def their(x: Tensor = x) -> Tensor:
            return theirs(x, 1000 * t, text).sample

        for name, runs in (
            ("forward", {"ours": forward(our), "theirs": forward(their)}),
            ("forward + backward", {"ours": backward(our, ours), "theirs": backward(their, theirs)}),
        ):
            seconds = turns(runs, args.rounds, cpu=args.cpu)
            both = ", ".join(f"{who} {1e3 * statistics.median(s):.1f} ms" for who, s in seconds.items())
            value = ratio(seconds["ours"], seconds["theirs"])
            print(verdict(f"{tokens} tokens, {name}: {both}, ratio", value, goal), flush=True)


if __name__ == "__main__":
    main()
