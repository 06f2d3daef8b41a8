"""The video stream of a network as others read it: a folder of diffusers' WanTransformer3DModel, or one file.

What the interaction adds is not in it. The two compute the same where that is nothing: before stage 2 has moved it, or
behind a closed gate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ccl.files import LOCK, MARK, FileError, one_writer, replacing_path, sweep, sync, write_whole
from ccl.model.keys import wan_to_diffusers
from ccl.model.load import stream_state

WEIGHTS = "diffusion_pytorch_model"  # diffusers' name for the weights in a folder
CONFIG, NEXT = "config.json", ".next-config.json"  # the second while the weights that it is of are put in place
KIND = "WanTransformer3DModel"
SHARD = 5 * 10**9  # bytes; a larger network is cut
THEIRS = {"format": "pt"}  # metadata of files that diffusers reads


def save_diffusers(
    folder: str | Path, state: Mapping[str, Tensor], *, head_dim: int, dtype: torch.dtype, shard: int = SHARD
) -> None:
    """Write a folder that WanTransformer3DModel.from_pretrained reads.

    What else lies there stays. A model that is replaced stops being one, by its config.json, before its weights go, and
    the new one is one when all of it is there: no reader meets a mixture.

    Args:
        folder: to write; one that such a model is in is replaced.
        state: of a DualStreamTransformer.
        head_dim: of a head.
        dtype: of the weights on disk.
        shard: bytes of a file, at most.

    Raises:
        ValueError: the folder holds something else, or the network has no video stream.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    folder, wan = Path(folder), _video(state, dtype)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --format diffusers writes a folder")
    others = [path for path in folder.iterdir() if not path.name.startswith((MARK, LOCK))] if folder.is_dir() else []
    if others and not any(_is_transformer(folder / name) for name in (CONFIG, NEXT)):
        raise ValueError(f"{folder} exists and holds something else; choose another name")
    theirs = {wan_to_diffusers(key): tensor for key, tensor in wan.items()}
    pattern = WEIGHTS + "{suffix}.safetensors"
    plan = split_torch_state_dict_into_shards(theirs, filename_pattern=pattern, max_shard_size=shard)
    config = {"_class_name": KIND, **transformer_config(wan, head_dim)}
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    with one_writer(folder):
        sweep(folder)
        with ExitStack() as placing:  # all are written before the first takes its place
            write_whole(folder / NEXT, json.dumps(config, indent=2) + "\n")
            for name, keys in plan.filename_to_tensors.items():
                part = {key: theirs[key] for key in keys}
                placing.enter_context(replacing_tensors(folder / name, part, THEIRS))
            (folder / CONFIG).unlink(missing_ok=True)
            for old in folder.glob(f"{WEIGHTS}*.safetensors*"):
                old.unlink()
        if plan.is_sharded:
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            write_whole(folder / f"{WEIGHTS}.safetensors.index.json", text)
        (folder / NEXT).replace(folder / CONFIG)
        sync(folder)


def save_file_of_wan(path: str | Path, state: Mapping[str, Tensor], *, dtype: torch.dtype) -> None:
    """Write one .safetensors file in Wan2.1's own names, whole or not at all.

    Raises:
        ValueError: the name ends otherwise, or the network has no video stream.
    """
    path, wan = Path(path), _video(state, dtype)
    if path.suffix != ".safetensors" or path.is_dir():
        raise ValueError(f"{path} is no name for a file of weights; --format safetensors writes NAME.safetensors")
    with replacing_tensors(path, wan, THEIRS):
        pass


@contextmanager
def replacing_tensors(
    path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Iterator[Path]:
    """A file of tensors, written under a temporary name, that takes the place of `path` when the block ends.

    Raises:
        FileError: it cannot be written; safetensors tells a full disk without a number or a name.
    """
    with replacing_path(path) as fresh:
        fresh.touch()
        mode = fresh.stat().st_mode
        try:
            save_file(dict(state), fresh, metadata=metadata)
        except SafetensorError as error:
            raise FileError(f"{path} cannot be written ({error}); is the disk full?") from error
        fresh.chmod(mode)  # safetensors leaves it to its owner alone
        yield fresh


def transformer_config(wan: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    """Arguments of WanTransformer3DModel, read off the shapes.

    Args:
        wan: the video stream, in Wan2.1's names.
        head_dim: of a head, which no shape tells.
    """
    width, channels, *patch = wan["patch_embedding.weight"].shape
    shown = "img_emb.proj.0.weight" in wan
    return {
        "patch_size": patch,
        "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim,
        "in_channels": channels,
        "out_channels": wan["head.head.weight"].shape[0] // (patch[0] * patch[1] * patch[2]),
        "text_dim": wan["text_embedding.0.weight"].shape[1],
        "freq_dim": wan["time_embedding.0.weight"].shape[1],
        "ffn_dim": wan["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": len({found[1] for key in wan if (found := re.match(r"blocks\.(\d+)\.", key))}),
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": wan["img_emb.proj.0.weight"].shape[0] if shown else None,
        "added_kv_proj_dim": width if shown else None,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": None,
    }


def _video(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    wan = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in stream_state(state).items()}
    if not wan:
        raise ValueError("this model has no video stream to write")
    return wan


def _is_transformer(config: Path) -> bool:
    return config.is_file() and KIND.encode() in config.read_bytes()
