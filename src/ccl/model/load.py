"""Checkpoint keys, as data: Wan2.1's names, diffusers' names, and where both lie in a DualStreamTransformer.

Ours are Wan2.1's behind a prefix: `blocks.3.self_attn.q.weight` is `blocks.3.video.self_attn.q.weight`, and
`head.head.weight` is `video.head.head.weight`. The audio stream differs only in the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from ccl.types import Stream

# diffusers' WanTransformer3DModel -> Wan2.1. Order matters where one name contains another; inside a block diffusers
# calls norm2 the affine norm before text attention that Wan calls norm3.
DIFFUSERS_TO_WAN: tuple[tuple[str, str], ...] = (
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^(blocks\.\d+)\.attn1\.", r"\1.self_attn."),
    (r"^(blocks\.\d+)\.attn2\.", r"\1.cross_attn."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"_attn\.to_([qkv])\.", r"_attn.\1."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
    (r"^(blocks\.\d+)\.ffn\.net\.0\.proj\.", r"\1.ffn.0."),
    (r"^(blocks\.\d+)\.ffn\.net\.2\.", r"\1.ffn.2."),
)

# Wan2.1 -> ours; {} is the stream.
WAN_TO_OURS: tuple[tuple[str, str], ...] = (
    (r"^blocks\.(\d+)\.", r"blocks.\1.{}."),
    (r"^(?!blocks\.)", "{}."),
)


def diffusers_to_wan(key: str) -> str:
    for pattern, name in DIFFUSERS_TO_WAN:
        key = re.sub(pattern, name, key)
    return key


def wan_to_ours(key: str, stream: Stream = "video") -> str:
    for pattern, name in WAN_TO_OURS:
        key, hits = re.subn(pattern, name.format(stream), key)
        if hits:
            break
    return key


def ours_to_wan(key: str) -> str:
    """Inverse of `wan_to_ours` for a key of either stream.

    Raises:
        ValueError: for a key of an interaction, which Wan2.1 does not have.
    """
    wan = re.sub(r"^(blocks\.\d+)\.(video|audio)\.", r"\1.", key)
    wan = re.sub(r"^(video|audio)\.", "", wan)
    if wan == key:
        raise ValueError(f"{key} belongs to no stream")
    return wan


def load_stream(net: nn.Module, state: Mapping[str, Tensor], stream: Stream = "video") -> None:
    """Copy a Wan2.1 state dict, in Wan's or diffusers' names, into one stream of a DualStreamTransformer.

    Args:
        net: a DualStreamTransformer.
        state: every parameter of the stream and nothing else.
        stream: which.

    Raises:
        ValueError: naming the first key that is missing, left over or of another shape.
    """
    renamed = {wan_to_ours(diffusers_to_wan(key), stream): value for key, value in state.items()}
    parameters = {key: p for key, p in net.named_parameters() if belongs(key, stream)}
    _compare(parameters.keys(), renamed.keys())
    for key, parameter in parameters.items():
        if parameter.shape != renamed[key].shape:
            raise ValueError(
                f"{ours_to_wan(key)} has shape {tuple(renamed[key].shape)} in the checkpoint, "
                f"{tuple(parameter.shape)} in the {stream} stream"
            )
    for key, parameter in parameters.items():
        parameter.data.copy_(renamed[key])


def load_wan(net: nn.Module, path: str | Path, stream: Stream = "video") -> None:
    """`load_stream` from a .safetensors file, or a folder of them.

    Raises:
        ValueError: where there is none, or keys and shapes do not fit.
    """
    from safetensors.torch import load_file

    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"{path} holds no .safetensors weights")
    load_stream(net, {key: value for file in files for key, value in load_file(file).items()}, stream)


def belongs(key: str, stream: Stream) -> bool:
    """Whether a parameter of ours lies in the stream."""
    return re.match(rf"(blocks\.\d+\.)?{stream}\.", key) is not None


def _compare(ours: Iterable[str], theirs: Iterable[str]) -> None:
    ours, theirs = set(ours), set(theirs)
    if missing := sorted(ours - theirs):
        raise ValueError(f"the checkpoint lacks {len(missing)} keys, the first is {ours_to_wan(missing[0])}")
    if extra := sorted(theirs - ours):
        raise ValueError(f"the checkpoint has {len(extra)} keys too many, the first is {ours_to_wan(extra[0])}")
