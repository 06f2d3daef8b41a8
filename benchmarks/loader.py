"""Clips a second from the loader against bare PyAV decoding of the same mp4 files, in one run.

    python benchmarks/loader.py [--shards data/world/train-...] [--clips 128] [--rounds 7]

Bare decoding opens each file, turns every picture into RGB and takes every block of sound: what no loader can do
without. It is measured as PyAV's pages show it (`frame.to_ndarray`), and at its best, with one converter kept for all
frames of a file. The loader also reads tars, checks sums, shuffles, cuts, aligns and batches. Goal: 0.85 of bare.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import av
import torch
from av.video.reformatter import VideoReformatter

from ccl.data import ShardData, write_shards
from ccl.data.make import world_sources
from ccl.grid import Grid

GOAL = 0.85


def bare(files: list[bytes], keep: bool = True) -> float:
    """Seconds to decode the files and keep nothing; `keep` one converter a file, instead of one a frame."""
    start = time.perf_counter()
    for data in files:
        with av.open(io.BytesIO(data)) as container:
            for stream in container.streams:
                stream.codec_context.thread_count = 1
            converter = VideoReformatter()
            for frame in container.decode(video=0, audio=0):
                if isinstance(frame, av.VideoFrame) and keep:
                    converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                elif isinstance(frame, av.VideoFrame):
                    frame.to_ndarray(format="rgb24")
                else:
                    frame.to_ndarray()
    return time.perf_counter() - start


def loader(shards: Path, grid: Grid, clips: int, batch_size: int) -> float:
    """Seconds to load as many clips; the filling of the shuffle buffer and the first batch are not counted."""
    batches = iter(ShardData(str(shards), grid, batch_size=batch_size).train_dataloader())
    next(batches)
    start = time.perf_counter()
    for _ in range(clips // batch_size):
        next(batches)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, help="folder of media shards; without it, clips of the world are made")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.shards
        if folder is None:
            folder, grid = Path(temporary) / "world", Grid()
            write_shards(world_sources(grid, args.clips), folder, grid, shard_size=32, workers=2)
        index = json.loads((folder / "index.json").read_text())
        grid = Grid(**index["settings"]["grid"])
        files: list[bytes] = []
        for shard in index["shards"]:
            with tarfile.open(folder / shard["name"]) as tar:
                files += [tar.extractfile(m).read() for m in tar if m.name.endswith(".mp4")]
        clips = min(args.clips, len(files)) // args.batch_size * args.batch_size
        files = files[:clips]
        rounds = [
            (bare(files, keep=False), bare(files), loader(folder, grid, clips, args.batch_size))
            for _ in range(args.rounds)
        ]
    plain, best, ours = (clips / statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{clips} clips of {grid.frames} x {grid.height} x {grid.width}, 1 CPU, median of {args.rounds} rounds")
    print(f"clips/s: bare PyAV {plain:.0f}, at its best {best:.0f}, loader (0 workers) {ours:.0f}")
    for name, times in (("bare PyAV", 0), ("bare PyAV at its best", 1)):
        ratio = statistics.median(row[times] / row[2] for row in rounds)
        print(f"loader over {name}: {ratio:.2f}, goal >= {GOAL}: {'met' if ratio >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
