"""The weights that training starts from: a model of ours, a run's, or published backbones, into one stream or all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ccl.model.adapter import DOWN, UP, LoRA, is_adapter, shapes_without
from ccl.model.dual_stream import DualStreamTransformer
from ccl.model.keys import called, part_of
from ccl.model.load import LoadReport, load_stream, load_wan, stream_state
from ccl.model.read_lora import read_lora
from ccl.storage.source import CONFIG, WEIGHTS, located, read_source
from ccl.text.base import TextEncoder
from ccl.types import STREAMS
from ccl.weights.fill import fill, spread
from ccl.weights.find import on_hub

#: What training can begin with of another model.
Part = Literal["video", "audio", "text"]
PARTS: tuple[Part, ...] = get_args(Part)


def begin(
    net: DualStreamTransformer, text: TextEncoder, pretrained: str | Mapping[Part, str | None]
) -> list[LoadReport]:
    """Weights of all sources of a training, in their places; the last report tells what none of them has.

    Args:
        net: to fill, sharded or not.
        text: its text encoder.
        pretrained: a source, or one for each part; None is none.

    Raises:
        ValueError: naming the source, and what does not fit.
    """
    sources: dict[Any, str | None] = {None: pretrained} if isinstance(pretrained, str) else {**pretrained}
    reports = [load_pretrained(net, text, source, part) for part, source in sources.items() if source is not None]
    new = [name for name in (reports[0].new if reports else ()) if all(name in report.new for report in reports)]
    return [replace(report, new=tuple(new) if report is reports[-1] else ()) for report in reports]


def fetched(
    pretrained: str | Mapping[Part, str | None] | None, began: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Models of ours on the hub that a training begins with, which lie here from then on.

    Args:
        pretrained: as of `begin`.
        began: what this returned as the training began, where it goes on.

    Returns:
        OWNER/NAME@COMMIT of each, by what it is called here.

    Raises:
        ValueError: one sentence that names the key, where one cannot be fetched or is none.
    """
    found = {}
    given = pretrained if isinstance(pretrained, Mapping) else {"": pretrained}
    for part, source in given.items():
        if source is None or (there := on_hub(source)) is None:
            continue
        try:
            folder = located(began.get(source, source))
        except ValueError as error:
            raise ValueError(f"{f'model.pretrained.{part}'.rstrip('.')}: {error}") from error
        if folder.is_dir():
            found[source] = str(there._replace(revision=folder.name))
    return found


def load_pretrained(net: DualStreamTransformer, text: TextEncoder, source: str, part: Part | None) -> LoadReport:
    """Weights of a source into one stream, the text encoder, or whatever it has.

    Args:
        net: to fill, sharded or not.
        text: its text encoder, filled where the source has one.
        source: a model folder, a run folder, a .ckpt in one, published weights, or OWNER/NAME[@REVISION] of the hub: a
            model folder there is fetched, of which the weights alone are read.
        part: to fill; a stream of ours brings its text encoder with it. None is all that the source has.

    Raises:
        ValueError: naming the source, and what does not fit.
    """

    def place(parameter: Tensor, whole: Tensor) -> None:
        parameter.copy_(spread(whole.to(parameter.dtype), parameter))

    if part in STREAMS and getattr(net, part) is None:
        raise ValueError(f"{source} is given as .{part}, and the network has no {part} stream; null leaves it out")
    own = tuple(f"text.{name}" for name, _ in text.named_parameters())
    state = None
    try:
        state = own_weights(located(source))
        if state is None:
            if part == "text":
                raise ValueError(f"{source} is no model with a text encoder of its own")
            report = load_wan(net, source, part or "video", place=place)
            return replace(report, new=(*report.new, *own))
        words = {k[5:]: v for k, v in state.items() if k.startswith("text.")}
        if part == "text":
            fill(text, words, source)
            return LoadReport(source, (), own, tuple(name for name, _ in net.named_parameters()))
        weights = {k[4:]: v for k, v in state.items() if k.startswith("net.")}
        if part is None:
            report = load_parts(net, weights, source)
        else:
            report = load_stream(net, stream_state(weights, part), part, source=source, place=place)
        if not words:
            return replace(report, new=(*report.new, *own))
        fill(text, words, source)
        return replace(report, loaded=(*report.loaded, *own))
    except (ValueError, SafetensorError) as error:
        alone = " ".join(f"--model.pretrained.{name} {source}" for name in STREAMS)
        other = state is not None and part is None and ".interaction." in str(error)
        how = f" (its interaction is another; `{alone}` takes its streams without it)" if other else ""
        if state is not None and str(source).startswith("ccl/checkpoints"):  # it was read, and does not fit
            how = "; the streams that ship are of joint.yaml's sizes: others begin from nothing, with "
            how += "--config configs/trainer/scratch.yaml"
        raise ValueError(f"{error}{how}") from error


def own_weights(source: Path) -> dict[str, Tensor] | None:
    """Weights of a model folder of ours, or the averaged ones of a run's checkpoint (of a run folder the last).

    They are named net.* and text.*; None where it is something else.
    """
    in_run = source.suffix == ".ckpt" and any((place / CONFIG).is_file() for place in source.absolute().parents[:2])
    if in_run or (source / "checkpoints").is_dir():
        return read_source(source)[1]
    path = source / WEIGHTS
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as opened:
        if not any(name.startswith("net.") for name in opened.keys()):  # noqa: SIM118 - no mapping
            return None
    return load_file(path)


def load_parts(net: DualStreamTransformer, state: dict[str, Tensor], source: str) -> LoadReport:
    """Weights of a model of ours into a network: each stream and the interaction whole, or, where it has none, not.

    Raises:
        ValueError: as of `fill`.
    """
    held = {part_of(name) for name in state}
    new = [name for name in net.state_dict() if part_of(name) not in held and not is_adapter(name)]
    fill(net, state, source, without=lambda name: is_adapter(name) or part_of(name) not in held)
    return LoadReport(source, tuple(s for s in STREAMS if s in held), tuple(state), tuple(new))


@torch.no_grad()
def go_on(net: DualStreamTransformer, lora: LoRA) -> str:
    """Give adapters the values of a LoRA file, and what trains whole those that the file has of it.

    Args:
        net: with adapters, sharded or not.
        lora: which file, and how the network's adapters are scaled.

    Returns:
        What was loaded, in words.

    Raises:
        ValueError: naming the file, and what of it this training could not go on with.
    """
    own = dict(net.named_parameters())
    assert lora.start is not None
    found = read_lora(lora.start, shapes_without(net))
    layers = {name: name.removesuffix("weight") for name in found.low}
    lacking = [name for name, layer in layers.items() if f"{layer}{DOWN}" not in own]
    fixed = [*found.added, *(name for name in found.whole if not own[name].requires_grad)]
    if strange := [*lacking, *fixed]:
        raise ValueError(
            f"{found.source} changes {called(strange[0])}, which does not train here; put it into the base first, with "
            f"`ccl export BASE -o NEW --lora {found.source}`"
        )
    for name, low in found.low.items():
        if len(low.down) != lora.rank:
            raise ValueError(
                f"{found.source} is of rank {len(low.down)} at {called(name)}, and model.lora.rank {lora.rank}"
            )
    values = dict(found.whole)
    for name, low in found.low.items():  # ours are scaled by one number, theirs each by its own
        values[layers[name] + DOWN] = low.down
        values[layers[name] + UP] = low.up if low.scale == lora.scale else low.up.float() * (low.scale / lora.scale)
    for name, whole in values.items():
        own[name].copy_(spread(whole.to(own[name].dtype), own[name]))
    beside = f" and {len(found.whole)} whole parameters" if found.whole else ""
    new = sum(name.endswith(DOWN) for name in own) - len(found.low)
    return "".join((f"{found.source}: {len(found.low)} adapters{beside} loaded", f", {new} new" if new else ""))


@torch.no_grad()
def copy_values(source: nn.Module, target: nn.Module) -> None:
    """Parameters and buffers of one module into its twin, shard by shard."""
    for kind in ("parameters", "buffers"):
        for new, old in zip(getattr(target, kind)(), getattr(source, kind)(), strict=True):
            new.copy_(old)
