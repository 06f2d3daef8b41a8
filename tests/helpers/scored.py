"""Results of scoring for tests of tables and reports: two systems and true clips, few rows, numbers that are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.results import Results
from ccl.rows import Row

COLUMNS = (
    Column("cu", "CU"),
    Column("wer", "WER", "lower", percent=True, over=("wer_errors", "wer_words")),
    Column("wer_errors", "errors", shown=False),
    Column("wer_words", "words", shown=False),
    Column("sync_c", "Sync-C"),
    Column("ib_score", "IB-Score"),
    Column("mouth", "Mouth", digits=3),
)
NO_FACE = "no face is tracked for 50 pictures"
LACKING = "imagebind is not here (4.8 GB): ccl weights fetch imagebind"
PUBLISHED = {
    "Ovi": {
        "cu": {"mean": 5.88},
        "wer": {"mean": 0.1751},
        "sync_c": {"easy": 8.47, "hard": 5.96},
        "ib_score": {"easy": 0.2},
    },
    "CCL": {"cu": {"mean": 5.71}, "wer": {"mean": 0.0462}, "sync_c": {"easy": 8.45, "hard": 6.12}},
}


def scored(
    methods: Sequence[str] = ("ours", "ovi"),
    count: int = 4,
    clips: dict[tuple[str, str], Path] | None = None,
    **row: Any,
) -> Results:
    """`count` rows, half easy and half hard; `row` goes into every Row. The first method is the best of all columns.

    CU of clip i of method m is 5 + 0.1 i - m; one word of the 4 of a row is wrong for method 1, none for the others;
    clip 0 of method 1 has no face.
    """
    words = {"speech": "hello there my friend", "prompt": 'She says "hello there my friend"', **row}
    subsets = ["easy" if i < count // 2 else "hard" for i in range(count)]
    test = [Row(f"r{i}", subset=subset, **words) for i, subset in enumerate(subsets)]
    rows: list[dict[str, Any]] = []
    for m, method in enumerate(methods):
        for i, one in enumerate(test):
            values: dict[str, float | None] = {"cu": 5 + 0.1 * i - m, "wer_errors": float(m == 1), "wer_words": 4.0}
            values |= {
                "wer": (m == 1) / 4,
                "sync_c": None if (m, i) == (1, 0) else 7.0 - m,
                "ib_score": None,
                "mouth": 0.8,
            }
            for name, value in values.items():
                reason = None if value is not None else LACKING if name == "ib_score" else NO_FACE
                heard = {"text": "hello there my fiend" if m else "hello there my friend"} if name == "wer" else {}
                rows.append({"method": method, "id": one.id, "metric": name, "value": value, "reason": reason, **heard})
    pooled = [
        {"method": method, "subset": subset, "name": f"mouth.{name}", "value": value}
        for method in methods
        for subset in ("easy", "hard", "all")
        for name, value in (("shuffled", 0.25), ("p", 0.0001))
    ]
    protocol = {
        "sync": {"min_track": 50, "legacy_avi": False, "weights": {"syncnet": "0123456789ab" + "0" * 52}},
        "desync": {"chance": 1.048},
        "imagebind": {"missing": LACKING},
    }
    causes = {methods[0]: [f"{count} clips: weights c754fe, UCG2, 20 steps of euler, from text"]}
    return Results(rows, test, COLUMNS, pooled, protocol, clips or {}, causes)


def without(results: Results, method: str, metric: str, ids: set[str], reason: str, **more) -> Results:
    """The same, but these clips of a method have no value of a metric."""
    rows = [
        dict(row, value=None, reason=reason, **more)
        if row["method"] == method and row["metric"].startswith(metric) and row["id"] in ids
        else row
        for row in results.rows
    ]
    return replace(results, rows=rows)
