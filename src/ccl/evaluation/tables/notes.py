"""What stands below a table: how to read it, what was not measured, why clips failed, what the numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccl.evaluation.metrics.sets import EXTRAPOLATED
from ccl.evaluation.tables.layout import (
    BLIND,
    COMMON,
    PART,
    PRINTED,
    Line,
    Published,
    extra_names,
    lines,
    number,
    probability,
    sections,
    seen,
    told_apart,
    whole,
)
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.statistics import ALPHA, FEWEST, LEVEL, POWER
from ccl.evaluation.tables.summary import Summary
from ccl.spelling import counted

REASONS, EXAMPLES, MANY = 12, 3, 4  # how many reasons, clips and columns are spelled out


def notes(results: Results, summary: Summary, published: Published | None = None) -> dict[str, list[str]]:
    """What stands below the table, by heading; headings without a line are left out."""
    found = {
        "Told apart": told_apart(results, summary),
        "Controls": tried(results),
        "How to read it": reading(results, summary, published),
        "Not measured": [f"{name}: {sentence}" for name, sentence in results.missing.items()],
        "Clips without a value": failures(results),
        "Not applicable": reasons_told(results, results.inapplicable),
        "Not as its suite has it": [f"{name}: {what}" for name, what in results.lacks.items()],
        "Protocol": [f"{name}: {said(p)}" for name, p in results.protocol.items() if name not in results.missing and p],
        "Clips": [f"{method}: {cause}" for method, causes in results.causes.items() for cause in causes],
        "Scored": [f"{name}: {what}" for name, what in results.about.items()],
    }
    return {heading: sentences for heading, sentences in found.items() if sentences}


def reading(results: Results, summary: Summary, published: Published | None) -> list[str]:
    """What the numbers of the table are."""
    cells = list(summary.cells.values())
    counts = "n is clips scored/failed; a" if len(results.systems) > 1 or published else "A"
    made = [
        f"In brackets: {LEVEL:.0%} percentile bootstrap over the clips that have a value. "
        f"{counts} failed clip is left out of the value."
    ]
    if "p" in extra_names(summary) and not results.controls:
        made.append(
            "Shuffled is each picture beside another clip's sound, and p how often shufflings of all clips do as well "
            f"as the true pairs; of fewer than {FEWEST} clips it tells nothing."
        )
    if any(map(results.is_ceiling, results.methods[1:])):
        made.append("The ceiling is true clips; n of how many, where they are fewer.")
    if also := [
        f"{column.title} the {column.also}"
        for column in (results.columns if published else results.shown)
        if column.also
    ]:
        made.append(f"{' and '.join(also)} of other tables.".replace(" the ", " is the ", 1))
    if any(cell.inapplicable for cell in cells):
        made.append("n/a are clips in which there was nothing to measure, which is no failure.")
    if len(results.subsets) > 1:
        beside = "; so is what stands beside it, but p, which is of all clips" if any(c.extras for c in cells) else ""
        made.append(f"The mean is that of the values of {' and '.join(results.subsets)}{beside}.")
    if any(cell.subsets for cell in cells):
        made.append(f"{PART} is the mean of the subsets that have a value, and says of which; the others have none.")
    if len(results.systems) > 1:
        made.append(
            "Systems are measured on the clips that all of them have a value of. Bold is the best of these values as "
            f"shown{'; differences between systems are in the comparison' if summary.pairs else ''}."
        )
    if summary.pairs:
        made.append(
            "p of two systems is by exchanging them within clips (sign flips), beside it corrected for the number of "
            f"columns in which the two are compared (Holm); {POWER:.0%} with is how many clips would give a p below "
            f"{ALPHA:g} of that column alone in {POWER:.0%} of cases, were the difference and its spread as seen."
        )
    if results.protocols:
        made.append(
            "A row is a system by one protocol, NAME / PROTOCOL. Only systems by the same protocol are better or worse "
            "than each other; between protocols a difference is the convention's."
        )
    if any(cell.own == cell.own for cell in cells):
        made.append(
            f"{COMMON} is of fewer clips than the method has, those that all systems have; the value of all its own "
            "stands beside and is compared with nothing."
        )
    made += of_few(results, summary)
    if any(p for line in printed_lines(results, summary, published) for p in line.cells):
        made.append(
            f"{PRINTED} as printed in the paper, not measured here: its clips are not public and its protocol is not "
            "fully known, so these rows stand beside the others and are not compared with them."
        )
    return made


def tried(results: Results) -> list[str]:
    """Of every system which measures of sync tell its clips from shuffled ones, and which do not."""
    titles, at = {column.name: column for column in results.columns}, whole(results)
    made = []
    lines = [line for line in results.controls if line["subset"] == at and line["control"] == "shuffled"]
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [(titles[line["column"]], line) for line in lines if line["method"] == method]
        if sees := [f"{c.title} (p {told(line['p'])})" for c, line in own if seen(c, line)]:
            made.append(f"{', '.join(sees)} of {method} tell true clips from shuffled ones.")
        made += [
            f"{c.title} of {method} {BLIND} on {these(line['clips'])} ({number(c, line['true'])} against "
            f"{number(c, line['value'])}, p {told(line['p'])}): "
            + (f"fewer than {FEWEST} tell nothing." if line["clips"] < FEWEST else "here it says nothing of sync.")
            for c, line in own
            if not seen(c, line)
        ]
    if made:
        made.append(
            "Shuffled: each clip with another one's sound; early and late: its own sound moved; still: one picture; "
            f"silent: no sound. * is worse than true with p below {ALPHA:g} (sign flips within clips; mouth against "
            "shufflings of all clips)."
        )
    return made


def these(clips: int) -> str:
    """Clips in words."""
    return "this one clip" if clips == 1 else f"these {clips} clips"


def told(p: float) -> str:
    """A p in words: "= 0.031", "< 0.001"."""
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def of_few(results: Results, summary: Summary) -> list[str]:
    """What is to be known of numbers of whole sets: what is extrapolated, and which are of few clips."""
    made = []
    if any(name == EXTRAPOLATED for cell in summary.cells.values() for name, _ in cell.extras):
        made.append(
            "Extrapolated is what a distance of two sets tends to as both grow: a line through its values of parts of "
            "them, over 1 / n, at 0. n biases it less, and it scatters more."
        )
    for column in results.shown:
        counts = [cell.clips for (_, _, name), cell in summary.cells.items() if name == column.name and cell.clips]
        if counts and min(counts) < column.width:
            made.append(
                f"{column.title} is of {min(counts)} clips and of {column.width} features: of so few clips it says "
                "more about n than about them. Compare sets of one size alone; extrapolated it is too large as well."
            )
    return made


def printed_lines(results: Results, summary: Summary, published: Published | None) -> list[Line]:
    """The rows of published numbers that a table has."""
    every = [lines(results, summary, places, published) for places in sections(results, summary, published)]
    return [line for some in every for line in some if line.kind == "published"]


def failures(results: Results) -> list[str]:
    """Why clips have no value, by reason."""
    return reasons_told(results, results.reasons)


def reasons_told(results: Results, reasons: Mapping[tuple[str, str], Mapping[str, str]]) -> list[str]:
    """Reasons, the most frequent first, with the columns and clips they concern."""
    found: dict[str, dict[str, dict[str, None]]] = {}  # ordered sets
    lacking = set(results.missing.values())
    titles = {column.name: column.title for column in results.columns}
    shown = {column.title for column in results.columns if column.shown}
    for (method, column), by_id in reasons.items():
        for id, reason in by_id.items():
            if reason in lacking:
                continue
            entry = found.setdefault(reason, {"columns": {}, "clips": {}})
            entry["clips"][f"{method}/{id}"] = None
            if column in titles:
                entry["columns"][titles[column]] = None
    ordered = sorted(found.items(), key=lambda item: -len(item[1]["clips"]))
    made = []
    for reason, entry in ordered[:REASONS]:
        clips = list(entry["clips"])
        # What tables do not show is named where nothing else would say which measure it is.
        columns = [title for title in entry["columns"] if title in shown] or list(entry["columns"])
        named = ", ".join(columns) if len(columns) <= MANY else f"{len(columns)} measures"
        which = ", ".join(clips[:EXAMPLES]) + (", ..." if len(clips) > EXAMPLES else "")
        made.append(f"{counted(len(clips), 'clip')}: {reason}" + (f" ({named})" if named else "") + f"; {which}")
    if len(ordered) > REASONS:
        made.append(f"{len(ordered) - REASONS} more reasons are in scores.jsonl")
    return made


def said(value: Any) -> str:
    """A protocol in words: key value, key value."""
    if isinstance(value, Mapping):
        parts = [
            f"{str(k).replace('_', ' ')} {f'({said(v)})' if isinstance(v, Mapping) else said(v)}"
            for k, v in value.items()
        ]
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return " ".join(said(v) for v in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = str(value)
    digest = len(text) == 64 and not set(text.lower()) - set("0123456789abcdef")
    return f"sha256 {text[:12]}" if digest else text
