"""table.md, .csv and .tex of a matrix: verdicts, rows beside the paper's numbers, differences, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccl.ablation.finished import Finished
from ccl.ablation.matrix import Matrix
from ccl.ablation.numbers import LOSSES, RULE, Decided, Difference, Number, Numbers
from ccl.evaluation.metrics import METRICS
from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables import layout
from ccl.evaluation.tables.layout import PRINTED, Published, bounds, number, probability, titled
from ccl.evaluation.tables.results import MEAN
from ccl.evaluation.tables.table import csv_text
from ccl.evaluation.tables.typeset import md_escape, md_table, tex_escape
from ccl.spelling import counted

MISSING = "Missing"


@dataclass(frozen=True)
class Place:
    """A column of the table of rows: a measure as measured here, or as the paper prints it."""

    column: Column
    printed: bool = False

    @property
    def title(self) -> str:
        return titled(self.column) + f" {PRINTED}" * self.printed


@dataclass(frozen=True)
class Table:
    """A table in words, for any form: a head and rows under a heading."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    hint: str = ""


@dataclass(frozen=True)
class Told:
    """Everything that is written down of a matrix.

    Args:
        matrix: what was to be done.
        finished: what is.
        numbers: of it.
        printed: the paper's numbers by row, then column and subset.
    """

    matrix: Matrix
    finished: Finished
    numbers: Numbers
    printed: Published


def printed_for(matrix: Matrix, published: Published) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """The paper's numbers of each row that names its own there.

    Raises:
        ValueError: a row names one that the paper has not.
    """
    for row in matrix.rows:
        if row.paper and row.paper not in published:
            raise ValueError(f"row {row.name} is the paper's '{row.paper}'; it has {', '.join(published)}")
    return {row.name: published[row.paper] for row in matrix.rows if row.paper}


def places(told: Told) -> list[Place]:
    """Measured columns in order, each with the paper's beside it, then those that are the paper's alone."""
    paper = {name for columns in told.printed.values() for name in columns}
    known = [column for metric in METRICS.values() for column in metric.columns]
    measured = {column.name for column in told.numbers.columns}
    made = []
    for column in told.numbers.columns:
        made += [Place(column), *([Place(column, printed=True)] if column.name in paper else [])]
    return made + [Place(c, printed=True) for c in known if c.name in paper - measured]


def value_text(told: Told, row: str, place: Place) -> str:
    """A row's value with its standard deviation over seeds, or the paper's."""
    if place.printed:
        return number(place.column, printed(told, row, place.column))
    found = told.numbers.rows[row, place.column.name]
    spread = f" ± {number(place.column, found.sd)}" if found.sd == found.sd else ""
    return number(place.column, found.value) + spread


def printed(told: Told, row: str, column: Column) -> float:
    """The paper's number of a row, its mean over subsets; NaN where it has none."""
    return layout.printed_value(told.printed.get(row, {}), layout.Place("", MEAN, column))


# Tables in words -----------------------------------------------------------------------------------------------------


def rows_table(told: Told) -> Table:
    """A line for each row of the matrix, none left out."""
    shown = places(told)
    head = ["row", "seeds", *(place.title for place in shown)]
    rows = []
    for row in told.matrix.rows:
        seeds = told.finished.rows[row.name]
        count = f"{len(seeds)} of {len(told.finished.seeds)}" if seeds else "missing"
        rows.append([row.name, count, *(value_text(told, row.name, place) for place in shown)])
    text = "Mean over seeds, each the mean of the subsets' values, ± standard deviation over seeds." + (
        f" {PRINTED} as printed in the paper, of its own clips and weights." * any(place.printed for place in shown)
    )
    if ready := [run.name for run in told.matrix.runs if run.ckpt is not None]:
        text += f" Rows of {', '.join(ready)} are of one model each, of which seeds are those of the noise alone."
    return Table("Results", head, rows, text)


def chance_table(told: Told) -> Table:
    """Each row's value beside what chance gives, of measures that have such a floor."""
    head = ["measure", "row", "value", "shuffled", "above", "p at each seed"]
    rows = []
    for column in told.numbers.columns:
        for row in told.matrix.rows:
            if at_seeds := told.finished.chance.get((row.name, column.name)):
                value = told.numbers.rows[row.name, column.name].value
                floor = sum(one["shuffled"] for one in at_seeds.values()) / len(at_seeds)
                p = ", ".join(probability(one["p"]) for one in at_seeds.values())
                above = number(column, value - floor, sign=True)
                rows.append([titled(column), row.name, number(column, value), number(column, floor), above, p])
    text = (
        "Shuffled: the pictures of each clip with the sound of another one of the same row, seed and subset; like the "
        "value the mean over seeds of the subsets' means. p: how often a shuffling of all clips gives as much as the "
        "true pairs; a row whose p is small has learned what belongs together."
    )
    return Table("Chance", head, rows, text)


def differences_table(told: Told) -> Table:
    """Each row's difference to the one it is compared with, measure by measure."""
    head = ["measure", "row", "compared with", "difference", "95 %", "p", "", "at each seed", "clips"]
    rows = [difference_row(difference) for difference in told.numbers.differences]
    losses = any(d.column.name in LOSSES for d in told.numbers.differences)
    text = (
        "Row less the one it is compared with, on the same clips and seeds. The interval is over clips (resampled in "
        "blocks, a clip with all its seeds) and seeds (Student's t); p by exchanging the two within clips. "
        + "Losses are of the runs, over the steps of the joint task, in place of clips. " * losses
        + RULE
    )
    return Table("Differences", head, rows, text)


def difference_row(d: Difference) -> list[str]:
    """A difference in words and numbers, or why there is none."""
    if d.missing:
        return [titled(d.column), d.row, d.versus, d.missing, "", "", "", "", ""]
    each = ", ".join(number(d.column, value, sign=True) for value in (d.seeds or {}).values())
    signed = number(d.column, d.value, sign=True)
    interval = bounds(d.column, d.low, d.high, sign=True)
    return [titled(d.column), d.row, d.versus, signed, interval, probability(d.p), "*" * d.starred, each, str(d.clips)]


def claims_table(told: Told) -> Table:
    """Claim by claim the verdict, then its tests with what decides them."""
    head = ["verdict", "claim", "test", "better by", "95 %", "at each seed"]
    rows = [line for one in told.numbers.decided for line in claim_rows(one)]
    text = (
        "How much better the row is of which it is said, turned so that more is better. A test holds where the whole "
        "interval lies above 0 (of 'no worse' above minus the margin), does not where the whole interval lies below, "
        "and is undecided between; of one seed everything is undecided. A claim holds where all its tests do."
    )
    return Table("Verdict", head, rows, text)


def claim_rows(one: Decided) -> list[list[str]]:
    """A claim's lines: its own verdict, or of several tests one more for each."""
    made = test_rows(one)
    if len(made) == 1:
        return [[one.verdict, one.claim.says, *made[0][2:]]]
    return [[one.verdict, one.claim.says, "", "", "", ""], *([f"- {line[0]}", *line[1:]] for line in made)]


def test_rows(one: Decided) -> list[list[str]]:
    """A line for each test of a claim, the claim's own words left out."""
    made = []
    for test, verdict, d in one.tests:
        gain, low, high = d.gain
        margin = "" if test.margin is None else f", no worse than by {number(d.column, test.margin)}"
        words = f"{d.row} against {d.versus}: {titled(d.column)}{margin}"
        sign = -1 if d.column.better == "lower" else 1
        each = ", ".join(number(d.column, sign * value, sign=True) for value in (d.seeds or {}).values())
        better = d.missing or number(d.column, gain, sign=True)
        made.append([verdict, "", words, better, bounds(d.column, low, high, sign=True), each])
    return made


def every_table(told: Told) -> list[Table]:
    """All tables that have a row, in order."""
    return [t for t in (claims_table(told), rows_table(told), chance_table(told), differences_table(told)) if t.rows]


def notes(told: Told) -> dict[str, list[str]]:
    """What is missing and what was not measured, by heading; headings without a line are left out."""
    results = told.finished.results
    lacking = [f"{name}: {sentence}" for name, sentence in results.missing.items()]
    gaps, failed = [], []
    for (row, name), one in told.numbers.rows.items():
        column = next(column for column in told.numbers.columns if column.name == name)
        if told.finished.rows[row] and one.value != one.value:
            gaps.append(f"row {row}, {column.title}: {one.missing}")
        elif reasons := results.reasons.get((row, name)):
            every = len(told.finished.rows[row]) * len(told.finished.test)
            failed.append(f"row {row}, {column.title}: {len(reasons)} of {every}; no row is measured on these clips")
    found = {MISSING: [*told.finished.missing, *gaps], "Not measured": lacking, "Clips without a value": failed}
    return {heading: lines for heading, lines in found.items() if lines}


# Forms ---------------------------------------------------------------------------------------------------------------


def lede(told: Told) -> str:
    """What the matrix is, and how much of it is there."""
    done = sum(map(len, told.finished.rows.values()))
    seeds = len(told.finished.seeds)
    every = len(told.matrix.rows) * seeds
    state = "" if done == every else f" Not finished: {done} of {every} rows at their seeds are there."
    return (
        f"{counted(len(told.matrix.rows), 'row')}, {counted(len(told.matrix.runs), 'run')}, {counted(seeds, 'seed')}, "
        f"{counted(len(told.finished.test), 'clip')} a row and seed.{state}"
    )


def markdown(told: Told) -> str:
    """The whole of it as Markdown."""
    parts = [f"# {md_escape(told.matrix.name)}\n\n{md_escape(told.matrix.about)}\n\n{lede(told)}\n"]
    for table in every_table(told):
        parts.append(f"## {table.heading}\n\n{md_table(table.head, table.rows)}\n{md_escape(table.hint)}\n")
    if any(told.finished.rows.values()):
        parts.append("## Rows\n\n![Each row's value in each measure, its 95 % interval and its seeds](rows.png)\n")
    for heading, lines in notes(told).items():
        parts.append(f"## {heading}\n\n" + "".join(f"- {md_escape(line)}\n" for line in lines))
    if told.finished.curves:
        parts.append("## Losses\n\n![Losses of the joint task by step](curves.png)\n")
    return "\n".join(parts)


def csv(told: Told) -> str:
    """A line for each row, measure and row it is compared with, unrounded; empty where there is no number."""
    lines = []
    for row in told.matrix.rows:
        for place in places(told):
            if place.printed and place.column in told.numbers.columns:
                continue
            found = told.numbers.rows.get((row.name, place.column.name), Number(missing="not measured here"))
            against = [d for d in told.numbers.differences if (d.row, d.column) == (row.name, place.column)]
            lines += [
                csv_line(told, row.name, place.column, found, d) for d in [*against, *([] if against else [None])]
            ]
    return csv_text(lines)


def csv_line(told: Told, row: str, column: Column, found: Number, d: Difference | None) -> dict[str, Any]:
    numbers = {"value": found.value, "sd": found.sd, "low": found.low, "high": found.high}
    numbers["paper"] = printed(told, row, column)
    line: dict[str, Any] = {"row": row, "measure": column.name} | filled(numbers)
    line |= {"clips": found.clips, "seeds": len(found.seeds or ())}
    line |= {f"seed {seed}": (found.seeds or {}).get(seed) for seed in told.finished.seeds}
    numbers = {k: getattr(d, k, float("nan")) for k in ("value", "low", "high", "p")}
    line |= {"compared with": d.versus if d else ""} | {f"difference {k}": v for k, v in filled(numbers).items()}
    return line | {"starred": d.starred if d else None, "missing": found.missing or (d.missing if d else "")}


def filled(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """None in place of no number."""
    return {name: None if value != value else value for name, value in numbers.items()}


def tex(told: Told) -> str:
    """Tables for a paper; they need booktabs."""
    parts = ["% Needs \\usepackage{booktabs} and, for names beyond ASCII, a Unicode engine.\n"]
    for table in every_table(told):
        rows = [" & ".join(tex_escape(text).replace("±", r"$\pm$") for text in row) + r" \\" for row in table.rows]
        head = " & ".join(map(tex_escape, table.head)) + r" \\"
        columns = "l" * min(2, len(table.head)) + "c" * (len(table.head) - 2)
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
        parts.append("\n".join([f"% {table.heading}", *lines, r"\bottomrule", r"\end{tabular}", f"% {table.hint}", ""]))
    below = [f"% {' '.join(line.split())}" for lines in notes(told).values() for line in lines]
    return "\n".join([*parts, *below, ""])
