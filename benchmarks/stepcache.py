"""What a step cache saves and what it costs: passes that were taken again, and how far latents end from those without.

python benchmarks/stepcache.py [--clips 2] [--steps 30] [--guidance ucg2] [--bounds 0.05 0.1 0.15] [--fewer 20 15 10]

Clips of the shipped checkpoint, each with the noise of its seed. `off` is how far the latents of a clip end from
those without the cache, relative to their size, mean over clips; what fewer steps of the solver cost stands beside, as
a cache that does no better at as many passes is of no use. `changed` is what the cache says itself: by how much a
prediction had changed, at most, where it was run again.
"""

from __future__ import annotations

import argparse
from typing import Any

import ccl
from ccl.generation import pipeline
from ccl.guidance.stepcache import StepCache, furthest
from ccl.rows import Row
from ccl.types import AV, OPEN

PROMPTS = (
    'A man with brown hair and a white shirt in front of a yellow wall says in a low voice "it is cold in the house"',
    "An orange ball in front of a grey wall falls and lands on the floor with a thud",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", default="ucg2")
    parser.add_argument("--bounds", type=float, nargs="*", default=[0.05, 0.1, 0.15])
    parser.add_argument("--fewer", type=int, nargs="*", default=[20, 15, 10])
    args = parser.parse_args()

    pipe, seen = ccl.load(), {}
    once: list[AV[Any]] = []

    def decode(z: AV[Any]) -> AV[Any]:
        seen["z"] = z
        if not once:  # pictures and sound are of no matter here
            once.append(really(z))
        return once[0]

    def cached(bound: float) -> StepCache:
        seen["cache"] = StepCache(bound)
        return seen["cache"]

    really, pipe.decode = pipe.decode, decode  # type: ignore[method-assign]
    pipeline.StepCache = cached  # type: ignore[assignment,misc]
    rows = [Row(f"clip-{i}", PROMPTS[i % len(PROMPTS)], seed=i) for i in range(args.clips)]

    def sampled(steps: int) -> AV[Any]:
        pipe.generate(rows, guidance=args.guidance, steps=steps)
        return seen["z"]

    def line(name: str, run: float, z: AV[Any], changed: str = "") -> None:
        off = [float(furthest(AV(a, None), AV(b, None)).mean()) for a, b in zip(z, whole, strict=True)]
        print(f"{name:14}{run:12.1f}{1 - run / asked:8.0%}{off[0]:11.2%}{off[1]:11.2%}{changed:>10}", flush=True)

    asked = len(pipe.rule(args.guidance).passes(OPEN, 0.5)) * args.steps
    print(f"{args.guidance}, {args.steps} steps of {pipe.solver}, {args.clips} clips, {asked} passes a clip")
    print(f"{'':14}{'passes run':>12}{'saved':>8}{'video off':>11}{'audio off':>11}{'changed':>10}")
    whole = sampled(args.steps)
    for fewer in args.fewer:
        line(f"{fewer} steps", asked * fewer / args.steps, sampled(fewer))
    for bound in args.bounds:
        pipe.step_cache = bound
        z, cache = sampled(args.steps), seen["cache"]
        line(f"bound {bound:g}", asked - float(cache.taken.float().mean()), z, f"{float(cache.off.max()):.0%}")


if __name__ == "__main__":
    main()
