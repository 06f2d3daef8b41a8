"""What stands below a table: how to read it, what was not measured, why clips failed, what the numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccl.evaluation.layout import Published
from ccl.evaluation.results import Results
from ccl.evaluation.summary import LEVEL

REASONS, EXAMPLES, MANY = 12, 3, 4  # how many reasons, clips and columns are spelled out


def notes(results: Results, published: Published | None = None) -> dict[str, list[str]]:
    """What stands below the table, by heading; headings without a line are left out."""
    found = {
        "How to read it": reading(results, published),
        "Not measured": [f"{name}: {sentence}" for name, sentence in results.missing.items()],
        "Clips without a value": failures(results),
        "Protocol": [f"{name}: {said(p)}" for name, p in results.protocol.items() if name not in results.missing and p],
        "Clips": [f"{method}: {cause}" for method, causes in results.causes.items() for cause in causes],
    }
    return {heading: sentences for heading, sentences in found.items() if sentences}


def reading(results: Results, published: Published | None) -> list[str]:
    """What the numbers of the table are."""
    made = [
        f"In brackets: {LEVEL:.0%} percentile bootstrap over the clips that have a value. "
        "n is clips scored/failed; a failed clip is left out of the value."
    ]
    if len(results.subsets) > 1:
        made.append(f"The mean is that of the values of {' and '.join(results.subsets)}.")
    if len(results.systems) > 1:
        made.append("Bold is the best measured value as shown; differences between systems are in the comparison.")
    if published:
        made.append(
            "† as printed in the paper, not measured here: its clips are not public and its protocol is not fully "
            "known, so these rows stand beside the others and are not compared with them."
        )
    return made


def failures(results: Results) -> list[str]:
    """Reasons, the most frequent first, with the columns and clips they concern."""
    found: dict[str, dict[str, dict[str, None]]] = {}  # ordered sets
    lacking = set(results.missing.values())
    titles = {column.name: column.title for column in results.columns if column.shown}
    for (method, column), by_id in results.reasons.items():
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
        clips, named = list(entry["clips"]), ", ".join(entry["columns"])
        if len(entry["columns"]) > MANY:
            named = f"{len(entry['columns'])} measures"
        which = ", ".join(clips[:EXAMPLES]) + (", ..." if len(clips) > EXAMPLES else "")
        made.append(
            f"{len(clips)} {'clip' if len(clips) == 1 else 'clips'}: {reason}"
            + (f" ({named})" if named else "")
            + f"; {which}"
        )
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
