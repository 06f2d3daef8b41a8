"""A matrix's pictures: a canvas without a screen, and files that are equal each time they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccl.files import replacing_path


def canvas(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write PATH.png and PATH.svg, each whole."""
    from matplotlib import rc_context

    for suffix in ("png", "svg"):
        # Names in an SVG are drawn at random without a salt.
        with rc_context({"svg.hashsalt": "ccl"}), replacing_path(path.with_suffix(f".{suffix}")) as partial:
            figure.savefig(partial, dpi=110, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
