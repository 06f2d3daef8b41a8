"""curves.png and .svg: losses of the joint task by step, as the paper's Fig. 5, and how runs differ step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccl.ablation.drawing import canvas, save
from ccl.ablation.finished import Curve

MEMORY = 0.97  # of the moving average; the first steps weigh as if nothing had been before them
POINTS = 300  # drawn of a curve
PANELS = {"loss": "video + audio", "video": "video", "audio": "audio"}


def draw(
    curves: Mapping[tuple[str, int], Curve],
    pairs: Sequence[tuple[str, str]],
    folder: Path,
) -> None:
    """Draw the curves of all runs into curves.png and curves.svg; nothing where there are none.

    Args:
        curves: the training's losses, by run and seed.
        pairs: (run, the one it is compared with), whose differences stand below.
        folder: of the pictures.
    """
    if not any(len(curve.steps) for curve in curves.values()):
        return
    keys = [key for key in PANELS if any(key in curve.losses for curve in curves.values())]
    pairs = [two for two in pairs if paired(curves, *two, keys[0])]
    kinds = ["loss", *(["difference"] if pairs else [])]
    figure = canvas(4.4 * len(keys), 2.9 * len(kinds))
    axes = figure.subplots(len(kinds), len(keys), squeeze=False, sharex=True)
    runs = list(dict.fromkeys(run for run, _ in curves))
    colour = {run: f"C{place % 10}" for place, run in enumerate(runs)}
    for column, key in enumerate(keys):
        for row, kind in enumerate(kinds):
            axis = axes[row][column]
            if kind == "difference":
                axis.axhline(0, color="0.6", lw=0.8)
                for one, other in pairs:
                    band(axis, paired(curves, one, other, key), colour[one], f"{one} - {other}")
            else:
                for run in runs:
                    lines = [curve for (name, _), curve in curves.items() if name == run and key in curve.losses]
                    band(axis, [(c.steps, c.losses[key]) for c in lines if len(c.steps)], colour[run], run)
            if column == 0:
                axis.set_ylabel(kind)
                axis.legend(frameon=False, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][column].set_title(PANELS[key], fontsize=10)
        axes[-1][column].set_xlabel("step")
    save(figure, folder / "curves")


def band(axis: Any, lines: Sequence[tuple[np.ndarray, np.ndarray]], colour: str, label: str) -> None:
    """The mean over seeds of their moving averages, and from the least to the greatest, over steps that all have."""
    if not lines:
        return
    start, end = max(steps[0] for steps, _ in lines), min(steps[-1] for steps, _ in lines)
    at = np.linspace(start, max(start, end), POINTS)
    values = np.array([np.interp(at, steps, smooth(y)) for steps, y in lines])
    axis.plot(at, values.mean(0), color=colour, lw=1.4, label=label)
    if len(lines) > 1:
        axis.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.18, lw=0)


def paired(
    curves: Mapping[tuple[str, int], Curve], one: str, other: str, key: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Steps and differences of two runs at each seed that both have."""
    made = []
    for (run, seed), a in curves.items():
        b = curves.get((other, seed))
        if run == one and b is not None and key in a.losses and key in b.losses:
            steps, i, j = np.intersect1d(a.steps, b.steps, return_indices=True)
            if len(steps):
                made.append((steps, a.losses[key][i] - b.losses[key][j]))
    return made


def smooth(values: np.ndarray, memory: float = MEMORY) -> np.ndarray:
    """Exponential moving average, unbiased: (sum of memory^k values) / (sum of memory^k)."""
    made, total, weight = np.empty(len(values)), 0.0, 0.0
    for place, value in enumerate(values):
        total, weight = memory * total + value, memory * weight + 1
        made[place] = total / weight
    return made
