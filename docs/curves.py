"""Draw docs/curves.png, what losses look like while a run trains, and print their table.

    python docs/curves.py [RUN ...] [--task joint] [-o docs/curves.png]

A row for each run: losses of each training step, and those of validation by bin of time. RUN is a folder with a
losses.jsonl; without any, the runs of docs/curves.md, whose logs lie in docs/curves.tar.xz.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
STREAMS = {"video": "C0", "audio": "C1"}
MEMORY = 0.9  # of the moving average


def logs(runs: list[Path]) -> dict[str, list[dict]]:
    """Lines of each run's log, by the run's name."""
    if runs:
        texts = {run.name: (run / "losses.jsonl").read_text() for run in runs}
    else:
        with tarfile.open(HERE / "curves.tar.xz") as tar:
            texts = {Path(name).parent.name: tar.extractfile(name).read().decode() for name in tar.getnames()}
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}


def trained(rows: list[dict], task: str, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that drew a task, and their losses."""
    found = [(row["step"], row[stream]) for row in rows if row.get("task") == task and stream in row]
    return np.array([step for step, _ in found]), np.array([loss for _, loss in found])


def validated(rows: list[dict], task: str, stream: str) -> tuple[list[int], dict[str, list[float]]]:
    """Steps of validation, and losses by bin of time; "" is all bins together."""
    held = [row for row in rows if "validation" in row]
    names = [key for row in held[:1] for key in row["validation"] if key.startswith(f"{task}/{stream}")]
    by_bin = {
        name.removeprefix(f"{task}/{stream}").lstrip("/"): [row["validation"][name] for row in held] for name in names
    }
    return [row["step"] for row in held], by_bin


def smooth(values: np.ndarray) -> np.ndarray:
    """A moving average to which the first values count as if nothing had been before them."""
    total, weight, out = 0.0, 0.0, []
    for x in values:
        total, weight = MEMORY * total + (1 - MEMORY) * x, MEMORY * weight + 1 - MEMORY
        out.append(total / weight)
    return np.array(out)


def draw(runs: dict[str, list[dict]], task: str, path: Path) -> None:
    figure, axes = plt.subplots(len(runs), 3, figsize=(9.5, 2.5 * len(runs)), squeeze=False)
    for row, (name, rows) in zip(axes, runs.items(), strict=True):
        for stream, colour in STREAMS.items():
            steps, losses = trained(rows, task, stream)
            row[0].plot(steps, losses, ".", ms=2.5, color=colour, alpha=0.5)
            row[0].plot(steps, smooth(losses), color=colour, lw=1.2, label=stream)
        row[0].set_title(f"{name}: training steps, {task}", fontsize=8)
        for axis, stream in zip(row[1:], STREAMS, strict=True):
            steps, by_bin = validated(rows, task, stream)
            for place, (bin, losses) in enumerate(by_bin.items()):
                colour = plt.get_cmap("viridis")(0.9 * (place - 1) / max(1, len(by_bin) - 2)) if bin else "0.4"
                axis.plot(steps, losses, color=colour, lw=1.2, ls="-" if bin else "--", label=bin or "all")
            axis.set_title(f"{name}: held-out clips, {stream}", fontsize=8)
        for axis in row:
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=7)
    axes[0][0].legend(frameon=False, fontsize=7)
    if axes[0][1].lines:
        axes[0][1].legend(frameon=False, fontsize=7, ncols=2)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    figure.tight_layout(pad=0.6)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def table(runs: dict[str, list[dict]], task: str) -> str:
    """A row for each run and stream: of training the first and the last fifth, of validation the first and the last."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, rows in runs.items():
        for stream in STREAMS:
            _, losses = trained(rows, task, stream)
            _, by_bin = validated(rows, task, stream)
            fifth = max(1, len(losses) // 5)
            ends = {"training": (losses[:fifth].mean(), losses[-fifth:].mean())}
            ends |= {bin or "held out": (losses[0], losses[-1]) for bin, losses in by_bin.items()}
            found[name, stream] = {of: f"{first:.3f}, {last:.3f}" for of, (first, last) in ends.items()}
    columns = list(dict.fromkeys(of for row in found.values() for of in row))
    lines = [f"| run | stream | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for (name, stream), row in found.items():
        lines.append(f"| {name} | {stream} | {' | '.join(row.get(of, '') for of in columns)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--task", default="joint")
    parser.add_argument("-o", "--out", type=Path, default=HERE / "curves.png")
    args = parser.parse_args()
    runs = logs(args.runs)
    draw(runs, args.task, args.out)
    sys.stdout.write(table(runs, args.task))


if __name__ == "__main__":
    main()
