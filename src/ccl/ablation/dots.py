"""rows.png and .svg: every row's value in each measure with its interval, each seed a dot, as one looks at a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccl.ablation.drawing import canvas, save
from ccl.ablation.numbers import Number
from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.layout import titled


def draw(
    rows: Sequence[str], columns: Sequence[Column], numbers: Mapping[tuple[str, str], Number], folder: Path
) -> None:
    """Draw the rows below one another, a panel for each measure that any of them has; nothing where there is none.

    Args:
        rows: in order, from the top.
        columns: measures.
        numbers: by (row, column).
        folder: of the pictures.
    """
    columns = [column for column in columns if any(numbers[row, column.name].seeds for row in rows)]
    if not columns:
        return
    figure = canvas(1.4 + 2.6 * len(columns), 0.9 + 0.3 * len(rows))
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axis, column in zip(axes, columns, strict=True):
        for place, row in enumerate(rows):
            line(axis, numbers[row, column.name], place, f"C{place % 10}")
        axis.set_title(titled(column), fontsize=10)
        axis.grid(axis="x", color="0.9", lw=0.6)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    save(figure, folder / "rows")


def line(axis: Any, found: Number, place: int, colour: str) -> None:
    """One row's value, interval and seeds; nothing of one that has none."""
    if not found.seeds:
        return
    axis.plot([found.low, found.high], [place, place], color=colour, lw=2.2, solid_capstyle="round")
    axis.plot([found.value], [place], "o", color=colour, ms=7)
    seeds = list(found.seeds.values())
    axis.plot(seeds, [place] * len(seeds), "o", color="white", mec=colour, ms=3.2, mew=0.8)
