"""Results of `ccl evaluate` as they stand in a card: a table, its test set and date, and how each measure was taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ccl.evaluation.tables import exchange, layout
from ccl.evaluation.tables.notes import notes
from ccl.evaluation.tables.results import PROTOCOL, Results
from ccl.evaluation.tables.summary import summarise
from ccl.evaluation.tables.typeset import md_escape, md_table, md_wide
from ccl.spelling import counted

BELOW = ("Told apart", "How to read it", "Not as its suite has it", "Protocol", "Clips")
# Folders of this machine, in a sentence; what follows "://" or a word is none.
PATH = re.compile(r"(?<![\w:/.~])(?:~|[A-Za-z]:)?(?:[/\\][\w.][\w.@+ -]*)+[/\\](?=[\w.])")


def scores_of(home: Path, named: Sequence[Path] = ()) -> list[str]:
    """In Markdown, the results that are named, or those that lie below `evaluation` of a run or model folder.

    Raises:
        FileError: one is no results.json; names the file and the key.
    """
    found = list(named) or sorted(home.glob(f"evaluation/**/{exchange.NAME}"))
    return [scored(exchange.read(file)) for file in found]


def scored(results: Results) -> str:
    """One results.json in Markdown."""
    summary = summarise(results)
    if len(results.systems) < 2:
        tables = [md_table(*layout.upright(results, summary))]
    else:
        tables = [md_wide(results, summary, places, None) for places in layout.sections(results, summary)]
    about = results.about
    said = [f"Protocol: {about[PROTOCOL]}"] if PROTOCOL in about else []
    said += [f"Test set: {about.get('test set', counted(len(results.test), 'row'))}"]
    said += [f"scored {about['date']}"] if "date" in about else []
    said += [f"ccl {about['ccl']}"] if "ccl" in about else []
    below = notes(results, summary)
    lines = [f"- {md_escape(without_paths(one))}" for heading in BELOW for one in below.get(heading, ())]
    details = "<details><summary>How each was measured</summary>\n\n" + "\n".join(lines) + "\n\n</details>"
    return "\n\n".join([f"{md_escape('; '.join(said))}.", "\n".join(tables).strip(), details])


def without_paths(text: str) -> str:
    """A sentence in which files have their names alone."""
    return PATH.sub("", text)
