"""report.html: one page with the table, how clips are spread, and every sample with its clips and scores.

The page needs no network. Clips lie in it as long as they are small enough together; else it links to their files, and
says so. Names, prompts and reasons come from users: in markup they are escaped, and data are JSON without a "<".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any

from ccl.evaluation.report import charts
from ccl.evaluation.report.clips import Key, Progress, Shown, shown, strange
from ccl.evaluation.report.gallery import Order, as_json, data, names_of
from ccl.evaluation.tables import layout
from ccl.evaluation.tables.layout import Line, Place, Published, number, titled
from ccl.evaluation.tables.notes import notes
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.statistics import ALPHA
from ccl.evaluation.tables.summary import Pair, Summary, summarise
from ccl.files import replacing
from ccl.spelling import counted

COLOURS = 8  # of methods, in page.css
PAIRED = 4  # systems of which every pair is offered to sort by


def write(
    results: Results,
    path: str | Path,
    *,
    limit_mb: int | float = 100,
    published: Published | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page, whole.

    Args:
        results: what was scored.
        path: of the page.
        limit_mb: how much the clips may weigh together to lie in the page.
        published: numbers printed elsewhere, to stand beside.
        progress: called with (clips done, of how many, a clip's file) while they are looked at and converted.
    """
    colours = colours_of(results)
    summary = summarise(results)
    sections = {
        "Results": tables(results, summary, colours, published),
        "Comparison": comparison(results, summary, colours),
        "Spread": spread(results, colours),
        "Notes": noted(notes(results, summary, published)),
    }
    title = f"Evaluation of {', '.join(results.systems) or 'clips'}"
    pairs = list(combinations(results.systems, 2)) if len(results.systems) <= PAIRED else []
    compose(path, title, lede(results), sections, results, pairs=pairs, limit_mb=limit_mb, progress=progress)


def compose(
    path: str | Path,
    title: str,
    lede: str,
    sections: Mapping[str, str],
    results: Results,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    order: Order = "worst",
    limit_mb: int | float = 100,
    progress: Progress | None = None,
) -> None:
    """Write a page of sections above the samples, whole.

    Args:
        path: of the page.
        title: its heading, as text.
        lede: a sentence below it, as text.
        sections: markup by heading; those without any are left out.
        results: whose samples stand below.
        pairs: of methods, by whose differences samples can be sorted.
        order: of the samples, until another is chosen.
        limit_mb: how much the clips may weigh together to lie in the page.
        progress: called with (clips done, of how many, a clip's file).
    """
    path = Path(path)
    names = names_of(results)
    clips = shown(results, path.parent, progress)
    weight = sum(clip.path.stat().st_size for clip in clips.values())
    embedded = weight <= limit_mb * 1e6
    sections = {heading: text for heading, text in sections.items() if text}
    head = Template(asset("page.html")).substitute(
        title=escape(title),
        lede=escape(lede),
        css=asset("page.css"),
        nav="".join(f'<a href="#{name.lower()}">{name}</a>' for name in [*sections, "Samples"]),
        sections="\n".join(f'<section id="{k.lower()}"><h2>{k}</h2>{v}</section>' for k, v in sections.items()),
        hint=hint(embedded, weight, clips),
        data=as_json(data(results, clips, path.parent, embedded, colours_of(results), pairs, order)),
    )
    with replacing(path) as file:
        file.write(head.encode(errors="replace"))  # half a surrogate pair may come from JSON
        if embedded:
            for key, clip in clips.items():
                file.write(f'<script type="text/plain" id="{names[key]}">'.encode())
                file.write(base64.b64encode(clip.path.read_bytes()) + b"</script>\n")
        file.write(f"<script>{asset('player.js')}{asset('page.js')}</script>\n</body>\n</html>\n".encode())


def colours_of(results: Results) -> dict[str, int]:
    """A colour of page.css for each method."""
    return {method: place % COLOURS for place, method in enumerate(results.methods)}


def asset(name: str) -> str:
    """A file of the page."""
    return (files("ccl.evaluation") / "page" / name).read_text(encoding="utf-8")


def lede(results: Results) -> str:
    """What was scored, in a sentence."""
    parts = [f"{len(places)} {name}" for name, places in results.subsets.items() if len(results.subsets) > 1]
    samples = counted(len(results.test), "sample") + (f" ({' + '.join(parts)})" if parts else "")
    return f"{samples}, {counted(len(results.systems), 'system')}."


def hint(embedded: bool, weight: int, clips: Mapping[Key, Shown]) -> str:
    """How to read the samples, and where their clips are."""
    where = (
        f"The clips ({weight / 1e6:.1f} MB) lie in this page."
        if embedded
        else f"The clips ({weight / 1e6:.0f} MB) are too large to lie in this page and are linked: it is not "
        "self-contained, keep it where it is beside them."
    )
    made = [f"{count} of {escape(what)}" for what, count in strange(clips).items()]
    if made:
        where += f" What browsers do not show is converted for the page ({', '.join(made)}); scores are of the files."
    return ("Click a picture to play it. " + where if clips else "There are no clips beside these scores.") + (
        " Red is the worst tenth of a measure; samples without the value sorted by come last."
    )


# Tables ------------------------------------------------------------------------------------------------------------


def tables(results: Results, summary: Summary, colours: Mapping[str, int], published: Published | None) -> str:
    """A measure a row for one system, else a method a row."""
    made = [upright(results, summary)] if len(results.systems) < 2 else []
    if len(results.systems) > 1 or published:
        for places in layout.sections(results, summary, published):
            made.append(wide(layout.lines(results, summary, places, published), places, colours))
    return "".join(f'<div class="scroll">{table}</div>' for table in made)


def upright(results: Results, summary: Summary) -> str:
    head, rows = layout.upright(results, summary)
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = []
    for row, before in zip(rows, [None, *rows], strict=False):
        first = "" if before and before[0] == row[0] else escape(row[0])
        cells = [f"<td>{escape(row[1])}</td>", f"<td><b>{escape(row[2])}</b></td>"]
        body.append(f"<tr><th>{first}</th>{''.join(cells)}{''.join(f'<td>{escape(t)}</td>' for t in row[3:])}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def wide(lines: Sequence[Line], places: Sequence[Place], colours: Mapping[str, int]) -> str:
    """The paper's Table 1: groups over columns, intervals and counts under values."""
    first = [place == 0 or places[place - 1].group != p.group for place, p in enumerate(places)]
    mark = [' class="first"' if is_first else "" for is_first in first]
    groups = {p.group: sum(q.group == p.group for q in places) for p in places}
    head = "".join(f'<th class="first" colspan="{n}">{escape(group)}</th>' for group, n in groups.items())
    titles = "".join(f"<th{m}>{escape(p.title)}</th>" for p, m in zip(places, mark, strict=True))
    body = []
    for line in lines:
        swatch = f'<span class="swatch m{colours[line.name]}"></span>' if line.kind != "published" else ""
        name = f"{swatch}{escape(line.name)}{layout.PRINTED if line.kind == 'published' else ''}"
        cells = "".join(
            cell_html(place, cell, is_first) for place, cell, is_first in zip(places, line.cells, first, strict=True)
        )
        body.append(f'<tr class="{line.kind}"><th>{name}</th>{cells}</tr>')
    top = f'<tr class="groups"><th></th>{head}</tr><tr><th>method</th>{titles}</tr>'
    return f"<table><thead>{top}</thead><tbody>{''.join(body)}</tbody></table>"


def cell_html(place: Place, cell: Any, is_first: bool) -> str:
    """A value, bold where it is the best, with what stands under it."""
    names = [name for name, yes in (("first", is_first), ("best", cell and cell.best)) if yes]
    mark = f' class="{" ".join(names)}"' if names else ""
    if cell is None:
        return f"<td{mark}>{layout.DASH}</td>"
    value = number(place.column, cell.value)
    value = (f"<b>{value}</b>" if cell.best else value) + layout.mark(cell)
    under = [layout.bounds(place.column, cell.low, cell.high), layout.counts(cell), layout.own(place.column, cell)]
    under += [f"of {' + '.join(cell.subsets)}"] if cell.subsets else []
    under += [f"{name} {layout.extra(place.column, cell, name)}" for name, _ in cell.extras]
    return f"<td{mark}>{value}{''.join(f'<small>{escape(text)}</small>' for text in under if text)}</td>"


def comparison(results: Results, summary: Summary, colours: Mapping[str, int]) -> str:
    """Measures against pairs of systems, over the whole test set; a clear difference in the better one's colour."""
    told = layout.told_pairs(results, summary)
    versus = list(dict.fromkeys((p.a, p.b) for p in told))
    if not versus:
        return ""
    head = "".join(f"<th>{escape(a)} minus {escape(b)}</th>" for a, b in versus)
    body = []
    rows: dict[tuple[str, str], dict[tuple[str, str], Pair]] = {}
    for p in told:
        rows.setdefault((p.column, p.subset), {})[p.a, p.b] = p
    known = {column.name: column for column in results.shown}
    for (name, _), pairs in rows.items():
        column, found = known[name], [pairs.get(two) for two in versus]
        reach = max((max(abs(p.low), abs(p.high)) for p in pairs.values() if p.low == p.low), default=0.0)
        cells = "".join(pair_html(column, p, reach, colours) for p in found)
        body.append(f"<tr><th>{escape(layout.versus(column, next(iter(pairs.values()))))}</th>{cells}</tr>")
    text = (
        "On the clips that all systems have: difference, its 95 % interval by paired bootstrap, and p by exchanging "
        "the two within clips; after it p corrected for the number of columns (Holm). In colour, that of the better "
        f"system, where the corrected p is below {ALPHA:g}."
    )
    table = f"<table><thead><tr><th>measure</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<p class="hint">{text}</p><div class="scroll">{table}</div>'


def pair_html(column: Any, pair: Pair | None, reach: float, colours: Mapping[str, int]) -> str:
    if pair is None:
        return f"<td>{layout.DASH}</td>"
    names = ""
    if pair.adjusted < ALPHA and column.better:
        first = (pair.difference > 0) == (column.better == "higher")
        names = f' class="{"first" if first else "second"}-better m{colours[pair.a if first else pair.b]}"'
    p, corrected = (layout.probability(x) for x in (pair.p, pair.adjusted))
    ps = f"p {p if p.startswith('<') else f'= {p}'}"
    interval = layout.bounds(column, pair.low, pair.high, sign=True)
    said = ", ".join(filter(None, (interval, ps, f"Holm {corrected}", f"n {pair.clips}")))
    return (
        f'<td{names}><div class="pair">{charts.forest(pair.low, pair.high, pair.difference, reach)}'
        f'<span class="delta">{number(column, pair.difference, sign=True)}</span></div>'
        f"<small>{escape(said)}</small></td>"
    )


def spread(results: Results, colours: dict[str, int]) -> str:
    """A picture of all clips for each column."""
    words = {"higher": "higher is better", "lower": "lower is better", "": ""}
    figures = [
        f"<figure><figcaption>{escape(titled(column))}<span>{words[column.better]}</span></figcaption>{picture}</figure>"
        for column in results.shown
        if (picture := charts.strips(results, column, colours))
    ]
    text = "A dot is a clip; the bar holds the middle half, the tick is the median."
    return f'<p class="hint">{text}</p><div class="charts">{"".join(figures)}</div>' if figures else ""


def noted(found: Mapping[str, Sequence[str]]) -> str:
    """Sentences by heading."""
    made = [
        f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"
        for heading, sentences in found.items()
    ]
    return f'<div class="notes">{"".join(made)}</div>' if made else ""
