"""How far matrices in 8 bits take a model from its own tokens and velocities, layer by layer (ccl.model.quantized).

B clips, l tokens, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccl import flow
from ccl.grid import Grid
from ccl.inspection.attention import drawn
from ccl.model.quantized import Quantization, quantize
from ccl.spelling import counted
from ccl.text.base import TextEncoder
from ccl.types import AV, STREAMS, Stream


class Kept(NamedTuple):
    """A way to keep matrices.

    Args:
        name: of a column.
        how: in 8 bits, or None: as they are.
        streams: whose.
        half: whether products are of bfloat16.
    """

    name: str
    how: Quantization | None = None
    streams: tuple[Stream, ...] = ()
    half: bool = False


WAYS = (
    Kept("bfloat16", half=True),
    Kept("int8", "int8", ("video",)),
    Kept("float8", "float8", ("video",)),
    Kept("int8, sound too", "int8", ("video", "audio")),
    Kept("float8, sound too", "float8", ("video", "audio")),
)
Path = list[AV[Tensor]]
"""Tokens of both streams after each block, then the velocities."""


@torch.no_grad()
def errors(
    net: Any,
    text: TextEncoder,
    z: AV[Tensor],
    prompts: Sequence[str],
    grid: Grid,
    *,
    time: float,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, list[AV[float]]]:
    """Norm of the difference to float32 over the norm, for each way: after each block, then of the velocities.

    Args:
        net: a DualStreamTransformer of both streams, in float32; it stays as it is.
        text: its text encoder.
        z: latents (B, C, T, ...) of clips.
        prompts: of the clips.
        grid: of the clips.
        time: of the noise, from above 0 to 1.
        seed: of the noise.
        told: hears how many ways are done, of how many.

    Raises:
        ValueError: the network lacks a stream.
    """
    if None in net.ends:
        lacking = next(stream for stream, end in zip(STREAMS, net.ends, strict=True) if end is None)
        raise ValueError(f"this model has no {lacking} stream; both are looked at")
    noise: AV[Any] = AV(*(drawn(stream, x, range(len(x)), seed) for stream, x in zip(STREAMS, z, strict=True)))
    t = z.map(lambda x: x.new_full((len(x),), time))
    given = (AV.zip(flow.interpolate, z, noise, t), t, text(list(prompts)))
    true = followed(net, given, grid, half=False)
    found = {}
    for done, way in enumerate(WAYS):
        told(done, len(WAYS))
        other = net if way.how is None else quantize(copy.deepcopy(net), way.how, way.streams)
        path = followed(other, given, grid, half=way.half)
        found[way.name] = [AV(*map(apart, a, b)) for a, b in zip(path, true, strict=True)]
    return found


def followed(net: Any, given: tuple[Any, ...], grid: Grid, *, half: bool) -> Path:
    """Tokens after each block and the velocities of a forward."""
    path: Path = []
    hooks = [block.register_forward_hook(lambda block, given, out: path.append(out[0])) for block in net.blocks]
    try:
        with torch.autocast(given[0].video.device.type, torch.bfloat16, enabled=half):
            velocity = net(*given, grid=grid).velocity
        return [*path, velocity]
    finally:
        for hook in hooks:
            hook.remove()


def apart(x: Tensor, true: Tensor) -> float:
    return float((x.double() - true.double()).norm() / true.double().norm())


def figures_of(found: dict[str, list[AV[float]]], time: float, clips: int) -> dict[str, Any]:
    """What `errors` found, by way and stream; in the place of a number that is none, why."""

    def of(way: list[AV[float]], stream: Stream) -> dict[str, Any]:
        path = [getattr(at, stream) for at in way]
        *blocks, velocity = [x if isfinite(x) else {"not_measured": "float32 gives no numbers but 0"} for x in path]
        return {"after_blocks": blocks, "velocity": velocity}

    ways = {name: {stream: of(way, stream) for stream in STREAMS} for name, way in found.items()}
    return {"time": time, "clips": clips, "distance_to_float32": ways}


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Tables of both streams: a row a block, and the velocities."""
    ways = figures["distance_to_float32"]
    clips = counted(figures["clips"], "clip")
    for called, stream in zip(("pictures", "sound"), STREAMS, strict=True):
        yield f"{called} at t = {figures['time']:g}, {clips}: distance to float32, as a share"
        yield f"  {'after block':<12}" + "".join(f"{name:>19}" for name in ways)
        columns = [(*way[stream]["after_blocks"], way[stream]["velocity"]) for way in ways.values()]
        for row, cells in enumerate(zip(*columns, strict=True)):
            name = "velocity" if row == len(columns[0]) - 1 else str(row)
            yield f"  {name:<12}" + "".join(f"{'-' if isinstance(x, dict) else f'{x:.2e}':>19}" for x in cells)
