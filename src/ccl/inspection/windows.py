"""What the windows of an alignment do to a clip: drift, coverage, and a drawing, for each way to set their centres.

A frame's window is right where its tokens sound while its pictures are shown. t_v latent frames, t_a audio tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ccl.grid import Grid
from ccl.inspection.picture import figure_of
from ccl.interaction.align import TARP, Centre, Edges


@dataclass(frozen=True)
class Windows:
    """Of one way to set the centres.

    Args:
        centre: which.
        centres: audio token of each latent frame.
        drift: of each frame, by how many seconds its centre comes after the middle of its pictures; negative is early.
        seen: how many frames see each audio token.
        half: half a window, seconds.
    """

    centre: Centre
    centres: np.ndarray
    drift: np.ndarray
    seen: np.ndarray
    half: float

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "centre": self.centre,
            "last_seconds": float(self.drift[-1]),
            "furthest_seconds": float(self.drift[np.abs(self.drift).argmax()]),
            "half_window_seconds": self.half,
            "unseen_tokens": np.flatnonzero(self.seen == 0).tolist(),
            "seen_times": float(self.seen[self.seen > 0].mean()),
            "drift_seconds": self.drift.tolist(),
        }

    def __str__(self) -> str:
        told = self.figures
        lost, worst, half = told["unseen_tokens"], told["furthest_seconds"], told["half_window_seconds"]
        seen = (
            f"{len(lost)} audio tokens are seen by no frame ({lost[0]}-{lost[-1]})" if lost else "all tokens are seen"
        )
        off = ", more than half a window" if abs(worst) > half else ""
        return (
            f"{self.centre}: last frame {told['last_seconds']:+.3f} s, the furthest {worst:+.3f} s (half a window: "
            f"{half:.3f} s{off}); {seen}, {told['seen_times']:.2f} times on average"
        )


def middles_of(grid: Grid) -> np.ndarray:
    """When the middle of each latent frame's pictures is shown, seconds: a causal codec's first holds one picture."""
    first = grid.stride_time * (np.arange(grid.t_v) - 0.5) + 1
    return np.append(0.5, first[1:]) / grid.fps


def windows_of(grid: Grid, edges: Edges = "mask") -> list[Windows]:
    """Of the paper's centres, the proportional and the true ones."""
    found = []
    middles = middles_of(grid)
    for centre in get_args(Centre):
        align = TARP(centre, edges)
        keys, inside = (x.numpy() for x in align.windows(grid))
        centres = np.array(align.centres(grid))
        seen = np.bincount(keys[inside], minlength=grid.t_a)
        drift = (centres + 0.5) / grid.latent_rate - middles
        found.append(Windows(centre, centres, drift, seen, 1.5 * grid.c / grid.latent_rate))
    return found


def windows_figure(grid: Grid, found: list[Windows], own: str = "", edges: Edges = "mask") -> Any:
    """The windows of each, frame by frame, and below how often each token is seen."""
    figure = figure_of(3.0 * len(found), 3.4)
    axes = figure.subplots(2, len(found), squeeze=False, sharex=True, height_ratios=(3, 1))
    for column, one in enumerate(found):
        keys, inside = (x.numpy() for x in TARP(one.centre, edges).windows(grid))
        shown = np.zeros((grid.t_v, grid.t_a))
        for i, (row, there) in enumerate(zip(keys, inside, strict=True)):
            shown[i, row[there]] = 1
        above, below = axes[:, column]
        above.imshow(shown, aspect="auto", cmap="Blues", vmax=1.6, interpolation="nearest")
        shown_at = middles_of(grid) * grid.latent_rate - 0.5
        above.plot(shown_at, range(grid.t_v), color="k", lw=0.8, label="when it is shown")
        above.plot(one.centres, range(grid.t_v), ".", ms=3, color="#c0009a", label="centre")
        above.set_title(f"{one.centre}{' (this config)' if one.centre == own else ''}", fontsize=8)
        below.bar(range(grid.t_a), one.seen, width=1, color=np.where(one.seen, "#2a78c0", "#d03030"))
        below.set_xlabel("audio token", fontsize=7)
        for axis in (above, below):
            axis.tick_params(labelsize=6)
    axes[0][0].set_ylabel("latent frame", fontsize=7), axes[1][0].set_ylabel("frames that see it", fontsize=7)
    axes[0][0].legend(fontsize=6, frameon=False)
    return figure
