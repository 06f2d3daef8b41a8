"""Draws docs/architecture.svg from the imports of the source: rooms, and an arrow from each to those that it needs.

python docs/architecture.py [OUT.svg]

An arrow that follows from others is left out, so what a room needs lies at the end of its arrows or beyond them. Rooms
stand above all that they need; where imports run in a circle, the script ends with the names of its rooms.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

SOURCE = Path(__file__).parent.parent / "src" / "ccl"
VALUES = ("types", "grid", "rng", "arguments", "spelling")  # imported nearly everywhere: one box, without arrows
LEFT_OUT = ("checkpoints", "py")  # data, and the mark py.typed


def room_of(module: str) -> str:
    """`interaction` of ccl.interaction.cca."""
    return module.split(".")[1] if "." in module else ""


def needs() -> dict[str, set[str]]:
    """The rooms and loose files of the package, and those whose modules each imports."""
    rooms = {path.stem for path in SOURCE.iterdir() if path.stem not in LEFT_OUT and not path.name.startswith("__")}
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for file in SOURCE.rglob("*.py"):
        own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"ccl.{a.name}" for a in node.names] if node.module == "ccl" else [node.module]
            for name in names:
                if name.startswith("ccl.") and own in found and (other := room_of(name)) in found and other != own:
                    found[own].add(other)
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the arrows that follow from others."""

    def beyond(room: str) -> set[str]:
        return {far for near in graph[room] for far in ({near} | beyond(near))}

    return {room: {n for n in near if not any(n in beyond(other) for other in near)} for room, near in graph.items()}


def levels(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by how long the longest way down from them is."""
    depth: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        depth[room] = 1 + max((depth[other] for other in graph[room]), default=-1)
    return [sorted(room for room in depth if depth[room] == level) for level in range(max(depth.values()) + 1)]


def draw(out: Path) -> None:
    every = needs()
    try:
        TopologicalSorter(every).prepare()
    except CycleError as error:
        sys.exit(f"imports run in a circle: {' -> '.join(error.args[1])}")
    graph = reduced({room: near - set(VALUES) for room, near in every.items() if room not in VALUES})
    rows = levels(graph)
    for row in rows[1:]:  # over the middle of what each needs, so that few arrows cross
        below = {room: i / max(len(r) - 1, 1) for r in rows for i, room in enumerate(r)}
        row.sort(key=lambda room: sum(below[n] for n in graph[room]) / max(len(graph[room]), 1))
    mpl.rcParams["svg.fonttype"], mpl.rcParams["svg.hashsalt"] = "none", "ccl"
    figure, axes = plt.subplots(figsize=(11, 1.15 * len(rows) + 1))
    where = {
        room: ((i + 0.5) * 11 / len(row), 1.15 * level + 1)
        for level, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    for room, near in sorted(graph.items()):
        for other in sorted(near):
            (x, y), (u, v) = where[room], where[other]
            axes.add_patch(
                FancyArrowPatch((x, y - 0.2), (u, v + 0.2), arrowstyle="-|>", mutation_scale=9, color="0.55", lw=0.9)
            )
    for room, (x, y) in where.items():
        folder = (SOURCE / room).is_dir()
        box(axes, room + ("/" if folder else ".py"), x, y, "#eef3fb" if folder else "#f6f6f6")
    box(axes, ", ".join(f"{name}.py" for name in VALUES) + ": what everything is written in", 5.5, 0.1, "#fdf6e3", 7.2)
    axes.set(xlim=(0, 11), ylim=(-0.3, 1.15 * len(rows) + 0.6))
    axes.axis("off")
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None} if out.suffix == ".svg" else None)


def box(axes: plt.Axes, text: str, x: float, y: float, color: str, width: float = 1.25) -> None:
    style = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.18), width, 0.36, boxstyle=style, fc=color, ec="0.35", lw=0.9, zorder=3)
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, zorder=4)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("architecture.svg"))
