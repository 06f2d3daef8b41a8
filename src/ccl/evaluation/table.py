"""Scores to a table: mean by subset and measure, with how many were scored and failed, chance beside it and ceiling.

Writes scores.jsonl, table.json and table.md, each whole; prints the same table.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ccl.evaluation.metrics.base import Metric
from ccl.evaluation.score import Scored, score_folder, subsets
from ccl.files import write_whole
from ccl.rows import Row, write_rows

HEAD = ("subset", "measure", "value", "shuffled", "p", "ceiling", "scored", "failed")


def evaluate(
    folder: str | Path,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    out: str | Path,
    *,
    reference: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Score a folder of clips, write scores and table into `out`, print the table.

    Args:
        folder: of clips named by the rows' ids.
        rows: the test set.
        metrics: what to measure.
        out: folder of the results.
        reference: a folder of true clips under the same names, for the ceiling.
        progress: called with (clips done, of how many).
        console: where the table is printed.

    Returns:
        The lines of the table.
    """
    out = Path(out)
    scored = score_folder(folder, rows, metrics, progress=progress)
    write_whole(out / "scores.jsonl", write_rows(scored.rows))
    ceiling = score_folder(reference, rows, metrics) if reference is not None else None
    lines = summarise(scored, metrics, ceiling)
    notes = notes_of(scored, Path(folder))
    write_whole(out / "table.json", json.dumps({"lines": lines, "notes": notes}, indent=1, ensure_ascii=False))
    write_whole(out / "table.md", markdown(lines, notes))
    show(lines, notes, console or Console())
    return lines


def summarise(scored: Scored, metrics: Sequence[Metric], ceiling: Scored | None = None) -> list[dict[str, Any]]:
    """One line for each subset and column; chance stands beside a metric's first column."""
    lines = []
    for subset in subsets([row["subset"] for row in scored.rows]):
        for metric in metrics:
            rows = select(scored, subset, metric)
            by_chance = scored.chance.get((subset, metric.name), {})
            for column in metric.columns if rows else ():
                first = column == metric.columns[0]
                failed = sum("failed" in row for row in rows)
                lines.append(
                    {
                        "subset": subset,
                        "measure": column,
                        "value": mean(rows, column),
                        "shuffled": by_chance.get("shuffled") if first else None,
                        "p": by_chance.get("p") if first else None,
                        "ceiling": mean(select(ceiling, subset, metric), column) if ceiling else None,
                        "scored": len(rows) - failed,
                        "failed": failed,
                    }
                )
    return lines


def select(scored: Scored, subset: str, metric: Metric) -> list[dict[str, Any]]:
    """Score rows of one metric and subset."""
    return [row for row in scored.rows if row["metric"] == metric.name and subset in ("all", row["subset"])]


def mean(rows: Sequence[dict[str, Any]], column: str) -> float | None:
    """Over all rows, failures with their worst value among them."""
    return sum(row[column] for row in rows) / len(rows) if rows else None


def notes_of(scored: Scored, folder: Path) -> list[str]:
    """What stands under the table: metrics that could not run, reasons of failures, and what the clips follow from."""
    notes = [f"{metric}: not measured; {reason}" for metric, reason in scored.unavailable.items()]
    reasons = Counter(row["failed"] for row in scored.rows if "failed" in row)
    for reason, count in reasons.most_common(5):
        ids = dict.fromkeys(row["id"] for row in scored.rows if row.get("failed") == reason)
        named = ", ".join(list(ids)[:5]) + (", ..." if len(ids) > 5 else "")
        notes.append(f"failed ({count}): {reason}; {named}")
    return notes + causes(folder)


def causes(folder: Path) -> list[str]:
    """Weights and guidance from the records beside the clips, where there are any; every different one is named."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(record, dict) and "guidance" in record:
            given = [key for key in ("image", "audio", "video") if record.get(key)]
            how = f"{record['guidance'].get('rule')}, {record.get('steps')} steps of {record.get('solver')}"
            cause = f"weights {str(record.get('weights'))[:12]}, {how}, from {' + '.join(['text', *given])}"
            found[cause] = found.get(cause, 0) + 1
    return [f"{count} clips: {cause}" for cause, count in found.items()]


def text_of(value: Any) -> str:
    """Three decimals; what rounds to nothing and is not nothing (a small p) says so."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return "< 0.001" if 0 < value < 5e-4 + 1e-9 else f"{value:.3f}"


def markdown(lines: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """The table as Markdown."""
    rows = [HEAD, ["---"] * len(HEAD), *([text_of(line[key]) for key in HEAD] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "".join(f"\n{note}\n" for note in notes)


def show(lines: Sequence[dict[str, Any]], notes: Sequence[str], console: Console) -> None:
    """Print the table."""
    table = Table(*HEAD)
    for line in lines:
        table.add_row(*(text_of(line[key]) for key in HEAD))
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
