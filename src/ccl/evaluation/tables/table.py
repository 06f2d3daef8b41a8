"""The table in files and on the console.

table.md, table.csv and table.tex are like the paper's Table 1, one method a row; summary.csv has a row for each method,
subset and column, pairs.csv one for each comparison. Of a single method, table.md and the console show a measure a row,
with chance and ceiling beside it. results.json has all of it for others (exchange.py).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ccl.evaluation.tables import layout
from ccl.evaluation.tables.exchange import NAME, dumped
from ccl.evaluation.tables.layout import Line, Place, Published, number
from ccl.evaluation.tables.notes import notes
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.summary import Pair, Summary, summarise
from ccl.evaluation.tables.typeset import markdown, tex
from ccl.files import write_whole
from ccl.files.plaintext import printable

LOG_WIDTH = 100
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full width, which count too
SYSTEMS_ABREAST = 4  # on a console of 100 columns


def write(results: Results, out: str | Path, published: Published | None = None) -> list[dict[str, Any]]:
    """Write all files of the table into the folder `out`, each whole.

    Args:
        results: what was scored.
        out: folder of the results.
        published: numbers printed elsewhere, to stand beside.

    Returns:
        The lines of summary.csv.
    """
    summary, out = summarise(results), Path(out)
    lines = long_lines(results, summary)
    write_whole(out / "summary.csv", csv_text(lines))
    pairs = [
        {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in vars(pair).items()}
        | {"subsets": " + ".join(pair.subsets)}
        for pair in summary.pairs
    ]
    write_whole(out / "pairs.csv", csv_text(pairs, [field.name for field in fields(Pair)]))
    write_whole(out / "table.csv", csv_text(wide_lines(results, summary, published)))
    write_whole(out / "table.md", markdown(results, summary, published))
    write_whole(out / "table.tex", tex(results, summary, published))
    if len(set(results.protocols.values())) < 2:
        write_whole(out / NAME, dumped(results))
    else:  # of several each has its own, for what is merged is of one; that of another scoring is not of this table
        (out / NAME).unlink(missing_ok=True)
    return lines


def long_lines(results: Results, summary: Summary) -> list[dict[str, Any]]:
    """A line for each method, subset and column, as numbers; None where there is none."""
    made = []
    names = layout.extra_names(summary)
    for (method, subset, column), cell in sorted(summary.cells.items(), key=lambda x: results.methods.index(x[0][0])):
        values = {"value": cell.value, "low": cell.low, "high": cell.high, "own": cell.own}
        line: dict[str, Any] = {"method": method, "subset": subset, "column": column}
        line |= {k: None if v != v else v for k, v in values.items()}
        line |= {"scored": cell.scored, "failed": cell.failed, "inapplicable": cell.inapplicable, "clips": cell.clips}
        line |= {"subsets": " + ".join(cell.subsets), "best": cell.best}
        made.append(line | {name: dict(cell.extras).get(name) for name in names})
    return made


def wide_lines(results: Results, summary: Summary, published: Published | None) -> list[dict[str, Any]]:
    """A line for each method, as in Table 1; values unrounded, with intervals and counts after them."""
    places = [place for section in layout.sections(results, summary, published) for place in section]
    made = []
    for line in layout.lines(results, summary, places, published):
        row: dict[str, Any] = {"method": line.name, "kind": line.kind}
        for key in ("value", "low", "high", "scored", "failed", "inapplicable", "clips", "own"):
            for place, cell in zip(places, line.cells, strict=True):
                name = f"{place.column.name}.{place.subset}" + ("" if key == "value" else f".{key}")
                value = getattr(cell, key, None)
                row[name] = None if value != value or (line.kind == "published" and key != "value") else value
        made.append(row)
    return made


def csv_text(lines: Sequence[dict[str, Any]], head: Sequence[str] | None = None) -> str:
    """Lines with the same keys as CSV below `head`, which is theirs where none is given; no text in it is one that a
    spreadsheet would run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, head or (list(lines[0]) if lines else []), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: inert(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def inert(value: Any) -> Any:
    """A cell as spreadsheets show it: text that begins as a formula does stands behind an apostrophe, which they hide.

    Names come from users, and `=HYPERLINK(...)` is one.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


# Console -----------------------------------------------------------------------------------------------------------


def show(results: Results, console: Console | None = None, published: Published | None = None) -> None:
    """Print the table, narrow enough for 100 columns, which a log has, whatever rich takes it for."""
    summary, console = summarise(results), console or Console()
    if not console.is_terminal:
        console.width = max(console.width, LOG_WIDTH)
    if len(results.systems) < 2:
        head, rows = layout.upright(results, summary)
        table = Table(*head)
        measure = ""
        for row in rows:
            if measure not in ("", row[0]) and len(results.subsets) > 1:
                table.add_section()
            table.add_row(*map(shown, row if row[0] != measure else ["", *row[1:]]))
            measure = row[0]
        console.print(table)
    if len(results.systems) > 1 or published:
        places = [place for section in layout.sections(results, summary, published) for place in section]
        lines = layout.lines(results, summary, places, published)
        for some in (
            [line for line in lines if line.kind != "published"],
            [line for line in lines if line.kind == "published"],
        ):
            for start in range(0, len(some), SYSTEMS_ABREAST):
                console.print(abreast(places, some[start : start + SYSTEMS_ABREAST]))
    if results.controls:
        head, rows = layout.controls(results)
        tried = Table(*head, title="controls", box=None, pad_edge=False)
        for row in rows:
            tried.add_row(*map(shown, row))
        console.print(tried)
    for heading, sentences in notes(results, summary, published).items():
        console.print(f"[bold]{heading}[/]")
        for sentence in sentences:
            console.print(f"  {printable(sentence)}", markup=False, highlight=False)


def abreast(places: Sequence[Place], some: Sequence[Line]) -> Table:
    """Methods beside each other, a measure a row."""
    table = Table(
        "measure", "subset", *(shown(line.name) + layout.PRINTED * (line.kind == "published") for line in some)
    )
    group = ""
    for number_of, place in enumerate(places):
        if not any(line.cells[number_of] for line in some):
            continue
        if place.group != group:
            table.add_section()
            group = place.group
        texts = []
        for line in some:
            cell = line.cells[number_of]
            text = number(place.column, cell.value if cell else None)
            text = f"[bold]{text}[/]" if cell and cell.best else text
            text += layout.mark(cell)
            small = layout.counts(cell) if cell else ""
            under = [layout.bounds(place.column, cell.low, cell.high), layout.own(place.column, cell)] if cell else []
            under += [f"of {' + '.join(cell.subsets)}"] if cell and cell.subsets else []
            under += [layout.BLIND] if cell and layout.blind(place.column, cell) else []
            texts.append("\n".join(filter(None, (f"{text}  [dim]{small}[/]" if small else text, *map(escape, under)))))
        table.add_row(layout.titled(place.column), place.subset, *texts)
    return table


def shown(text: str) -> str:
    """Text of a user's as rich and the terminal may have it."""
    return escape(printable(text))
