"""What a matrix has told so far, written into its folder: table.md, .csv and .tex, rows.png and
curves.png with their .svg, report.html.

Whatever is not finished is named; nothing is left blank. The folder can be handed on as it is.
"""

from __future__ import annotations

from pathlib import Path

from ccl.ablation import curves, dots, page, tables
from ccl.ablation.finished import gather
from ccl.ablation.matrix import Matrix
from ccl.ablation.numbers import numbers, trained_pairs
from ccl.ablation.tables import Told, printed_for
from ccl.cli.testsets import published
from ccl.files import write_whole


def write(matrix: Matrix, folder: Path) -> None:
    """Write tables, curves and page of what is finished.

    Args:
        matrix: what was to be done.
        folder: of the matrix, with its `runs/`, `rows/` and test.jsonl.

    Raises:
        FileError: a file that is there is none of its kind.
        ValueError: a row names another of the paper's that the paper has not.
    """
    printed = printed_for(matrix, published("table_1", "table_2"))
    finished = gather(matrix, folder)
    told = Told(matrix, finished, numbers(matrix, finished), printed)
    dots.draw([row.name for row in matrix.rows], told.numbers.columns, told.numbers.rows, folder)
    curves.draw(finished.curves, trained_pairs(matrix), folder)
    for suffix, text in (("md", tables.markdown(told)), ("csv", tables.csv(told)), ("tex", tables.tex(told))):
        write_whole(folder / f"table.{suffix}", text)
    page.write(told, folder)
