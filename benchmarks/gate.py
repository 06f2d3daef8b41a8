"""CCL against the gate at equal steps and seeds: the joint loss of training (the paper's Fig. 5), drawn and in numbers.

python -m benchmarks.gate                      3 seeds x 1,000 steps x 2 methods; finished runs are not done again
python -m benchmarks.gate --steps 50 --seeds 0

Both methods have the same windows and differ in one node of the config. A seed gives both the same clips, tasks, times
and noise in every step, so their losses are compared in pairs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

METHODS = {"ccl": "configs/interaction/cca_embedded.yaml", "gate": "configs/interaction/gate_tarp_embedded.yaml"}
NODE = "--model.net.init_args.interaction"


def train(method: str, seed: int, args: argparse.Namespace) -> Path:
    """Losses of one run, which is begun, gone on with, or found finished."""
    name = f"{method}-{seed}"
    losses = args.runs / name / "losses.jsonl"
    if losses.exists() and len(losses.read_text().splitlines()) >= args.steps:
        return losses
    size = {
        "trainer.max_steps": args.steps,
        "data.init_args.batch_size": args.batch,
        "trainer.precision": args.precision,
    }
    options = [word for key, value in size.items() for word in (f"--{key}", str(value))]
    command = [Path(sys.executable).with_name("ccl"), "fit", "--config", "configs/joint.yaml", NODE, METHODS[method]]
    command += ["--name", name, "--runs_dir", str(args.runs), "--model.seed", str(seed), *options]
    command += ["--ckpt_path", "last"]
    print(*command, flush=True)
    subprocess.run(command, check=True)
    return losses


def joint(path: Path, steps: int) -> dict[int, float]:
    """Loss of each step of the joint task."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row["task"] == "joint" and row["step"] <= steps}


def smooth(values: np.ndarray, memory: float) -> np.ndarray:
    """Exponential moving average."""
    out, mean = [], values[0]
    for value in values:
        mean = memory * mean + (1 - memory) * value
        out.append(mean)
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--runs", type=Path, default=Path("runs/gate"))
    parser.add_argument("--plot", type=Path, default=Path("docs/gate.png"))
    parser.add_argument("--report-only", action="store_true", help="of the runs that are finished")
    args = parser.parse_args()
    curves: dict[tuple[str, int], dict[int, float]] = {}
    for seed in args.seeds:
        for method in METHODS:
            path = args.runs / f"{method}-{seed}" / "losses.jsonl"
            if not args.report_only:
                path = train(method, seed, args)
            if path.exists():
                curves[method, seed] = joint(path, args.steps)
    seeds = [s for s in args.seeds if all((m, s) in curves and curves[m, s] for m in METHODS)]
    if not seeds:
        sys.exit("no seed has a run of both methods yet")
    report(curves, seeds, args)


def report(curves: dict[tuple[str, int], dict[int, float]], seeds: list[int], args: argparse.Namespace) -> None:
    """Numbers to the terminal, curves to the plot."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    paired, window = {}, max(1, args.steps // 4)
    for seed in seeds:
        ccl, gate = curves["ccl", seed], curves["gate", seed]
        steps = np.array(sorted(set(ccl) & set(gate)))
        a, b = (np.array([curve[s] for s in steps]) for curve in (ccl, gate))
        late = steps > steps[-1] - window
        paired[seed] = (
            (a - b)[late].mean(),
            (a - b)[late].std(ddof=1) / late.sum() ** 0.5,
            a[late].mean(),
            b[late].mean(),
        )
        shown = steps >= min(100, steps[-1] // 10)  # as in the paper, the unstable beginning is left out
        for values, colour, label in ((a, "tab:blue", "CCL"), (b, "tab:red", "gate")):
            axes.plot(
                steps[shown], smooth(values, 0.97)[shown], color=colour, lw=1, label=label if seed == seeds[0] else None
            )
    axes.set(xlabel="step", ylabel="joint loss (video + audio), moving average 0.97")
    axes.legend()
    figure.tight_layout()
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.plot, dpi=120)
    print(
        f"\nmean joint loss over the last {window} steps (the same draws for both)\n\n"
        "| seed | CCL | gate | CCL - gate | s.e. |"
    )
    print("|---|---|---|---|---|")
    for seed, (difference, error, a, b) in paired.items():
        print(f"| {seed} | {a:.4f} | {b:.4f} | {difference:+.4f} | {error:.4f} |")
    differences = np.array([row[0] for row in paired.values()])
    print(f"\nover {len(seeds)} seeds: {differences.mean():+.4f}; plot: {args.plot}")


if __name__ == "__main__":
    main()
