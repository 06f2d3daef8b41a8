"""Planted scores of three systems on five clips, whose every table was worked out by hand.

A fails at h2 and there is nothing to measure of C in h3, so CU is over e1, e2 and h1; of Sync-C, A and B have no clip
in common.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ccl.evaluation.report import page
from ccl.evaluation.tables import table, typeset
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.summary import Summary, summarise
from ccl.rows import Row
from helpers import scored

A, B, C = "=cmd|a", "two\nlines *b*", "_c_ & <i>10%</i>"
IDS = ("e1", "e2", "h1", "h2", "h3")
COLUMNS = scored.COLUMNS[:5]  # CU, the word error rate with what it is made of, Sync-C
PLANTED: dict[str, dict[str, list[float | None]]] = {
    "cu": {A: [2, 4, 6, None, 8], B: [2, 4, 6, 1, 8], C: [1, 3, 9, 9, None]},
    "sync_c": {A: [1, 3, None, None, None], B: [None, None, 5, 5, 5], C: [4, 4, 2, 2, 2]},
    "wer_errors": {A: [1, 0, 1, 0, 0], B: [0, 0, 1, 0, 0], C: [2, 0, 0, 0, 0]},
    "wer_words": {method: [4, 4, 2, 1, 1] for method in (A, B, C)},
}
# In a subset where a system has nothing at all, the others are compared on the clips that they have in common.
# (value, shown as best, scored, failed, not applicable, own value over all clips of the system, or None)
CELLS = {
    ("cu", "easy"): {A: (3, True, 2, 0, 0, None), B: (3, True, 2, 0, 0, None), C: (2, False, 2, 0, 0, None)},
    ("cu", "hard"): {A: (6, False, 2, 1, 0, 7), B: (6, False, 3, 0, 0, 5), C: (9, True, 2, 0, 1, 9)},
    ("cu", "mean"): {A: (4.5, False, 4, 1, 0, 5), B: (4.5, False, 5, 0, 0, 4), C: (5.5, True, 4, 0, 1, 5.5)},
    ("wer", "easy"): {A: (1 / 8, False, 2, 0, 0, None), B: (0, True, 2, 0, 0, None), C: (1 / 4, False, 2, 0, 0, None)},
    ("wer", "hard"): {A: (1 / 4, False, 3, 0, 0, None), B: (1 / 4, False, 3, 0, 0, None), C: (0, True, 3, 0, 0, None)},
    ("wer", "mean"): {A: (3 / 16, False, 5, 0, 0, None), B: (1 / 8, True, 5, 0, 0, None),
                      C: (1 / 8, True, 5, 0, 0, None)},
    ("sync_c", "easy"): {A: (2, False, 2, 0, 0, None), B: (None, False, 0, 2, 0, None), C: (4, True, 2, 0, 0, None)},
    ("sync_c", "hard"): {A: (None, False, 0, 3, 0, None), B: (5, True, 3, 0, 0, None), C: (2, False, 3, 0, 0, None)},
    ("sync_c", "mean"): {A: (2, False, 2, 3, 0, None), B: (5, False, 3, 2, 0, None), C: (3, False, 5, 0, 0, None)},
}  # fmt: skip
# (a minus b, share of the exchanges of clips between both that give as large a difference)
DIFFERENCES = {
    ("cu", "mean"): {(A, B): (0, 1), (A, C): (-1, 1), (B, C): (-1, 1)},
    ("cu", "easy"): {(A, B): (0, 1), (A, C): (1, 1 / 2), (B, C): (1, 1 / 2)},
    ("wer", "mean"): {(A, B): (1 / 16, 1), (A, C): (1 / 16, 1), (B, C): (0, 1)},
    ("sync_c", "mean"): {(A, C): (-2, 1 / 2), (B, C): (3, 1 / 4)},  # over easy clips alone, and over hard ones
}


@pytest.fixture(scope="module")
def results() -> Results:
    rows = []
    for metric, systems in PLANTED.items():
        for method, values in systems.items():
            for i, value in zip(IDS, values, strict=True):
                said = (
                    {} if value is not None else {"reason": "no face is found", "applicable": (method, i) != (C, "h3")}
                )
                rows.append({"method": method, "id": i, "metric": metric, "value": value, "reason": "", **said})
    for method in (A, B, C):  # of each clip; tables take the sums
        for place, i in enumerate(IDS):
            rate = PLANTED["wer_errors"][method][place] / PLANTED["wer_words"][method][place]
            rows.append({"method": method, "id": i, "metric": "wer", "value": rate, "reason": ""})
    return Results(rows, [Row(i, "p", subset="easy" if i[0] == "e" else "hard") for i in IDS], COLUMNS)


@pytest.fixture(scope="module")
def summary(results: Results) -> Summary:
    return summarise(results, resamples=50)


@pytest.mark.parametrize(("column", "subset"), CELLS)
def test_every_number_bold_count_and_mark_is_that_worked_out_by_hand(
    column: str, subset: str, summary: Summary
) -> None:
    for method, (value, best, *counts, own) in CELLS[column, subset].items():
        cell = summary.cells[method, subset, column]
        assert cell.value == pytest.approx(np.nan if value is None else value, nan_ok=True)
        assert (cell.best, [cell.scored, cell.failed, cell.inapplicable]) == (best, counts), (method, cell)
        assert cell.own == pytest.approx(np.nan if own is None else own, nan_ok=True)
    part = {A: ("easy",), B: ("hard",)} if (column, subset) == ("sync_c", "mean") else {}
    assert {m: summary.cells[m, subset, column].subsets for m in (A, B, C)} == {A: (), B: (), C: (), **part}


@pytest.mark.parametrize(("column", "subset"), DIFFERENCES)
def test_comparisons_have_the_sign_and_size_worked_out_by_hand(column: str, subset: str, summary: Summary) -> None:
    found = {(p.a, p.b): p for p in summary.pairs if (p.column, p.subset) == (column, subset)}
    assert found.keys() == DIFFERENCES[column, subset].keys()
    for names, wanted in DIFFERENCES[column, subset].items():
        assert (found[names].difference, found[names].p) == pytest.approx(wanted)


def test_names_are_text_in_every_format(results: Results, summary: Summary, tmp_path: Path) -> None:
    table.write(results, tmp_path)
    for name in ("table.csv", "summary.csv"):
        with (tmp_path / name).open(newline="") as file:
            assert {line["method"] for line in csv.DictReader(file)} == {"'=cmd|a", B, C}
    text = typeset.markdown(results, summary)
    wide, _ = text.split("\n\n", 1)
    assert {line.replace("\\|", "").count("|") for line in wide.splitlines()} == {6}
    for row in (
        "| =cmd\\|a | 4.50‡ | 18.75% | 2.00 | — |",
        "| two lines \\*b\\* | 4.50‡ | **12.50%** | — | **5.00** |",
        "| \\_c\\_ &amp; &lt;i&gt;10%&lt;/i&gt; | **5.50**‡ | **12.50%** | **4.00** | 2.00 |",
        "| n | 4/0, 1 n/a | 5/0 | 2/0 | 3/0 |",
        "| all its own | 5.00 of 4, 3 common |  |  |  |",
    ):
        assert f"{row}\n" in wide
    tex = typeset.tex(results, summary)
    for name in (r"{=cmd$|$a} & 4.50", r"{two lines *b*} & 4.50", r"{\_c\_ \& $<$i$>$10\%$<$/i$>$} & \textbf{5.50}"):
        assert name in tex
    page.write(results, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "<i>10%" not in html and "_c_ &amp; &lt;i&gt;10%&lt;/i&gt;" in html
