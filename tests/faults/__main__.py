"""`make faults`: the whole campaign, its counts as a table, and each fault in a line that names its seed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from faults import kills, mutants, process, world


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=12, help="folders in which each command is killed (%(default)s)")
    parser.add_argument("--mutants", type=int, default=60, help="of each kind of input (%(default)s)")
    parser.add_argument("--only", default="", help="commands and inputs whose name begins so")
    parser.add_argument("--quick", action="store_true", help="leave out variants, what takes long, and the clock")
    parser.add_argument("--out", type=Path, help="a JSON file of all counts and faults")
    args = parser.parse_args()
    process.warm_up()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ccl-faults-") as folder:
        start = world.make(Path(folder, "world"))
        print(
            f"seed {args.seed}\n\n| killed | kills | full disks | folders | faults |\n|---|---|---|---|---|", flush=True
        )
        killed = kills.campaign(start, Path(folder), args.seed, args.rounds, _killed, args.only, args.quick)
        print("\n| damaged | used | refused in words | faults |\n|---|---|---|---|", flush=True)
        damaged = mutants.campaign(start, Path(folder), args.seed, args.mutants, _damaged, args.only)
    tallies: dict[str, Any] = {**killed, **damaged}
    faults = [f"{name}: {fault}" for name, tally in tallies.items() for fault in tally.faults]
    total = sum(tally.ends.total() for tally in damaged.values())
    kill, full = (sum(getattr(tally, what) for tally in killed.values()) for what in ("kills", "full"))
    print(f"\n{kill} kills, {full} full disks, {total} damaged inputs, {len(faults)} faults")
    print("\n".join(faults))
    if args.out:
        counts = {
            name: {"kills": tally.kills, "full disks": tally.full, "folders": tally.rounds, "not run": tally.skipped}
            for name, tally in killed.items()
        }
        counts |= {name: dict(tally.ends) for name, tally in damaged.items()}
        args.out.write_text(json.dumps({"seed": args.seed, "counts": counts, "faults": faults}, indent=1))
    return 1 if faults or not kill + full + total else 0


def _killed(name: str, tally: kills.Tally) -> None:
    if tally.skipped:
        print(f"| {name} | not run: {tally.skipped} | | | |", flush=True)
        return
    print(f"| {name} | {tally.kills} | {tally.full} | {tally.rounds} | {len(tally.faults)} |", flush=True)


def _damaged(name: str, tally: mutants.Tally) -> None:
    print(f"| {name} | {tally.ends['used']} | {tally.ends['refused']} | {tally.ends['FAULT']} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
