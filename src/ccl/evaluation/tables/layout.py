"""Which number stands where, and how it is written: what all forms of the table have in common.

The paper's Table 1: audio quality as the mean of the subsets, lip sync and alignment for each subset; then what it has
not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.results import ALL, CEILING, MEAN, Results
from ccl.evaluation.tables.statistics import ALPHA, FEWEST, POWER
from ccl.evaluation.tables.summary import Cell, Pair, Summary, best_of
from ccl.spelling import counted

# Numbers printed elsewhere: by method, column and subset, a rate as a fraction.
Published = Mapping[str, Mapping[str, Mapping[str, float]]]

# (group, its columns, whether each subset is shown by itself): Table 1 of the paper.
PAPER = (
    ("Audio quality", ("cu", "pq", "wer"), False),
    ("Lip sync", ("sync_c", "sync_d"), True),
    ("AV alignment", ("desync", "ib_score"), True),
)
BEYOND = "Beyond the paper"
ARROWS = {"higher": "↑", "lower": "↓", "": ""}
DASH = "—"
BLIND = "cannot tell true from shuffled"
MANY_CLIPS = 100_000  # more of them are not counted
PRINTED, COMMON, PART = "†", "‡", "§"  # marks of what is not measured here, of clips all systems have, of some subsets


@dataclass(frozen=True)
class Place:
    """A column of the wide table: a measure in a subset, under a heading."""

    group: str
    subset: str
    column: Column
    one_of: bool = False  # of several subsets under one heading, which the title must tell apart

    @property
    def title(self) -> str:
        return f"{titled(self.column)}, {self.subset}" if self.one_of else titled(self.column)


@dataclass(frozen=True)
class Line:
    """A row of the wide table, a cell for each place.

    Args:
        name: of the method.
        kind: "system", "ceiling" or "published".
        cells: None where nothing is known.
    """

    name: str
    kind: str
    cells: Sequence[Cell | None]


def paper_places(results: Results, published: Published | None = None) -> list[Place]:
    """The columns of Table 1 that were measured, or of which a number is printed."""
    printed = {name for numbers in (published or {}).values() for name in numbers}
    known = {c.name: c for c in results.columns if c in results.shown or c.name in printed}
    places = []
    for group, names, split in PAPER:
        for subset in results.subsets if split else [whole(results)]:
            head = f"{group}, {subset}" if split and subset != ALL else group
            places += [Place(head, subset, known[name]) for name in names if name in known]
    return places


def with_subsets(places: Sequence[Place], summary: Summary) -> list[Place]:
    """The same places, and before a mean that is not of all subsets each subset by itself."""
    made = []
    for place in places:
        cells = {subset: cell for (_, subset, name), cell in summary.cells.items() if name == place.column.name}
        partial = [c for (_, *at), c in summary.cells.items() if at == [place.subset, place.column.name] and c.subsets]
        if place.subset == MEAN and partial:
            made += [Place(place.group, subset, place.column, one_of=True) for subset in cells]
        else:
            made.append(place)
    return list(dict.fromkeys(made))


def beyond_places(results: Results) -> list[Place]:
    """The columns that the paper has not, as the mean of the subsets."""
    paper = {name for _, names, _ in PAPER for name in names}
    return [Place(BEYOND, whole(results), column) for column in results.shown if column.name not in paper]


def lines(
    results: Results, summary: Summary, places: Sequence[Place], published: Published | None = None
) -> list[Line]:
    """A line for each method, then the published ones that have something to say here."""
    made = []
    for method in results.methods:
        kind = "ceiling" if results.is_ceiling(method) else "system"
        made.append(Line(method, kind, [summary.cells.get((method, p.subset, p.column.name)) for p in places]))
    printed = {name: [printed_value(numbers, p) for p in places] for name, numbers in (published or {}).items()}
    best = [best_of(p.column, {name: values[i] for name, values in printed.items()}) for i, p in enumerate(places)]
    for name, values in printed.items():
        cells = [None if v != v else Cell(v, best=name in best[i]) for i, v in enumerate(values)]
        if any(cells):
            made.append(Line(name, "published", cells))
    return made


def printed_value(numbers: Mapping[str, Mapping[str, float]], place: Place) -> float:
    """A published number; the mean of the subsets where only they were printed. NaN where it is not known."""
    by_subset = numbers.get(place.column.name, {})
    if place.subset == MEAN and MEAN not in by_subset and by_subset:
        return float(np.mean(list(by_subset.values())))
    return float(by_subset.get(place.subset, "nan"))


def whole(results: Results) -> str:
    """What stands for the whole test set: the mean of its subsets, or its only one."""
    return MEAN if len(results.subsets) > 1 else next(iter(results.subsets))


# Words -------------------------------------------------------------------------------------------------------------


def titled(column: Column) -> str:
    """The title with its arrow."""
    return f"{column.title} {ARROWS[column.better]}".strip()


def number(column: Column, value: float | None, *, sign: bool = False) -> str:
    """A value as the column shows it; a dash where there is none."""
    if value is None or not np.isfinite(value):
        return DASH
    text = f"{value * 100 if column.percent else value:{'+' if sign else ''}.{column.digits}f}"
    return f"{text}%" if column.percent else text


def bounds(column: Column, low: float, high: float, *, sign: bool = False) -> str:
    """An interval; nothing where there is none."""
    return "" if low != low else f"[{number(column, low, sign=sign)}, {number(column, high, sign=sign)}]"


def mark(cell: Cell | None) -> str:
    """What stands at a value that is not of all clips that the method has, or not of all subsets."""
    return "" if cell is None else COMMON * (cell.own == cell.own) + PART * bool(cell.subsets)


def counts(cell: Cell) -> str:
    """Clips scored / failed, those apart in which there was nothing to measure; nothing where no clip was asked."""
    apart = f", {cell.inapplicable} n/a" if cell.inapplicable else ""
    return f"{cell.scored}/{cell.failed}{apart}" if cell.scored or cell.failed or apart else ""


def own(column: Column, cell: Cell) -> str:
    """The value over all clips that the method has, where it stands beside that of the clips all systems have."""
    return f"{number(column, cell.own)} of {cell.scored}, {cell.clips} common" if cell.own == cell.own else ""


def probability(p: float) -> str:
    """Three decimals; what rounds to nothing and is not nothing says so."""
    return "< 0.001" if 0 <= p < 5e-4 + 1e-9 else f"{p:.3f}"


def extra_number(column: Column, name: str, value: float | None) -> str:
    """What stands beside a value: a probability, or a number in the column's own units."""
    if value is None:
        return ""
    return probability(value) if name == "p" else number(column, value)


def extra(column: Column, cell: Cell, name: str) -> str:
    """What stands beside a value, by its name; of p in words too where it says that the measure sees nothing."""
    text = extra_number(column, name, dict(cell.extras).get(name))
    return f"{text}: {BLIND}" if text and name == "p" and blind(column, cell) else text


def blind(column: Column, cell: Cell) -> bool:
    """Whether a measure does not tell the clips from shuffled ones, where it was tried."""
    extras = dict(cell.extras)
    value = next((x for x in (cell.paired, cell.own, cell.value) if x == x), cell.value)
    if not {"shuffled", "p"} <= extras.keys() or value != value:
        return False
    gain = value - extras["shuffled"] if column.better != "lower" else extras["shuffled"] - value
    return not (extras["p"] < ALPHA and gain > 0)


def extra_names(summary: Summary) -> list[str]:
    """What stands beside any value: "shuffled", "p"."""
    return list(dict.fromkeys(name for cell in summary.cells.values() for name, _ in cell.extras))


# Rows of text --------------------------------------------------------------------------------------------------------


def upright(results: Results, summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a single method: each measure in each subset, with chance and ceiling where they are known."""
    method, ceiling = results.systems[0] if results.systems else CEILING, CEILING in results.methods[1:]
    names = extra_names(summary)
    head = ["measure", "subset", "value", "95 %", *names, *(["ceiling"] if ceiling else []), "scored", "failed"]
    apart = any(cell.inapplicable for cell in summary.cells.values())
    head += ["n/a"] if apart else []
    rows = []
    for column in results.shown:
        cells = {subset: cell for (m, subset, c), cell in summary.cells.items() if (m, c) == (method, column.name)}
        for subset, cell in cells.items():
            beside = [extra(column, cell, name) for name in names]
            if ceiling:
                true = summary.cells[CEILING, subset, column.name]
                fewer = f" (n {true.clips})" if 0 < true.clips < cell.clips else ""  # true clips of some rows alone
                beside.append(number(column, true.value) + mark(true) + fewer)
            value, interval = number(column, cell.value) + mark(cell), bounds(column, cell.low, cell.high)
            tallies = [cell.scored, cell.failed, *([cell.inapplicable] if apart else [])]
            rows.append([titled(column), subset, value, interval, *beside, *map(str, tallies)])
    return head, rows


def sections(results: Results, summary: Summary, published: Published | None = None) -> list[list[Place]]:
    """The places of the tables that stand below each other."""
    every = (paper_places(results, published), beyond_places(results))
    return [with_subsets(places, summary) for places in every if places]


def below(line: Line, places: Sequence[Place]) -> list[tuple[str, list[str]]]:
    """Rows below a method's values: intervals, counts, and what stands beside values; empty ones are left out."""
    pairs = [(p.column, c or Cell(float("nan"))) for p, c in zip(places, line.cells, strict=True)]
    names = dict.fromkeys(name for _, cell in pairs for name, _ in cell.extras)
    made = [
        ("95 %", [bounds(column, cell.low, cell.high) for column, cell in pairs]),
        ("n", [counts(cell) for _, cell in pairs]),
        ("all its own", [own(column, cell) for column, cell in pairs]),
        ("mean of", [" + ".join(cell.subsets) for _, cell in pairs]),
        *((name, [extra(column, cell, name) for column, cell in pairs]) for name in names),
    ]
    return [(name, texts) for name, texts in made if any(texts)]


def comparison(results: Results, summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Every pair of systems over the whole test set."""
    known = {column.name: column for column in results.shown}
    head = ["measure", "a", "b", "a minus b", "95 %", "p", "p, Holm", "clips", f"{POWER:.0%} with"]
    return head, [[versus(known[p.column], p), *compared(known[p.column], p)] for p in told_pairs(results, summary)]


def controls(results: Results) -> tuple[list[str], list[list[str]]]:
    """What measures of sync say of the true clips and of each control, over the whole test set; * where it is worse
    by more than chance gives. A control that fewer clips have says of how many it is.
    """
    known, at = {column.name: column for column in results.columns}, whole(results)
    lines: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for line in results.controls:
        if line["subset"] == at and line["column"] in known:
            lines.setdefault((line["method"], line["column"]), {})[line["control"]] = line
    names = list(dict.fromkeys(name for found in lines.values() for name in found))
    rows = []
    for (method, name), found in lines.items():
        column, some = known[name], max(found.values(), key=lambda line: line["clips"])
        cells = [controlled(column, found[control], some) if control in found else DASH for control in names]
        rows.append([titled(column), method, number(column, some["true"]), *cells, str(some["clips"])])
    return ["measure", "system", "true", *names, "clips"], rows


def controlled(column: Column, line: Mapping[str, Any], most: Mapping[str, Any]) -> str:
    """What a control gives, * where the measure sees it; and the true value of its clips where they are fewer."""
    fewer = f" ({number(column, line['true'])} true, n {line['clips']})" if line["clips"] < most["clips"] else ""
    return number(column, line["value"]) + "*" * seen(column, line) + fewer


def seen(column: Column, line: Mapping[str, Any]) -> bool:
    """Whether a measure tells the true clips from a control's."""
    better = line["true"] < line["value"] if column.better == "lower" else line["true"] > line["value"]
    return bool(line["p"] < ALPHA and better)


def told_pairs(results: Results, summary: Summary) -> list[Pair]:
    """The pairs over the whole test set; before those that are not of all subsets, those of each subset."""
    partial = {(p.a, p.b, p.column) for p in summary.pairs if p.subsets}
    partial |= {(p.a, p.b, p.column) for p in summary.pairs} - {
        (p.a, p.b, p.column) for p in summary.pairs if p.subset == whole(results)
    }
    return [p for p in summary.pairs if p.subset == whole(results) or (p.a, p.b, p.column) in partial]


def versus(column: Column, pair: Pair) -> str:
    """A measure in a comparison, its subset where it is not the whole test set, a mark where that is partial."""
    subset = f" {pair.subset}" if pair.subset not in (MEAN, ALL) else ""
    return f"{titled(column)}{subset}{PART * bool(pair.subsets)}"


def compared(column: Column, pair: Pair) -> list[str]:
    """A pair in words and numbers."""
    interval = bounds(column, pair.low, pair.high, sign=True)
    difference = number(column, pair.difference, sign=True)
    ps = [probability(pair.p), probability(pair.adjusted)]
    return [pair.a, pair.b, difference, interval, *ps, str(pair.clips), needed(pair.needed)]


def needed(clips: float) -> str:
    """How many clips would tell two systems apart; what is beyond all test sets is not spelled out."""
    if clips != clips:
        return DASH
    return f"{clips:,.0f}" if clips <= MANY_CLIPS else f"> {MANY_CLIPS:,}"


def told_apart(results: Results, summary: Summary) -> list[str]:
    """Of every two systems, in words, in which columns they differ once their number is thought of, or that in none."""
    families: dict[tuple[str, str], list[Pair]] = {}
    for pair in summary.pairs:
        if pair.subset == whole(results):
            families.setdefault((pair.a, pair.b), []).append(pair)
    titles, made = {column.name: column.title for column in results.columns}, []
    for (a, b), pairs in families.items():
        by = f"{ALPHA:g}, Holm over {counted(len(pairs), 'column')}"
        differ = [pair for pair in pairs if pair.adjusted < ALPHA]
        if differ:
            made.append(f"{a} and {b} differ in {', '.join(titles[pair.column] for pair in differ)} ({by}).")
            continue
        clips, nearest = max(pair.clips for pair in pairs), min(pairs, key=lambda pair: pair.needed)
        apart = f"{titles[nearest.column]} would tell them apart with {needed(nearest.needed)} clips, were it as seen"
        told = f"; {apart}" if np.isfinite(nearest.needed) else ""
        few = f"; fewer than {FEWEST} clips can tell nothing apart" if clips < FEWEST else ""
        made.append(f"{a} and {b} are not distinguishable: no column's difference survives ({by}){few}{told}.")
    return made
