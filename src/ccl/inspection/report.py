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
from ccl.spelling import counted

# Of which the ratio is told: what the paper says attends more to the context, and what less.
PAIRS = {"a2v": ("background", "mouth"), "v2a": ("silence", "voice")}


def figures_of(look: Look, clips: int) -> dict[str, Any]:
    """At one noise level: means over layers, heads and tokens, with 95 % over clips."""
    return {"time": look.time, "clips": clips, **{direction: of_direction(look, direction) for direction in PAIRS}}


def of_direction(look: Look, direction: str) -> dict[str, Any]:
    regions = list(dict.fromkeys(region for one, _, region in look.measures if one == direction))
    if not regions:
        return {"not_measured": "this interaction tells nothing of it"}
    names = [name for name in CAUSE if any(key[:2] == (direction, name) for key in look.measures)]
    above, below = PAIRS[direction]

    def each(measure: str) -> dict[str, Any]:
        return {region: look.mean(direction, measure, region) for region in regions}

    found: dict[str, Any] = {
        "share": {name: each(name) for name in names}
        or {"not_measured": "there are no context tokens; all goes to the other stream"}
    }
    found[f"share_{above}_to_{below}"] = {name: look.ratio(direction, name, above, below) for name in names}
    found[f"left_{below}_to_{above}"] = look.ratio(direction, "other", below, above)
    if direction == "a2v":
        found["last_token"] = each("last")
    else:
        found["on_mouth"], found["on_mouth_if_even"] = each("on mouth"), each("mouth of seen")
    return found


def lines_of(figures: dict[str, Any]) -> Iterator[str]:
    """The figures of one noise level, a line each."""
    yield f"t = {figures['time']:g}, {counted(figures['clips'], 'clip')}"
    for direction, (above, below) in PAIRS.items():
        found = figures[direction]
        if why := found.get("not_measured") or found["share"].get("not_measured"):
            yield f"  {direction}: {why}"
        if "not_measured" in found:
            continue
        for name, ratio in found[f"share_{above}_to_{below}"].items():
            yield f"  {direction}: share of {CAUSE[name]}: {listed(found['share'][name])}"
            if "value" in ratio:
                left = found[f"left_{below}_to_{above}"]
                yield f"  {direction}: that share, {above} to {below}: {number(ratio)}"
                yield f"  {direction}: what is left to the other stream, {below} to {above}: {number(left)}"
        if direction == "a2v":
            yield f"  a2v: on the last audio token, 1 as on any other that is seen: {listed(found['last_token'])}"
            continue
        for region, on in found["on_mouth"].items():
            if "value" in on:
                even = found["on_mouth_if_even"][region]["value"]
                yield f"  v2a: on the mouth, {region}: {number(on)}, where even attention had {even:.3f}"


def listed(each: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{region} {number(one)}" for region, one in each.items())


def number(one: dict[str, Any]) -> str:
    if "value" not in one:
        return "-"
    return f"{one['value']:.3f}" + (f" [{one['low']:.3f}, {one['high']:.3f}]" if "low" in one else "")


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
