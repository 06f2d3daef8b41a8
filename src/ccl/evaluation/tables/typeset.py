"""The table as Markdown and LaTeX. Names come from users, so whatever means something there is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ccl.evaluation.tables import layout
from ccl.evaluation.tables.layout import Place, Published, number, titled
from ccl.evaluation.tables.notes import notes
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.summary import Cell, Summary

CONTROLS = "Controls: what measures of sync say of clips that are not in sync"


def markdown(results: Results, summary: Summary, published: Published | None = None) -> str:
    """The table as Markdown, with everything below it."""
    parts = []
    if len(results.systems) < 2:
        parts.append(md_table(*layout.upright(results, summary)))
    if len(results.systems) > 1 or published:
        parts += [
            wide
            for places in layout.sections(results, summary, published)
            if (wide := md_wide(results, summary, places, published))
        ]
    if summary.pairs:
        parts.append("### Comparison of systems on the same clips\n\n" + md_table(*layout.comparison(results, summary)))
    if results.controls:
        parts.append(f"### {CONTROLS}\n")
        parts.append(md_table(*layout.controls(results)))
    for heading, sentences in notes(results, summary, published).items():
        parts.append(f"### {heading}\n\n" + "".join(f"- {md_escape(sentence)}\n" for sentence in sentences))
    return "\n".join(parts)


def md_wide(results: Results, summary: Summary, places: Sequence[Place], published: Published | None) -> str:
    """One method a row; intervals and counts in rows below it."""
    head = ["method", *(f"{titled(place.column)} {place.subset}" for place in places)]
    rows: list[list[str]] = []
    for line in layout.lines(results, summary, places, published):
        mark = layout.PRINTED if line.kind == "published" else ""
        rows.append(
            [f"{md_escape(line.name)}{mark}", *(md_value(p, c) for p, c in zip(places, line.cells, strict=True))]
        )
        rows += [[name, *texts] for name, texts in layout.below(line, places)]
    return md_table(head, rows, escaped=True)


def md_value(place: Place, cell: Cell | None) -> str:
    text = number(place.column, cell.value if cell else None)
    return (f"**{text}**" if cell and cell.best else text) + layout.mark(cell)


def md_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    """A table in Markdown."""
    rows = [row if escaped else [md_escape(text) for text in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def md_escape(text: str) -> str:
    """Text as it is, on one line: names come from users."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("](", "]\\(").replace("&", "&amp;")
    for mark, plain in {"|": "\\|", "*": "\\*", "`": "\\`", "~": "\\~", "<": "&lt;", ">": "&gt;"}.items():
        text = text.replace(mark, plain)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word it means nothing


# LaTeX -------------------------------------------------------------------------------------------------------------

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", layout.DASH: "--", layout.PRINTED: r"$\dagger$",
    layout.COMMON: r"$\ddagger$", layout.PART: r"\S{}",
}  # fmt: skip


def tex(results: Results, summary: Summary, published: Published | None = None) -> str:
    """Tables for a paper, one method a row; they need booktabs."""
    head = "% Needs \\usepackage{booktabs} and, for names beyond ASCII, a Unicode engine.\n"
    tables = [tex_table(results, summary, places, published) for places in layout.sections(results, summary, published)]
    tables += [f"% {CONTROLS}\n" + tex_controls(results)] if results.controls else []
    below = ["% " + " ".join(s.split()) for found in notes(results, summary, published).values() for s in found]
    return head + "\n".join(tables) + "\n".join(["", *below, ""])


def tex_table(results: Results, summary: Summary, places: Sequence[Place], published: Published | None) -> str:
    """One tabular: groups above columns, intervals and counts small below values, published rows in italics."""
    spans, rules, at = [], [], 2
    for group, members in groupby(places, key=lambda place: place.group):
        width = len(list(members))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{tex_escape(group)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    rows = [f" & {' & '.join(spans)} \\\\", " ".join(rules)]
    rows += [" & ".join(["Method", *(tex_escape(place.title) for place in places)]) + r" \\", r"\midrule"]
    for line in layout.lines(results, summary, places, published):
        name = tex_escape(line.name + (layout.PRINTED if line.kind == "published" else ""))
        cells = [tex_value(place, cell) for place, cell in zip(places, line.cells, strict=True)]
        rows.append(" & ".join([rf"\textit{{{name}}}" if line.kind == "published" else f"{{{name}}}", *cells]) + r" \\")
        for label, texts in layout.below(line, places):
            rows.append(" & ".join(rf"{{\scriptsize {tex_escape(text)}}}" for text in (label, *texts)) + r" \\")
    return tabular(1 + len(places), rows)


def tex_controls(results: Results) -> str:
    """One tabular of what measures of sync say of true clips and of each control."""
    head, lines = layout.controls(results)
    rows = [" & ".join(f"{{{tex_escape(text)}}}" for text in line) + r" \\" for line in (head, *lines)]
    return tabular(len(head), [rows[0], r"\midrule", *rows[1:]])


def tabular(columns: int, rows: Sequence[str]) -> str:
    """Rows between rules, the first column to the left."""
    kinds = "l" + "c" * (columns - 1)
    return "\n".join([rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", *rows, r"\bottomrule", r"\end{tabular}", ""])


def tex_value(place: Place, cell: Cell | None) -> str:
    text = tex_escape(number(place.column, cell.value if cell else None))
    return (rf"\textbf{{{text}}}" if cell and cell.best else text) + tex_escape(layout.mark(cell))


def tex_escape(text: str) -> str:
    """Text as it is; names come from users."""
    return "".join(TEX.get(c, c) for c in " ".join(text.split()))
