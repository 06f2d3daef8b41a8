"""Findings as table.md and table.csv. Names come from users, so whatever means something there is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccl.evaluation.tables.statistics import FEWEST
from ccl.evaluation.tables.table import csv_text
from ccl.evaluation.tables.typeset import md_escape, md_table
from ccl.files import write_whole
from ccl.study.findings import Findings, Rater
from ccl.study.key import Key

DASH = "–"  # noqa: RUF001 - as tables have it where there is no value


def write(key: Key, findings: Findings, out: Path) -> str:
    """Write both files into a folder, each whole; the text of the first."""
    text = markdown(key, findings)
    write_whole(out / "table.md", text)
    write_whole(out / "table.csv", csv_text(lines(findings)))
    return text


def markdown(key: Key, findings: Findings) -> str:
    """Tables of win rates, of the order of several systems and of agreement, and what they rest on."""
    parts = [
        f"# Study {key.study}\n",
        "### Win rates\n",
        md_table(
            ["question", "systems", "win rate", "95 %", "wins", "ties", "losses", "raters", "rows", ""],
            [
                [
                    p.question, f"{p.a} over {p.b}", percent(p.value), span(p.low, p.high), str(p.wins), str(p.ties),
                    str(p.losses), str(p.raters), str(p.rows), "" if p.told_apart else "not distinguishable",
                ]
                for p in findings.pairs
            ],
        ),
    ]  # fmt: skip
    if findings.places:
        parts += [
            "### Order\n",
            md_table(
                ["question", "system", "preferred to a middling one", "95 %"],
                [[p.question, p.system, percent(p.value), span(p.low, p.high)] for p in findings.places],
            ),
        ]
    parts += [
        "### Agreement between raters\n",
        md_table(
            ["question", "alpha", "same answer", "comparisons with several raters"],
            [[a.question, number(a.alpha), percent(a.same), str(a.comparisons)] for a in findings.agreements],
        ),
        "### Notes\n",
        "".join(f"- {md_escape(sentence)}\n" for sentence in notes(key, findings)),
    ]
    return "\n".join(parts)


def notes(key: Key, findings: Findings) -> list[str]:
    """What the figures rest on, in sentences."""
    counted = [one for one in findings.raters if one.name not in findings.left_out]
    said = [
        f"{len(counted)} raters, {sum(one.answers for one in counted)} answers.",
        "A win rate counts a tie as half a win. Its interval resamples raters and rows at once, so it is of other "
        f"raters and other rows too; of one rater alone it is of other rows. Fewer than {FEWEST} of both have none.",
        "Agreement is Krippendorff's alpha, since raters see different parts: 1 is full agreement, 0 what "
        "chance gives. A tie lies between the two answers, and each comparison counts both ways round.",
    ]
    if findings.places:
        said.append(
            "The order is Bradley and Terry's, a tie half a win; each system also meets a middling one once and ties."
        )
    for one in findings.raters:
        if one.failed:
            kept = "" if one.name in findings.left_out else ", and is counted all the same"
            said.append(f"{one.name} fails the checks ({checked(one)}){kept or ', and is left out'}.")
    if unchecked := [one.name for one in counted if not any(of for _, of in one.checks.values())]:
        said.append(f"No check was answered by {some(unchecked)}.")
    said += [f"Did not play in {count} answers: {pair}." for pair, count in findings.broken.items()]
    said += [f"Nobody saw row {row}: {why}." for row, why in key.left_out.items()]
    if key.converted:
        said.append(
            f"{len(key.converted)} clips were encoded anew, their sound mono, for browsers: {some(key.converted)}."
        )
    return said


def checked(one: Rater) -> str:
    """How many checks were right, in words."""
    kinds = {"same": "one clip twice", "shuffled": "another clip's sound"}
    return ", ".join(f"{kinds[kind]} {right} of {of}" for kind, (right, of) in one.checks.items() if of)


def lines(findings: Findings) -> list[dict[str, Any]]:
    """A line for each figure, as numbers; None where there is none."""
    blank = dict.fromkeys(
        ("kind", "question", "a", "b", "value", "low", "high", "wins", "ties", "losses", "raters", "rows")
    )
    made: list[dict[str, Any]] = [{"kind": "win rate", **vars(p)} for p in findings.pairs]
    made += [
        {"kind": "strength", "question": p.question, "a": p.system, "value": p.value, "low": p.low, "high": p.high}
        for p in findings.places
    ]
    for a in findings.agreements:
        made.append({"kind": "alpha", "question": a.question, "value": a.alpha, "rows": a.comparisons})
        made.append({"kind": "same answer", "question": a.question, "value": a.same, "rows": a.comparisons})
    return [{**blank, **{k: None if v != v else v for k, v in line.items()}} for line in made]


def percent(value: float) -> str:
    return f"{100 * value:.1f}%" if value == value else DASH


def span(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]" if low == low else DASH


def number(value: float) -> str:
    return f"{value:.2f}" if value == value else DASH


def some(names: Sequence[str]) -> str:
    """Some names, of many the first."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
