"""Attention in pictures: one clip frame by frame, as the paper's Fig. 6, and the shares of all clips by layer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ccl.grid import Grid
from ccl.inspection.attention import Look, mean_of
from ccl.inspection.regions import loudness

SHOWN = 8  # frames of a clip
COLOUR = {"mouth": "#c0009a", "person": "#777777", "background": "#2a78c0", "voice": "#c0009a", "silence": "#2a78c0",
          "all": "#333333"}  # fmt: skip
CAUSE = {"context": "context tokens", "own": "own tokens"}


def figure_of(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def pixels_of(figure: Any, dpi: int = 90) -> UInt8[np.ndarray, "h w 3"]:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def png_of(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """With 128 colours, which halve the file and take nothing from a drawing."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(128, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def clip_figure(
    look: Look, video: UInt8[np.ndarray, "f h w 3"], audio: Float[np.ndarray, " s"], grid: Grid, title: str = ""
) -> Any:
    """One clip at one noise level: pictures, what their tokens leave to the context, where the sound looks; below, by
    time, what pictures hear and what sound leaves to the context. Means over layers and heads."""
    frames = np.unique(np.linspace(0, grid.t_v - 1, min(SHOWN, grid.t_v)).round().astype(int))
    pictures = [video[0 if i == 0 else i * grid.stride_time - 1] for i in frames]
    a2v, v2a = (x.mean(0) if (x := look.maps.get(d)) is not None else None for d in ("a2v", "v2a"))
    rest = {direction: x.mean(0) for direction, x in look.rest.items()}
    rows: list[tuple[str, np.ndarray, str]] = []
    if "a2v" in rest:
        rows.append(("a2v: on\ncontext", rest["a2v"].reshape(grid.t_v, grid.h, grid.w)[frames], "viridis"))
    if v2a is not None and v2a.shape[-1]:
        rows.append(("v2a: where\nsound looks", looked_at(v2a, grid)[frames], "magma"))
    figure = figure_of(1.05 * len(frames) + 1.2, 1.1 * (1 + len(rows)) + 2.6)
    above, below = figure.subfigures(2, 1, height_ratios=(1.1 * (1 + len(rows)), 2.6))
    axes = above.subplots(1 + len(rows), len(frames), squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([]), axis.set_yticks([])
    extent = (0, grid.width, grid.height, 0)
    for axis, picture in zip(axes[0], pictures, strict=True):
        axis.imshow(picture, extent=extent)
    for row, (name, values, colours) in zip(axes[1:], rows, strict=True):
        row[0].set_ylabel(name, fontsize=7)
        for axis, picture, value in zip(row, pictures, values, strict=True):
            axis.imshow(picture.mean(-1), cmap="gray", extent=extent)
            shown = axis.imshow(value, cmap=colours, alpha=0.7, extent=extent, vmin=values.min(), vmax=values.max())
        above.colorbar(shown, ax=list(row), fraction=0.03, pad=0.01).ax.tick_params(labelsize=6)
    left, right = below.subplots(1, 2)
    if a2v is not None and a2v.shape[-1]:
        heard = a2v.reshape(grid.t_v, -1, a2v.shape[-1]).mean(1)
        left.imshow(heard, aspect="auto", cmap="magma", interpolation="nearest")
        left.set_title("a2v: what each frame hears", fontsize=8)
        left.set_xlabel("audio token", fontsize=7), left.set_ylabel("latent frame", fontsize=7)
    at = (np.arange(grid.t_a) + 0.5) / grid.latent_rate
    loud = loudness(audio, grid)
    right.fill_between(at, loud / max(loud.max(), 1e-9), color="0.85", lw=0, label="loudness")
    if "v2a" in rest:
        right.plot(at, rest["v2a"], color=COLOUR["mouth"], lw=1.2, label="v2a: on context")
    right.set_xlabel("s", fontsize=7), right.set_ylim(0, 1.02), right.legend(fontsize=6, frameon=False)
    for axis in (left, right):
        axis.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=8)
    return figure


def looked_at(v2a: Float[np.ndarray, "l m"], grid: Grid) -> Float[np.ndarray, "t h w"]:
    """Where the sound of each frame looks, 1 being as much as anywhere that it sees."""
    frame = np.arange(grid.t_a) * grid.t_v // grid.t_a
    mean = np.stack([v2a[frame == i].mean(0) if (frame == i).any() else v2a.mean(0) for i in range(grid.t_v)])
    own = np.stack([mean[i].reshape(grid.t_v, grid.h, grid.w)[i] for i in range(grid.t_v)])
    return own / np.maximum(own.mean((1, 2), keepdims=True), 1e-12)


def layer_figure(looks: Sequence[Look], title: str = "") -> Any:
    """By layer: what context tokens take in each region, and attention by place in the window."""
    directions = list(dict.fromkeys(key[0] for look in looks for key in look.places))
    names = [name for name in CAUSE if any(key[1] == name for look in looks for key in look.measures)]
    figure = figure_of(2.5 * len(looks), 2.0 * len(directions) * (1 + bool(names)))
    axes = figure.subplots(len(directions) * (1 + bool(names)), len(looks), squeeze=False)
    row = 0
    for direction in directions:
        for name in names[:1]:
            for axis, look in zip(axes[row], looks, strict=True):
                for (one, measure, region), values in look.measures.items():
                    if (one, measure) == (direction, name):
                        shown = [mean_of(layer) for layer in values]
                        axis.plot(shown, "o-", ms=3, lw=1, color=COLOUR.get(region, "0.4"), label=region)
                axis.set_ylim(0, 1), axis.set_title(f"t = {look.time:g}", fontsize=7)
                axis.set_xlabel("layer", fontsize=7)
            axes[row][0].set_ylabel(f"{direction}: on {CAUSE[name]}", fontsize=7)
            axes[row][0].legend(fontsize=6, frameon=False)
            row += 1
        for axis, look in zip(axes[row], looks, strict=True):
            for (one, region), values in look.places.items():
                if one == direction and values.size:
                    axis.plot(values.mean(0), lw=1, color=COLOUR.get(region, "0.4"), label=region)
            axis.axhline(1, color="0.8", lw=0.7)
            axis.set_xlabel("place in the window" if direction == "a2v" else "place in the frame", fontsize=7)
        axes[row][0].set_ylabel(f"{direction}: attention, 1 = even", fontsize=7)
        row += 1
    for axis in axes.flat:
        axis.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=8)
    return figure
