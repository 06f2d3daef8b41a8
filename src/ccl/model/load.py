"""Pretrained backbones into the streams of a DualStreamTransformer, and the video stream back out.

Wan2.1 and Wan2.2 in their own or diffusers' names, and Ovi's two towers, with their fusion where the network has it.
What is copied is decided by names and shapes first, in a report, so a file that does not fit changes nothing; then
tensor by tensor from the mapped file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccl.model.adapter import is_adapter
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.keys import (
    RELEASES,
    belongs,
    called,
    diffusers_to_wan,
    ours_by_theirs,
    ours_to_wan,
    part_of,
    unit_of,
    unused,
    wan_to_diffusers,
    wan_to_ours,
)
from ccl.model.stored import Stored
from ccl.types import STREAMS, Stream
from ccl.weights.formats import check_dtype, check_finite, foreign_names

__all__ = [
    "LoadReport",
    "belongs",
    "diffusers_to_wan",
    "load_stream",
    "load_wan",
    "match",
    "ours_to_wan",
    "stream_state",
    "wan_to_diffusers",
    "wan_to_ours",
]

Shape = tuple[int, ...]
Place = Callable[[Tensor, Tensor], Any]  # (parameter, whole tensor): copies the second into the first


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to a network, by our names.

    Args:
        source: the file or folder.
        streams: the streams that it has.
        loaded: parameters that have its values.
        new: parameters of what it has nothing of (the other stream, the interactions), which stay as they were.
        missing: parameters that it lacks, of what it has the rest of; an error wherever weights are loaded.
        unexpected: its own names of what this network has no place for; an error, but for Ovi's fusion where the
            interaction is another.
        shapes: parameters whose shape differs: (in the file, in the network); an error.
    """

    source: str
    streams: tuple[Stream, ...]
    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)

    def __str__(self) -> str:
        whose = [f"{' and the '.join(self.streams)} stream"] if self.streams else []
        whose += ["interaction"] if any(part_of(name) == "interaction" for name in self.loaded) else []
        whose += ["text encoder"] if any(part_of(name) == "text" for name in self.loaded) else []
        lines = [f"{self.source}: {len(self.loaded)} tensors of the {' and the '.join(whose)} loaded"]
        for what, names in (
            ("new, as initialised", self.new),
            ("missing", self.missing),
            ("of another shape", tuple(self.shapes)),
            ("in the file and unused", self.unexpected),
        ):
            if names:
                lines.append(f"  {what}: {len(names)} ({', '.join(f'{part} {n}' for part, n in _parts(names))})")
        return "\n".join(lines)

    def check(self) -> LoadReport:
        """Itself, where what it has anything of is there whole.

        Raises:
            ValueError: one sentence that says what does not fit.
        """
        if foreign := foreign_names(self.unexpected):
            raise ValueError(f"{self.source} is {foreign}")
        if not self.loaded and not self.shapes:
            first = f"; its first key is {self.unexpected[0]}" if self.unexpected else ""
            raise ValueError(f"{self.source} holds no weights of a Wan backbone{first}")
        if other := self._other_size():
            raise ValueError(other)
        if self.missing:
            raise ValueError(
                f"{self.source}: the checkpoint lacks {len(self.missing)} keys, the first is {called(self.missing[0])}"
            )
        if extra := [key for key in self.unexpected if not unused(key)]:
            raise ValueError(
                f"{self.source}: the checkpoint has {len(extra)} keys too many, "
                f"the first is {diffusers_to_wan(extra[0])}"
            )
        for key, (theirs, own) in self.shapes.items():
            part = part_of(key)
            where = part if part == "interaction" else f"{part} stream"
            raise ValueError(f"{self.source}: {called(key)} has shape {theirs} in the checkpoint, {own} in the {where}")
        return self

    def _other_size(self) -> str:
        """What to say where the file is of another backbone altogether, or ""."""
        for stream in self.streams:
            patch = self.shapes.get(f"{stream}.patch_embedding.weight")
            if patch is None or min(map(len, patch)) < 2 or patch[0][:2] == patch[1][:2]:
                continue
            common = (*self.loaded, *self.shapes)
            sizes = [
                (shape[0], _blocks((*common, *more)), shape[1])
                for shape, more in zip(patch, (self.unexpected, self.missing), strict=True)
            ]
            theirs, own = (
                f"{f'{RELEASES[size]}: ' if size in RELEASES else ''}{size[0]} wide, {size[1]} blocks, "
                f"{size[2]} channels in"
                for size in sizes
            )
            return f"{self.source} is another backbone ({theirs}) than the model's {stream} stream ({own})"
        return ""


def match(net: DualStreamTransformer, shapes: Mapping[str, Shape], source: str, stream: Stream = "video") -> LoadReport:
    """What would be loaded, judged by names and shapes alone; the network may lie on the meta device.

    Args:
        net: to fill.
        shapes: of every tensor of the file, by its own names, in any known layout.
        source: what to call the file.
        stream: whose weights they are; a file that names its towers says so itself.

    Raises:
        ValueError: it holds a parameter twice, under two names.
    """
    renamed = _theirs(net, shapes, stream, source)
    held = {unit_of(name) for name in renamed}
    own = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    asked = [name for name in own if unit_of(name) in held and not is_adapter(name)]
    found, wanted = [name for name in asked if name in renamed], set(asked)
    return LoadReport(
        source=source,
        streams=tuple(stream for stream in STREAMS if stream in held),
        loaded=tuple(name for name in found if shapes[renamed[name]] == own[name]),
        new=tuple(name for name in own if name not in wanted),
        missing=tuple(name for name in asked if name not in renamed),
        unexpected=tuple(key for name, key in renamed.items() if name not in own),
        shapes={name: (shapes[renamed[name]], own[name]) for name in found if shapes[renamed[name]] != own[name]},
    )


def load_stream(
    net: DualStreamTransformer,
    state: Mapping[str, Tensor],
    stream: Stream = "video",
    *,
    source: str = "the state dict",
    place: Place = Tensor.copy_,
) -> LoadReport:
    """Copy pretrained weights into one stream; from a file of two towers into both, and into the interaction where it
    is theirs.

    Args:
        net: to fill.
        state: every parameter of the stream, in Wan's, diffusers' or Ovi's names; read one at a time.
        stream: which.
        source: what to call it in messages.
        place: how a whole tensor gets into a parameter, where that is not a copy (shards).

    Raises:
        ValueError: in one sentence, what is missing, left over, of another shape or no floats, and nothing was changed
            then; or which tensor holds NaN or infinity, and those before it are loaded.
    """
    shape = state.shape if isinstance(state, Stored) else lambda key: tuple(state[key].shape)
    dtype = state.dtype if isinstance(state, Stored) else lambda key: state[key].dtype
    report = match(net, {key: shape(key) for key in state}, source, stream).check()
    renamed = _theirs(net, state, stream, source)
    for name in report.loaded:
        check_dtype(renamed[name], dtype(renamed[name]), source)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name in report.loaded:
            tensor = state[renamed[name]]
            check_finite(renamed[name], tensor, source)
            place(parameters[name], tensor)
            del tensor  # before the next one is read
    return report


def load_wan(
    net: DualStreamTransformer, path: str | Path, stream: Stream = "video", *, place: Place = Tensor.copy_
) -> LoadReport:
    """`load_stream` from a file, a folder of one, of shards or of a pipeline, or a repository of the hub that is here.

    Args:
        net: to fill.
        path: of the weights.
        stream: which.
        place: how a whole tensor gets into a parameter.

    Raises:
        ValueError: in one sentence, where there is none, it is damaged, or keys and shapes do not fit.
    """
    from ccl.weights.find import find

    return load_stream(net, Stored(find(path, "a backbone")), stream, source=str(path), place=place)


def stream_state(state: Mapping[str, Tensor], stream: Stream = "video") -> dict[str, Tensor]:
    """A stream's tensors out of a network's, in Wan2.1's names.

    Args:
        state: of a DualStreamTransformer.
        stream: which.
    """
    return {ours_to_wan(key): value for key, value in state.items() if belongs(key, stream)}


def _theirs(net: DualStreamTransformer, keys: Iterable[str], stream: Stream, source: str) -> dict[str, str]:
    """A file's own names by ours."""
    try:
        return {name: key for key, name in ours_by_theirs(keys, stream, net.interaction.upstream).items()}
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _blocks(names: Iterable[str]) -> int:
    """How many blocks the names speak of."""
    return len({found[1] for name in names if (found := re.search(r"(?:^|\.)blocks\.(\d+)\.", name))})


def _parts(names: Iterable[str]) -> list[tuple[str, int]]:
    """How many of the names lie in each part: video, audio, interaction, or whatever a foreign file has."""
    known = ("interaction", "video", "audio", "fusion")
    return Counter(
        next((word for word in known if re.search(rf"(^|[._]){word}\.", name)), name.split(".")[0]) for name in names
    ).most_common()
