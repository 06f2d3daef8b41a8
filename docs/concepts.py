"""Draws the pictures of docs/concepts.md from the code that they explain.

python docs/concepts.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from ccl.grid import Grid
from ccl.guidance import UCG2, UCG3, TextCFG
from ccl.inspection.route import Row, pass_rows, svg_of, task_rows, text_at
from ccl.interaction.align import TARP
from ccl.tasks import PAPER_TASKS
from ccl.types import Route

TOKEN, HIGH = 17, 26  # width of a token and height of a row, in pixels
OPEN, PALE = "#4fa35a", "#eef2f7"
LEFT = 190


def windows() -> str:
    """Which audio tokens each latent frame sees under TARP: a row for each frame, the tokens it sees in colour."""
    align, grid = TARP(), Grid(frames=21)
    keys, inside = align.windows(grid)
    centres = align.centres(grid)
    lines = [text_at(12, 20, "TARP: whom each latent frame of the video attends to", 'font-size="13"')]
    lines += [text_at(12, 44, "audio tokens, in time")]
    for token in range(grid.t_a):
        lines.append(box(LEFT + TOKEN * token, 32, "#ee8833"))
    for frame in range(grid.t_v):
        y = 62 + HIGH * frame
        seen = set(keys[frame][inside[frame]].tolist())
        lines.append(text_at(12, y + 12, f"latent frame {frame}" + (" (one picture)" if frame == 0 else "")))
        for token in range(grid.t_a):
            edge = ' stroke="#c0009a" stroke-width="2"' if token == int(centres[frame]) else ""
            lines.append(box(LEFT + TOKEN * token, y, OPEN if token in seen else PALE, edge))
    width, height = LEFT + TOKEN * grid.t_a + 16, 62 + HIGH * grid.t_v + 26
    lines.append(text_at(12, height - 10, f"green: seen, {3 * grid.c} tokens; framed: the centre; c = {grid.c}"))
    return drawing(width, height, lines)


def box(x: int, y: int, fill: str, edge: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{TOKEN - 3}" height="16" rx="2" fill="{fill}"{edge}/>'


def routes() -> str:
    """The paper's five tasks (DCR)."""
    return svg_of(list(task_rows(PAPER_TASKS, "context")), "DCR: who sees whom, by training task")


def passes() -> str:
    """What guidance computes at a step of a joint clip, by rule."""
    rows: list[Row] = []
    for rule in (TextCFG(), UCG2(), UCG3()):
        rows += pass_rows(rule, type(rule).__name__, Route(True, True), "context")
    return svg_of(rows, "The passes of three rules at a step of sampling; UCG's unconditional sees context tokens")


def drawing(width: int, height: int, lines: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>"]) + "\n"


PICTURES = {"concept_windows.svg": windows, "concept_routes.svg": routes, "concept_passes.svg": passes}

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, draw in PICTURES.items():
        (folder / name).write_text(draw())
        sys.stdout.write(f"{folder / name}\n")
