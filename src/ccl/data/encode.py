"""Encode shards of clips once, into shards of latents: `<id>.safetensors` (video, audio) + `<id>.json`.

Latents are of about unit variance, so float16 holds them to three digits in half the space. The index carries the
codec's identity: latents of another codec are refused by the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ccl.codecs.base import Codec
from ccl.data.archive import VERSION, Advance, Report, ShardWriter, dump, grid_settings, sample_files
from ccl.data.shards import Sample, Shards, collate
from ccl.grid import Grid
from ccl.types import AV

HALF_MAX = torch.finfo(torch.float16).max


def encode_shards(
    shards: str | Path,
    out: str | Path,
    codec: Codec,
    grid: Grid,
    *,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    progress: Advance | None = None,
) -> Report:
    """Encode every clip of a folder of shards; a run that was stopped goes on after its last whole shard.

    Args:
        shards: a folder of media shards.
        out: the folder of latents, one shard for each of `shards`.
        codec: what encodes.
        grid: of the clips.
        batch_size: clips encoded together.
        device: where the codec runs.
        progress: told clips done and clips in all.

    Raises:
        ValueError: `shards` cannot be read or holds latents, `out` holds something else, a latent is not finite.
    """
    source = Shards(shards, grid, shuffle=0, endless=False)
    if source.kind != "media":
        raise ValueError(f"{shards} holds latents; only clips can be encoded")
    digest = hashlib.sha256(dump([shard["sha256"] for shard in source.index["shards"]]).encode()).hexdigest()
    settings = {
        "version": VERSION,
        "kind": "latents",
        "grid": grid_settings(grid, "latents"),
        "codec": codec.identity,
        "sources": digest,
    }
    writer = ShardWriter(out, settings)
    if writer.complete:
        if progress:
            progress(writer.written, writer.written)
        return writer.report(reused=True)
    codec = codec.to(device).eval()
    total, done = source.index["samples"], writer.consumed
    for shard in source.index["shards"][len(writer.shards) :]:
        samples = source.samples(shard["name"])
        while chunk := list(islice(samples, batch_size)):
            for sample, latents in zip(chunk, _encode(chunk, codec, grid), strict=True):
                writer.add(sample["id"], _files(sample, latents, str(shards)))
            done += len(chunk)
            if progress:
                progress(done, total)
        writer.flush(done)
    writer.finish(done)
    return writer.report()


@torch.no_grad()
def _encode(samples: list[Sample], codec: Codec, grid: Grid) -> Iterator[AV[Tensor]]:
    media = collate(samples).media
    assert media is not None
    device = next((p.device for p in codec.buffers()), torch.device("cpu"))
    pictures = media.video.to(device).float() / 127.5 - 1
    latents = codec.encode(AV(pictures, media.audio.to(device)), grid)
    assert latents.video is not None and latents.audio is not None
    return (AV(video, audio) for video, audio in zip(latents.video, latents.audio, strict=True))


def _files(sample: Sample, latents: AV[Tensor], shards: str) -> dict[str, bytes]:
    for stream, z in zip(latents._fields, latents, strict=True):
        if not bool((z.abs() < HALF_MAX).all()):
            raise ValueError(f"clip {sample['id']} of {shards}: its {stream} latents are not finite in float16")
    tensors = {"video": latents.video, "audio": latents.audio}
    data = save_safetensors({name: z.half().cpu().contiguous() for name, z in tensors.items()})
    return sample_files({"safetensors": data}, {"id": sample["id"], "prompt": sample["prompt"]})
