"""report.html of a matrix: verdicts, rows, differences, curves, and clips of the same prompt and seed side by side.

One page that needs no network and no other file, as that of an evaluation: of the clips those in which compared rows
differ most lie in it.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from ccl.ablation import tables
from ccl.ablation.numbers import Decided, Difference
from ccl.ablation.tables import MISSING, Table, Told
from ccl.evaluation.report import charts
from ccl.evaluation.report.page import colours_of, compose, noted
from ccl.evaluation.tables.results import Results

EXTREMES = 6  # samples with the best and the worst difference that are shown, of each measure and pair
MOST = 60  # samples in the page
ROWS = "Each row's value in each measure; the line is its 95 % interval over clips and seeds, each small dot a seed."
LOSSES = (
    "The joint task's loss by step, a moving average (0.97); the line is the seeds' mean, the band holds them. "
    "Below, the same of the differences at equal steps, which saw the same clips, times and noise."
)
BADGES = {"holds": "holds", "does not hold": "fails", "undecided": "open"}


def write(told: Told, folder: Path) -> None:
    """Write the page, whole; rows.png and curves.png are taken into it where they are there."""
    pairs = [two for two in told.matrix.compare if all(told.finished.rows[name] for name in two)]
    shown, every, below = telling(told, pairs), len(told.finished.results.test), tables.notes(told)
    sections = {
        "Missing": noted({"Runs and rows": below[MISSING]}) if MISSING in below else "",
        "Verdict": verdicts(told),
        "Results": picture(folder / "rows.png", ROWS) + plain(tables.rows_table(told)),
        "Chance": plain(chance) if (chance := tables.chance_table(told)).rows else "",
        "Differences": differences(told),
        "Losses": picture(folder / "curves.png", LOSSES),
        "Notes": noted({heading: lines for heading, lines in below.items() if heading != MISSING}),
    }
    said = (
        f" Below are {len(shown.test)} of {every} prompts and seeds, those in which compared rows differ most."
        if len(shown.test) < every
        else ""
    )
    lede = f"{told.matrix.about} {tables.lede(told)}{said}"
    compose(folder / "report.html", f"Ablation {told.matrix.name}", lede, sections, shown, pairs=pairs, order="apart")


def plain(table: Table) -> str:
    """A table with the hint above it; the first column names its rows."""
    head = "".join(f"<th>{escape(text)}</th>" for text in table.head)
    body = [
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in table.rows
    ]
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<p class="hint">{escape(table.hint)}</p><div class="scroll">{grid}</div>'


def verdicts(told: Told) -> str:
    """Claims with their verdicts, and the tests that decide them."""
    if not told.numbers.decided:
        return ""
    items = "".join(decided_html(one) for one in told.numbers.decided)
    return f'<p class="hint">{escape(tables.claims_table(told).hint)}</p><div class="claims">{items}</div>'


def decided_html(one: Decided) -> str:
    """One claim."""
    tests = []
    for (test, verdict, d), row in zip(one.tests, tables.test_rows(one), strict=True):
        _, low, high = d.gain
        reach = max(abs(low), abs(high), 2 * (test.margin or 0)) if low == low else 0.0
        picture = charts.forest(low, high, d.gain[0], reach)
        words = f"{row[2]}: {row[3]} {row[4]}".rstrip() + (f"; at each seed {row[5]}" if row[5] else "")
        tests.append(f'<li class="{BADGES[verdict]}">{picture}<span>{escape(words)}</span></li>')
    badge = f'<span class="badge {BADGES[one.verdict]}">{one.verdict}</span>'
    return f"<article><h3>{badge}{escape(one.claim.says)}</h3><ul>{''.join(tests)}</ul></article>"


def differences(told: Told) -> str:
    """The differences, an interval drawn beside each; those that are told from none in the better row's colour."""
    table = tables.differences_table(told)
    if not table.rows:
        return ""
    colours = colours_of(told.finished.results)
    head = "".join(f"<th>{escape(text)}</th>" for text in (*table.head[:3], "", *table.head[3:]))
    ends = [(d.column.name, abs(end)) for d in told.numbers.differences for end in (d.low, d.high) if end == end]
    body = []
    for d, row in zip(told.numbers.differences, table.rows, strict=True):
        reach = max((end for name, end in ends if name == d.column.name), default=0.0)
        picture = f'<div class="pair">{charts.forest(d.low, d.high, d.value, reach)}</div>'
        cells = "".join(f"<td>{escape(text)}</td>" for text in row[3:])
        body.append(
            f"<tr{mark(d, colours)}><th>{escape(row[0])}</th><td>{escape(row[1])}</td><td>{escape(row[2])}</td>"
            f"<td>{picture}</td>{cells}</tr>"
        )
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<p class="hint">{escape(table.hint)}</p><div class="scroll">{grid}</div>'


def mark(d: Difference, colours: dict[str, int]) -> str:
    """The colour of the better row of two that differ."""
    better = d.row if d.gain[0] > 0 else d.versus
    return f' class="first-better m{colours[better]}"' if d.starred and d.column.better and better in colours else ""


def picture(file: Path, text: str) -> str:
    """A drawn picture, taken into the page with what it shows; nothing where it is not there."""
    if not file.is_file():
        return ""
    source = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    return f'<p class="hint">{text}</p><img class="drawn" src="{source}" alt="{text.partition(";")[0]}">'


def telling(told: Told, pairs: list[tuple[str, str]]) -> Results:
    """The samples in which compared rows differ most, both ways; all where they are few."""
    results = told.finished.results
    if len(results.test) <= MOST:
        return results
    queues = []
    for column in told.numbers.columns:
        for a, b in pairs:
            apart = results.values[a, column.name] - results.values[b, column.name]
            order = np.argsort(apart)[: int((~np.isnan(apart)).sum())]
            queues.append([place for ends in zip(order[:EXTREMES], order[::-1], strict=False) for place in ends])
    turns = (queue[turn] for turn in range(2 * EXTREMES) for queue in queues if turn < len(queue))
    kept = sorted(list(dict.fromkeys(map(int, turns)))[:MOST]) or list(range(MOST))
    return replace(results, test=[results.test[place] for place in kept])
