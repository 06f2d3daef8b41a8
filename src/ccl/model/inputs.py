"""What a network is given, looked at before it computes: by shapes and types alone, so that nothing waits for a GPU.

What does not fit is a ValueError of one sentence that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccl import arguments
from ccl.grid import Grid
from ccl.model.prepared import Prepared
from ccl.types import AV, STREAMS, View

if TYPE_CHECKING:
    from ccl.model.dual_stream import DualStreamTransformer


def check_inputs(
    net: DualStreamTransformer, x: Any, t: Any, text: Any, grid: Any, views: Any, extras: dict[str, Any]
) -> None:
    """Refuse what a forward cannot be made of; the arguments are those of `DualStreamTransformer.forward`."""
    for name, pair in {"x": x, "t": t}.items():
        if not isinstance(pair, AV):
            raise ValueError(f"{name} is a {type(pair).__name__}; it must be AV(video, audio), None for no stream")
    if not isinstance(grid, Grid):
        raise ValueError(f"grid is a {type(grid).__name__}; it must be a Grid, the clip's lengths")
    if x.video is None and x.audio is None:
        raise ValueError("both streams are absent; the network needs at least one")
    if grid.patch != net.patch:
        raise ValueError(f"grid.patch is {grid.patch}, the network's patch is {net.patch}; they must be equal")
    expected = AV(
        (net.channels.video, grid.t_v, grid.latent_height, grid.latent_width),
        (net.channels.audio, grid.t_a),
    )
    some = next(latents for latents in x if latents is not None)
    batch = len(some) if isinstance(some, Tensor) and some.ndim else 0
    for name, latents, times, shape, ends in zip(STREAMS, x, t, expected, net.ends, strict=True):
        if latents is None:
            continue
        if ends is None:
            raise ValueError(f"{name} latents are given, but this network has no {name} stream")
        wanted = f"a tensor of floats (B, {str(shape)[1:]}"
        arguments.instance(f"x.{name}", latents, Tensor, wanted)
        if not latents.is_floating_point() or not latents.ndim or not len(latents):
            raise ValueError(f"x.{name} is {arguments.described(latents)}; it must be {wanted}")
        if tuple(latents.shape[1:]) != shape:
            raise ValueError(f"{name} latents have shape {tuple(latents.shape[1:])}; the grid asks for {shape}")
        if len(latents) != batch:
            raise ValueError(f"x has {batch} clips of video and {len(latents)} of audio; they must be as many")
        if latents.dtype == torch.float64 and net.dtype != torch.float64:
            raise ValueError(
                f"{name} latents are float64 and the network's weights {str(net.dtype).removeprefix('torch.')}; "
                "give x.float(), or make the network float64 with net.double()"
            )
        if times is None:
            raise ValueError(f"t.{name} is None, but there are {name} latents; give their times, ({batch},)")
        arguments.instance(f"t.{name}", times, Tensor, f"a tensor ({batch},)")
        if times.ndim not in (1, 2) or len(times) != batch or (times.ndim == 2 and times.shape[1] not in (1, shape[1])):
            raise ValueError(
                f"t.{name} has shape {tuple(times.shape)}; it must be ({batch},), or ({batch}, {shape[1]}) where "
                "each latent frame has its own time"
            )
        check_times(net, name, times)
    check_text(net, text, x, batch)
    shared = AV(text, text) if isinstance(text, Tensor) else AV(None, None) if isinstance(text, Prepared) else text
    check_devices(net, x=x, t=t, text=shared)
    check_views(x, views)
    arguments.instance("extras", extras, dict, "a dict of tensors by name")
    check_extras(net, x, extras)


def check_times(net: DualStreamTransformer, name: str, t: Tensor) -> None:
    """Refuse times out of [0, 1], as those of Wan's 0 to 1000."""
    if t.is_meta or torch.compiler.is_compiling() or type(t) is not Tensor or (t.is_cuda and net.timed):
        return
    net.timed = net.timed or t.is_cuda
    # A little more than 1, for times that were computed in half precision.
    if not bool(((t >= -1e-2) & (t <= 1.01)).all()):
        low, high = float(t.min()), float(t.max())
        hint = "; divide by 1000" if high > 2 else ""
        raise ValueError(f"t.{name} is from {low:g} to {high:g}; times run from 0 (clean) to 1 (noise){hint}")


def check_devices(net: DualStreamTransformer, **pairs: AV[Any]) -> None:
    """Refuse tensors that lie apart from each other, or from the network where its weights are whole."""
    own = next(net.parameters())
    place = own.device if type(own.data) is Tensor else next(x for x in pairs["x"] if x is not None).device
    for name, pair in pairs.items():
        for stream, tensor, latents in zip(STREAMS, pair, pairs["x"], strict=True):
            if latents is not None and tensor is not None and tensor.device != place:
                what = name if name == "text" and pair[0] is pair[1] else f"{name}.{stream}"
                raise ValueError(f"{what} is on {tensor.device}; it must be on {place}, with the network")


def check_text(net: DualStreamTransformer, text: Any, x: AV[Any], batch: int) -> None:
    if isinstance(text, Prepared):
        if len(text.blocks) != len(net.blocks):
            raise ValueError(f"text was prepared by {len(text.blocks)} blocks; this network has {len(net.blocks)}")
        made = next(len(kv[0]) for kv in text.blocks[0].text if kv is not None)
        if made != batch:
            raise ValueError(f"text was prepared of {made} prompts, and x has {batch} clips; they must be as many")
    elif isinstance(text, Tensor):
        if text.ndim != 3 or len(text) != batch or text.shape[2] != net.text_dim:
            raise ValueError(f"text has shape {tuple(text.shape)}; states ({batch}, L, {net.text_dim}) are needed")
    elif isinstance(text, AV):
        for name, states, latents in zip(STREAMS, text, x, strict=True):
            if latents is not None:
                arguments.tensor(f"text.{name}", states, batch, "L", net.text_dim)
    else:
        raise ValueError(f"text is a {type(text).__name__}; it must be states (B, L, {net.text_dim}), or prepared")


def check_views(x: AV[Any], views: Any) -> None:
    if not isinstance(views, Sequence) or not all(isinstance(view, View) for view in views):
        raise ValueError(f"view is {arguments.described(views)}; it must be a View, or a list of them")
    for view in views:
        r = view.route
        if (x.audio is None and r.a2v) or (x.video is None and r.v2a):
            raise ValueError(f"{r} lets a stream see one that is absent; close that direction")
    batch = len(x.audio if x.video is None else x.video)
    if not views or batch % len(views):
        raise ValueError(f"a batch of {batch} does not divide into {len(views)} views")


def check_extras(net: DualStreamTransformer, x: AV[Any], extras: dict[str, Any]) -> None:
    """In training of both streams an interaction's `needs` must be there, else it does without; streams ask for theirs
    themselves."""
    if x.video is None or x.audio is None or not (net.training and torch.is_grad_enabled()):
        return
    if lacking := [name for name in net.interaction.needs if name not in extras]:
        raise ValueError(
            f"{type(net.interaction).__name__} trains on {lacking[0]!r}, which the batch's extras do not hold"
        )
