"""Who sees whom: each training term and each guidance pass as a row, in the colours of the paper's Fig. 4.

Read from the terms and passes themselves, and from what the interaction leaves on a closed route.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from ccl.guidance.base import Guidance
from ccl.tasks import PAPER_TASKS, Task, Term, terms_of
from ccl.types import AV, STREAMS, Closed, Pass, Route, View

SEES = {"latents": "the other stream", "context": "context tokens", "own": "its own tokens", "nothing": "nothing"}
# Fig. 4: yellow is the path of context tokens; of the latents' two paths the paper does not say which is green.
LEGEND = {"context": "context tokens", "a2v": "video sees audio", "v2a": "audio sees video"}
HIGH, WIDE = 62, 620  # of a row
TIMES = [i / 100 for i in range(100, 0, -1)]  # at which a rule is asked for its passes
COLOUR = {"context": "#f2c230", "a2v": "#4fa35a", "v2a": "#ee8833", "none": "#e4e4e4"}


@dataclass(frozen=True)
class Row:
    """A term or a pass.

    Args:
        kind: "task" or "pass".
        name: of the term; of the term that the pass samples on.
        view: what it sees.
        state: of each stream, in words.
        sees: of each stream, keys of SEES, those on an open route first.
    """

    kind: str
    name: str
    view: View
    state: AV[str]
    sees: AV[tuple[str, ...]]

    @property
    def figures(self) -> dict[str, Any]:
        video, audio = ({"state": x, "attends_to": sees} for x, sees in zip(self.state, self.sees, strict=True))
        return {"kind": self.kind, "name": self.name, "video": video, "audio": audio}


def seen_by(route: Route, closed: Closed) -> AV[tuple[str, ...]]:
    """What each stream attends to in the interaction.

    Args:
        route: who may see whom.
        closed: what a closed route leaves; it is there on an open one, too.
    """
    if closed == "same":  # there is no exchange
        return AV(("nothing",), ("nothing",))
    also = () if closed == "nothing" else (closed,)
    return AV(*(("latents", *also) if opened else (closed,) for opened in (route.a2v, route.v2a)))


def rows_of(tasks: Mapping[str, Task] | None, rule: Guidance, closed: Closed) -> list[Row]:
    """All terms, and the passes of the rule on each route that a term with a route open was trained on."""
    tasks = PAPER_TASKS if tasks is None else tasks
    rows = list(task_rows(tasks, closed))
    routes = {row.view.route: row.name for row in reversed(rows)}
    for route, name in reversed(routes.items()):
        rows += pass_rows(rule, name, route, closed)
    return rows


def task_rows(tasks: Mapping[str, Task], closed: Closed) -> Iterator[Row]:
    """The terms that training draws."""
    for name, term in terms_of({name: task for name, task in tasks.items() if task.prob}).items():
        yield Row("task", name, term.view, state_of(term), seen_by(term.route, closed))


def state_of(term: Term) -> AV[str]:
    """Of each stream: given, learned, or left out of the loss."""

    def one(part: object, weight: float, whole: bool) -> str:
        if whole:
            return "given"
        return "learned" if weight else "runs along"

    times = " at the other's time" if term.shared_time else ""
    return AV(*(one(*of) + times * bool(of[1]) for of in zip(term.parts, term.weights, term.whole, strict=True)))


def pass_rows(rule: Guidance, name: str, route: Route, closed: Closed) -> Iterator[Row]:
    """The passes of a guidance rule at any time of sampling, on the route of the generation task of that name."""
    passes = dict.fromkeys(one for t in TIMES for one in rule.passes(route, t))
    for one in passes:
        yield Row("pass", name, one.view, texts(one), seen_by(one.view.route, closed))


def texts(one: Pass) -> AV[str]:
    """What each stream reads, and what stands in its place."""
    null = AV("a still", "silence")
    skip = "".join(f", without {each.what.replace('_', ' ')} {listed(each.layers)}" for each in one.view.skip)
    return AV(*((null[i] if one.null[i] else f"{one.text[i]} prompt") + skip for i in range(2)))


def listed(layers: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(layers)))


def table_lines(rows: list[Row]) -> list[str]:
    """The rows as text, for a terminal."""
    head = ("", "", "video", "it attends to", "audio", "it attends to")
    cells: list[tuple[str, ...]] = [head]
    for row in rows:
        pairs = zip(row.state, map(told, row.sees), strict=True)
        cells.append((row.kind, row.name, *(word for pair in pairs for word in pair)))
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def told(sees: tuple[str, ...]) -> str:
    return " + ".join(SEES[one] for one in sees)


def svg_of(rows: list[Row], title: str = "") -> str:
    """The rows as a drawing: in each the two streams, and in colour the paths that are open."""
    size = f"{WIDE} {HIGH * len(rows) + 64}"
    width, height = size.split()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {size}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        text_at(12, 20, title, 'font-size="13"'),
    ]
    for i, row in enumerate(rows):
        y = 34 + HIGH * i
        lines += [text_at(12, y + 24, f"{row.kind} {row.name}", 'font-weight="bold"'), *drawn(row, y)]
    y = 48 + HIGH * len(rows)
    for x, (name, words) in zip((12, 162, 332), LEGEND.items(), strict=True):
        lines.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{COLOUR[name]}"/>')
        lines.append(text_at(x + 16, y, words))
    return "\n".join([*lines, "</svg>"]) + "\n"


def drawn(row: Row, y: int) -> Iterator[str]:
    """The two streams of a row, their context tokens outside and their paths to each other between."""
    small = 'text-anchor="middle" font-size="9"'
    for i, (stream, x) in enumerate(zip(STREAMS, (250, 450), strict=True)):
        yield f'<rect x="{x}" y="{y + 6}" width="96" height="30" rx="4" fill="#eef2f7" stroke="#667"/>'
        yield text_at(x + 48, y + 25, stream, 'text-anchor="middle"')
        yield text_at(x + 48, y + 49, row.state[i], small)
        fill = COLOUR["context" if "context" in row.sees[i] else "none"]
        yield f'<circle cx="{(234, 562)[i]}" cy="{y + 21}" r="9" fill="{fill}" stroke="#667"/>'
        opened = "latents" in row.sees[i]
        stroke = COLOUR[("a2v", "v2a")[i] if opened else "none"]
        (start, end), level, tip = ((446, 352), (352, 446))[i], y + (15, 28)[i], (6, -6)[i]
        dash = "" if opened else ' stroke-dasharray="3 4"'
        yield (
            f'<line x1="{start}" y1="{level}" x2="{end}" y2="{level}" stroke="{stroke}" stroke-width="3"{dash}/>'
            f'<path d="M{end - tip / 3:g} {level} l{tip} -5 v10 z" fill="{stroke}"/>'
        )


def text_at(x: int, y: int, words: str, how: str = "") -> str:
    return f'<text x="{x}" y="{y}" {how}>{escape(words)}</text>'
