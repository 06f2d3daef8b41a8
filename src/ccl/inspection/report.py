"""What was seen of a model's attention, on a terminal and in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccl.files import replacing, write_whole
from ccl.grid import Grid
from ccl.inspection.attention import Look
from ccl.inspection.picture import CAUSE, clip_figure, layer_figure, pixels_of, png_of
from ccl.media import Clip

# Of which the ratio is told: what the paper says attends more to the context, and what less.
PAIRS = {"a2v": ("background", "mouth"), "v2a": ("silence", "voice")}


def told(looks: Sequence[Look], clips: int) -> Iterator[str]:
    """The figures, a line each: mean over layers, heads and tokens, with 95 % over clips."""
    for look in looks:
        yield f"t = {look.time:g}, {clips} clips"
        for direction in ("a2v", "v2a"):
            regions = list(dict.fromkeys(region for one, _, region in look.measures if one == direction))
            if not regions:
                yield f"  {direction}: this interaction tells nothing of it"
                continue
            names = [name for name in CAUSE if any(key[:2] == (direction, name) for key in look.measures)]
            if not names:
                yield f"  {direction}: there are no context tokens; all goes to the other stream"
            for name in names:
                parts = [f"{region} {number(*look.mean(direction, name, region))}" for region in regions]
                yield f"  {direction}: share of {CAUSE[name]}: {', '.join(parts)}"
                above, below = PAIRS[direction]
                if not np.isnan((ratio := look.ratio(direction, name, above, below))[0]):
                    left = look.ratio(direction, "other", below, above)
                    yield f"  {direction}: that share, {above} to {below}: {number(*ratio)}"
                    yield f"  {direction}: what is left to the other stream, {below} to {above}: {number(*left)}"
            if direction == "a2v":
                parts = [f"{region} {number(*look.mean(direction, 'last', region))}" for region in regions]
                yield f"  a2v: on the last audio token, 1 as on any other that is seen: {', '.join(parts)}"
            for region in regions:
                if not np.isnan((on := look.mean(direction, "on mouth", region))[0]):
                    even = look.mean(direction, "mouth of seen", region)
                    yield f"  v2a: on the mouth, {region}: {number(*on)}, where even attention had {even[0]:.3f}"


def number(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def write(looks: Sequence[Look], clip: Clip, grid: Grid, folder: Path) -> Iterator[Path]:
    """Pictures of a clip at each noise level, shares by layer, the arrays, and the pictures for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    assert clip.video is not None and clip.audio is not None
    folder.mkdir(parents=True, exist_ok=True)
    said = clip.prompt if len(clip.prompt) < 110 else f"{clip.prompt[:107]}..."
    figures = {
        f"clip_t{look.time:g}.png": clip_figure(look, clip.video, clip.audio, grid, f"t = {look.time:g}: {said}")
        for look in looks
    }
    figures["layers.png"] = layer_figure(looks)
    with SummaryWriter(str(folder)) as board:
        for name, figure in figures.items():
            pixels = pixels_of(figure)
            write_whole(folder / name, png_of(pixels))
            board.add_image(f"attention/{name.removesuffix('.png')}", pixels, dataformats="HWC")
            yield folder / name
    with replacing(folder / "attention.npz") as file:
        arrays: dict[str, Any] = {name: x for look in looks for name, x in look.arrays().items()}
        np.savez_compressed(file, **arrays)
    yield folder / "attention.npz"
