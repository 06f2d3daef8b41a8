"""Checkpoint keys, as data: Wan2.1's names, diffusers', Ovi's, and where each lies in a DualStreamTransformer.

Ours are Wan2.1's behind the stream: `blocks.3.self_attn.q.weight` is `blocks.3.video.self_attn.q.weight`, and
`head.head.weight` is `video.head.head.weight`. The audio stream differs only in that word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ccl.types import STREAMS, Stream

# (Wan2.1, diffusers' WanTransformer3DModel): modules and bare parameters outside the blocks. What is not named here
# (patch_embedding) has one name.
ENDS: tuple[tuple[str, str], ...] = (
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("head.head", "proj_out"),
    ("head.modulation", "scale_shift_table"),
)
# The same behind `blocks.N.`. diffusers calls the affine norm before text attention norm2, Wan norm3.
BLOCK: tuple[tuple[str, str], ...] = (
    ("modulation", "scale_shift_table"),
    *((f"self_attn.{wan}", f"attn1.{theirs}") for wan, theirs in zip("qkv", ("to_q", "to_k", "to_v"), strict=True)),
    ("self_attn.o", "attn1.to_out.0"),
    ("self_attn.norm_q", "attn1.norm_q"),
    ("self_attn.norm_k", "attn1.norm_k"),
    *((f"cross_attn.{wan}", f"attn2.{theirs}") for wan, theirs in zip("qkv", ("to_q", "to_k", "to_v"), strict=True)),
    ("cross_attn.o", "attn2.to_out.0"),
    ("cross_attn.norm_q", "attn2.norm_q"),
    ("cross_attn.norm_k", "attn2.norm_k"),
    ("cross_attn.k_img", "attn2.add_k_proj"),
    ("cross_attn.v_img", "attn2.add_v_proj"),
    ("cross_attn.norm_k_img", "attn2.norm_added_k"),
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
)

# Where a backbone's own names begin, whatever its file puts before all of them (`model.diffusion_model.`, `module.`).
ROOT = re.compile(
    r"(^|\.)(?=(video_model|audio_model|blocks|patch_embedding|text_embedding|time_embedding|time_projection|img_emb|"
    r"head|condition_embedder|proj_out|scale_shift_table)(\.|$))"
)
# What torch.compile, FSDP and checkpointing put into names.
WITHIN = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# A file of two towers (Ovi) says whose a key is.
TOWERS: tuple[tuple[str, Stream], ...] = (("video_model.", "video"), ("audio_model.", "audio"))
# Ovi's modulation is a module with one parameter of its own name.
OVI: tuple[tuple[str, str], ...] = ((r"^(blocks\.\d+\.modulation)\.modulation$", r"\1"),)
# Read, and knowingly left out where the network's interaction is another.
UNUSED: tuple[tuple[str, str], ...] = (
    (r"\.cross_attn\.(k_fusion|v_fusion|pre_attn_norm_fusion|norm_k_fusion)\.", "Ovi's fusion"),
)

# (width, blocks, channels in): what a backbone of this size is, for messages.
RELEASES: dict[tuple[int, int, int], str] = {
    (1536, 30, 16): "Wan2.1-T2V-1.3B",
    (5120, 40, 16): "Wan2.1-T2V-14B",
    (5120, 40, 36): "Wan2.1-I2V-14B",
    (3072, 30, 48): "Wan2.2-TI2V-5B",
}

_TO_WAN = tuple({theirs: wan for wan, theirs in table} for table in (ENDS, BLOCK))
_FROM_WAN = tuple(dict(table) for table in (ENDS, BLOCK))


def diffusers_to_wan(key: str) -> str:
    """Wan2.1's name of a key; one that is Wan2.1's already stays as it is."""
    return _renamed(key, _TO_WAN)


def wan_to_diffusers(key: str) -> str:
    """diffusers' name of one of Wan2.1's keys."""
    return _renamed(key, _FROM_WAN)


def wan_to_ours(key: str, stream: Stream = "video") -> str:
    return re.sub(r"^(blocks\.\d+\.|)", rf"\g<1>{stream}.", key, count=1)


def ours_to_wan(key: str) -> str:
    """Inverse of `wan_to_ours` for a key of either stream.

    Raises:
        ValueError: for a key of an interaction, which Wan2.1 does not have.
    """
    wan, hits = re.subn(r"^(blocks\.\d+\.|)(video|audio)\.", r"\1", key)
    if not hits:
        raise ValueError(f"{key} belongs to no stream")
    return wan


def called(key: str) -> str:
    """What to call a parameter of ours: as Wan2.1 does where it is a stream's."""
    return key if part_of(key) == "interaction" else ours_to_wan(key)


def to_ours(key: str, stream: Stream = "video", upstream: Sequence[tuple[str, str]] = ()) -> str:
    """Our name of a key of any known layout.

    Args:
        key: in a file.
        stream: whose it is; a file that names its towers says so itself.
        upstream: an interaction's, which says where published weights have its parameters.
    """
    for tower, of in TOWERS:
        if key.startswith(tower):
            key, stream = key.removeprefix(tower), of
    for pattern, name in OVI:
        key = re.sub(pattern, name, key)
    key = wan_to_ours(diffusers_to_wan(key), stream)
    for pattern, name in upstream:
        key = re.sub(pattern, name, key)
    return key


def ours_by_theirs(
    keys: Iterable[str], stream: Stream = "video", upstream: Sequence[tuple[str, str]] = ()
) -> dict[str, str]:
    """Our names of a file's keys, in any known layout; what all of them begin with is taken off first.

    Args:
        keys: of the file.
        stream: as of `to_ours`.
        upstream: as of `to_ours`.

    Raises:
        ValueError: two keys are of one parameter.
    """
    bare = {key: WITHIN.sub("", key) for key in keys}
    wrappers = {name[: found.end()] if (found := ROOT.search(name)) else "" for name in bare.values()}
    wrapper = wrappers.pop() if len(wrappers) == 1 else ""
    ours = {key: to_ours(name.removeprefix(wrapper), stream, upstream) for key, name in bare.items()}
    first: dict[str, str] = {}
    for key, name in ours.items():
        if (other := first.setdefault(name, key)) != key:
            raise ValueError(f"the weights hold {called(name)} twice, as {other} and as {key}")
    return ours


def part_of(key: str) -> str:
    """Whose a parameter of ours is: a stream's, the text encoder's, or the interaction's."""
    if key.startswith("text."):
        return "text"
    return next((stream for stream in STREAMS if belongs(key, stream)), "interaction")


def unit_of(key: str) -> str:
    """What a file holds whole or not at all, of which a parameter of ours is one: a stream, a direction of exchange."""
    first, *rest = re.sub(r"^blocks\.\d+\.", "", key).split(".")
    return f"{first}.{rest[0]}" if first == "interaction" else first


def belongs(key: str, stream: Stream) -> bool:
    """Whether a parameter of ours lies in the stream."""
    return re.match(rf"(blocks\.\d+\.)?{stream}\.", key) is not None


def unused(key: str) -> bool:
    """Whether a key is of something that is known, and has no place in this network."""
    return any(re.search(pattern, key) for pattern, _ in UNUSED)


def _renamed(key: str, tables: tuple[dict[str, str], ...]) -> str:
    ends, block = tables
    inside = re.match(r"blocks\.\d+\.", key)
    prefix = inside[0] if inside else ""
    table, rest = (block if inside else ends), key.removeprefix(prefix)
    module, dot, parameter = rest.rpartition(".")
    if rest in table:
        return prefix + table[rest]
    return prefix + table[module] + dot + parameter if module in table else key
