"""Small pictures of numbers, as SVG that takes its colours from the page: strips of clips, bars of intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.layout import titled
from ccl.evaluation.tables.results import ALL, Results

WIDTH, LEFT, RIGHT, TOP, FOOT = 420, 104, 14, 6, 22
STRIP, GAP = 15, 9  # height of a subset's strip; between methods
GOLDEN = 0.6180339887  # its multiples spread evenly, so dots of equal value do not hide each other


def strips(results: Results, column: Column, colours: dict[str, int]) -> str:
    """The clips of each method and subset as dots, with quartiles and median over them; "" where there are none."""
    everything = np.concatenate([results.values.get((m, column.name), np.zeros(0)) for m in results.methods])
    everything = everything[~np.isnan(everything)]
    if not len(everything):
        return ""
    low, high, ticks = axis(everything)
    subsets, methods = list(results.subsets.items()), results.methods
    block = STRIP * len(subsets) + GAP
    height = TOP + block * len(methods) + FOOT

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = []
    bottom = height - FOOT
    for tick in ticks:
        parts.append(f'<path class="rule" d="M{x(tick):.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14}">{tick_text(column, tick, ticks)}</text>')
    for place, method in enumerate(methods):
        top = TOP + place * block
        middle = top + STRIP * len(subsets) / 2 + 4
        parts.append(f'<text class="name" x="0" y="{middle:.1f}">{escape(shortened(method))}</text>')
        for number_of, (subset, places) in enumerate(subsets):
            values = results.values.get((method, column.name), np.full(len(results.test), np.nan))[places]
            parts.append(strip(values[~np.isnan(values)], top + STRIP * (number_of + 0.5), x, colours[method]))
            if subset != ALL and len(methods) <= 6:
                y = top + STRIP * (number_of + 0.5) + 3
                parts.append(f'<text class="subset" x="{LEFT - 6}" y="{y:.1f}">{escape(subset)}</text>')
    label = escape(f"{titled(column)}: every clip, by method and subset", quote=True)
    return f'<svg class="strips" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def strip(values: np.ndarray, y: float, x: Callable[[float], float], colour: int) -> str:
    """A box of the quartiles and the median; over them dots in one path: lines of no length with round ends."""
    if not len(values):
        return ""
    dots = "".join(
        f"M{x(value):.1f} {y + (STRIP - 5) * ((place * GOLDEN) % 1 - 0.5):.1f}h0" for place, value in enumerate(values)
    )
    first, median, third = np.percentile(values, [25, 50, 75])
    box = f'<path class="box" d="M{x(first):.1f} {y:.1f}H{x(third):.1f}"/>'
    tick = f'<path class="median" d="M{x(median):.1f} {y - 7:.1f}v14"/>'
    # The dots last, and less wide apart than the tick is high: where many clips have one value, both are seen.
    return f'<g class="m{colour}">{box}{tick}<path class="dots" d="{dots}"/></g>'


def axis(values: np.ndarray) -> tuple[float, float, list[float]]:
    """Range that holds all values, and round ticks within it."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 5
    power = 10 ** np.floor(np.log10(raw))
    step = power * min((m for m in (1, 2, 2.5, 5, 10) if m * power >= raw), default=10)
    pad = 0.03 * (high - low)
    ticks = np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step
    return low - pad, high + pad, [float(tick) for tick in ticks]


def tick_text(column: Column, tick: float, ticks: Sequence[float]) -> str:
    """A tick with as many decimals as tell it from its neighbours."""
    scale = 100 if column.percent else 1
    step = (ticks[1] - ticks[0]) * scale if len(ticks) > 1 else 1.0
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9))) + (round(step * 10 ** (2 - np.floor(np.log10(step)))) == 250)
    return f"{tick * scale + 0.0:.{digits}f}" + ("%" if column.percent else "")


def forest(low: float, high: float, value: float, reach: float) -> str:
    """An interval on a line whose middle is no difference; `reach` is where the line ends."""
    if low != low or not reach:
        return ""

    def x(at: float) -> str:
        return f"{50 + 46 * max(-1.0, min(1.0, at / reach)):.1f}"

    return (
        '<svg class="forest" viewBox="0 0 100 12" aria-hidden="true"><path class="zero" d="M50 0V12"/>'
        f'<path class="reach" d="M{x(low)} 6H{x(high)}"/><circle cx="{x(value)}" cy="6" r="3"/></svg>'
    )


def shortened(name: str, length: int = 11) -> str:
    """A name that fits beside a strip."""
    return name if len(name) <= length else name[: length - 1] + "…"
