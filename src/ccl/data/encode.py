"""Encode shards of clips once, into shards of latents: `<id>.safetensors` (video, audio, text) + `<id>.json`.

The unit of work is a shard: a worker reads one whose sum is its index's, writes its latents whole or not at all, and
then a line about them beside it. A shard that has its line is never done again, one that has not is never used; when
all have, the lines become the index. So any number of workers may be killed at any time. The index carries the
identities of the codecs and of the text encoder: what others have encoded is refused by the reader.

Text states are stored without padding, those of the empty prompt once beside the index: training needs no text encoder.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ccl.codecs.base import Codec
from ccl.data import voices
from ccl.data.archive import Report, begun, refuse_other_kind, sample_files, write_tar
from ccl.data.bucketed import of_bucket
from ccl.data.engines import Engine, run
from ccl.data.index import (
    INDEX,
    PARTIAL,
    VERSION,
    Line,
    buckets_in,
    check_line,
    digest,
    grid_settings,
    write_buckets,
    write_index,
)
from ccl.data.shards import EMPTY, Sample, Shards, collate
from ccl.files import FileError, one_writer, reading, sweep, write_whole
from ccl.grid import Grid
from ccl.progress import Advance
from ccl.text.base import TextEncoder
from ccl.text.states import valid
from ccl.types import AV, STREAMS

Precision = Literal["bfloat16", "float16", "float32"]


def encode_shards(
    shards: str | Path,
    out: str | Path,
    codec: Codec,
    grid: Grid,
    *,
    text: TextEncoder | None = None,
    dtype: Precision = "bfloat16",
    batch_size: int = 8,
    devices: Sequence[str] = ("cpu",),
    engine: Engine = "processes",
    progress: Advance | None = None,
) -> Report:
    """Encode every clip of a folder of shards, or of buckets; a run that was stopped goes on with the shards it lacks.

    Args:
        shards: a folder of media shards.
        out: the folder of latents, one shard for each of `shards`.
        codec: what encodes.
        grid: of the clips; the length and size of buckets are their own.
        text: encodes the prompts; None leaves them to training.
        dtype: of what is stored.
        batch_size: clips encoded together.
        devices: one for each worker, such as ("cuda:0", "cuda:1"); a single one works in this process.
        engine: where the workers are; with "ray" perhaps on other machines, which see both folders.
        progress: told clips done and clips in all.

    Raises:
        ValueError: `shards` cannot be read, is not as its index says or holds latents, two clips have one name, `out`
            holds something else or is being written by another process, a latent is not finite, the sound is not at
            the codec's rate, the text encoder trains.
    """
    shards, out = Path(shards), Path(out)
    if text is not None and not text.identity:
        raise ValueError("the text encoder trains with the model, so its states cannot be stored; leave it out")
    names = buckets_in(shards)
    refuse_other_kind(out, names != [""])
    order = Order(shards, out, {name: grid if not name else of_bucket(shards / name, grid) for name in names}, codec)
    order = replace(order, text=text, dtype=dtype, batch_size=batch_size)
    books = {name: Book(order, name) for name in names}
    with one_writer(out):
        return _encode(order, books, devices, engine, progress)


def _encode(
    order: Order, books: dict[str, Book], devices: Sequence[str], engine: Engine, progress: Advance | None
) -> Report:
    for book in books.values():
        book.restore()
    reused = all(book.complete for book in books.values())
    total = sum(book.source.index["samples"] for book in books.values())
    advance = progress or (lambda done, total: None)
    advance(sum(book.samples for book in books.values()), total)
    jobs = [job for book in books.values() for job in book.jobs()]
    for name, line in run(order, jobs, devices, engine) if jobs else ():
        books[name].add(line)
        advance(sum(book.samples for book in books.values()), total)
    for book in books.values():
        if not book.complete:
            book.finish()
    if list(books) != [""]:
        write_buckets(order.out, list(books))
    found = [
        {**line, "name": (Path(name) / line["name"]).as_posix()}
        for name, book in books.items()
        for line in book.lines.values()
    ]
    return Report(order.out, sum(book.samples for book in books.values()), [], found, reused)


@dataclass(frozen=True)
class Order:
    """What a worker must know; it goes to other processes before any weight is read.

    Args:
        shards: a folder of media shards or of buckets.
        out: the folder of latents.
        grids: of each bucket by name; of a plain folder by "".
        codec: what encodes.
        text: encodes the prompts.
        dtype: of what is stored.
        batch_size: clips encoded together.
    """

    shards: Path
    out: Path
    grids: dict[str, Grid]
    codec: Codec
    text: TextEncoder | None = None
    dtype: Precision = "bfloat16"
    batch_size: int = 8

    def __call__(self, device: str) -> Encoder:
        return Encoder(self, device)


class Book:
    """What is finished of one folder of latents, and what is not.

    Args:
        order: of the whole.
        name: of the bucket; "" of a plain folder.
    """

    def __init__(self, order: Order, name: str) -> None:
        self.name, self.out, self.text = name, order.out / name, order.text
        self.source = source = Shards(order.shards / name, order.grids[name], shuffle=0, endless=False)
        if source.kind != "media":
            raise ValueError(f"{source.folder} holds latents; only clips can be encoded")
        grid, codec = order.grids[name], order.codec
        if grid.sample_rate != codec.audio.sample_rate:
            raise ValueError(
                f"the sound in {source.folder} has {grid.sample_rate} Hz, and the audio codec takes "
                f"{codec.audio.sample_rate}; make the shards with --sample-rate {codec.audio.sample_rate}"
            )
        identity = codec.identity if all(source.held) else (codec.video if source.held.video else codec.audio).identity
        self.settings: dict[str, Any] = {
            "version": VERSION,
            "kind": "latents",
            "grid": grid_settings(grid, "latents"),
            "codec": identity,
            "dtype": order.dtype,
            "sources": digest(source.index),
        }
        if not all(source.held):
            self.settings["streams"] = list(compress(STREAMS, source.held))
        for what in ("faces", "voices"):  # that go with a clip
            if what in source.index["settings"]:
                self.settings[what] = source.index["settings"][what]
        if self.text is not None:
            self.settings["text"] = {
                "identity": self.text.identity, "length": self.text.length, "dim": self.text.dim
            }  # fmt: skip
        self.complete = False
        self.lines: dict[str, Line] = {}
        self._shard_of: dict[str, str] = {}  # by the clip's id

    @property
    def counts(self) -> dict[str, int]:
        """Clips of all shards, in order."""
        return {shard["name"]: shard["samples"] for shard in self.source.index["shards"]}

    @property
    def samples(self) -> int:
        """Clips that are encoded."""
        return sum(line["samples"] for line in self.lines.values())

    def restore(self) -> None:
        """Find the shards that are finished; the folder is begun if it was not."""
        state = begun(self.out, self.settings, remakes=True)
        self.complete = (self.out / INDEX).is_file()
        # Where the index is not whole, it names what it had of shards when one of them was found to be missing.
        self.lines = {line["name"]: line for line in state["shards"]} if state is not None else {}
        counts = {name: line["samples"] for name, line in self.lines.items()}
        if not counts.items() <= self.counts.items() or (self.complete and counts != self.counts):
            raise FileError(f"{self.out / INDEX} counts other clips than {self.source.folder}; remove {self.out}")
        if self.complete:
            self._clear()
            return
        for name, count in self.counts.items():
            if name not in self.lines and (found := finished(self.out / name, count)) is not None:
                self.add(found)

    def jobs(self) -> list[tuple[str, str]]:
        """(bucket, shard) of those that are not finished."""
        return [(self.name, name) for name in self.counts if name not in self.lines]

    def add(self, line: Line) -> None:
        """Note a shard that is finished.

        Raises:
            ValueError: a clip of it is in another one too.
        """
        for id in line["ids"]:
            if (other := self._shard_of.setdefault(id, line["name"])) != line["name"]:
                raise ValueError(f"clip {id} of {self.source.folder} is in two shards, {other} and {line['name']}")
        self.lines[line["name"]] = {key: value for key, value in line.items() if key != "ids"}

    def finish(self) -> None:
        """The lines become the index. What a worker that died left half-written goes: another has done its work."""
        sweep(self.out)
        more = {}
        if self.text is not None:
            more = {"empty": {"crc32": zlib.crc32((self.out / EMPTY).read_bytes())}}
        shards = [self.lines[name] for name in self.counts]
        write_index(self.out / INDEX, self.settings, shards, skipped=[], consumed=self.samples, **more)
        self._clear()
        self.complete = True

    def _clear(self) -> None:
        for name in self.counts:
            line_path(self.out / name).unlink(missing_ok=True)
        (self.out / PARTIAL).unlink(missing_ok=True)


class Encoder:
    """A worker: codecs and text encoder on one device.

    Args:
        order: what to encode, and how.
        device: where.
    """

    def __init__(self, order: Order, device: str) -> None:
        self.order, self.device = order, torch.device(device)
        self.dtype: torch.dtype = getattr(torch, order.dtype)
        self.codec = order.codec.to(self.device).eval()
        self.text = None if order.text is None else order.text.to(self.device).eval()

    def __call__(self, job: tuple[str, str]) -> tuple[str, Line]:
        """Encode one shard, (bucket, name), unless it is finished; the bucket and the shard's line."""
        bucket, name = job
        path = self.order.out / bucket / name
        source = Shards(self.order.shards / bucket, self.order.grids[bucket], shuffle=0, endless=False)
        if (line := finished(path, source.counts[name])) is None:
            source.verify(name)
            self._write_empty(path.with_name(EMPTY))
            ids: list[str] = []
            line = write_tar(path, self._samples(source, name, ids)) | {"ids": ids}
            write_whole(line_path(path), json.dumps(line))
        return bucket, line

    def _write_empty(self, path: Path) -> None:
        if self.text is not None and not path.is_file():
            write_whole(path, save_safetensors({"text": self._states([""])[0]}))

    @torch.no_grad()
    def _samples(self, source: Shards, name: str, ids: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
        samples = source.samples(name)
        while chunk := list(islice(samples, self.order.batch_size)):
            texts = [None] * len(chunk) if self.text is None else self._states([one["prompt"] for one in chunk])
            for sample, latents, text in zip(chunk, self._latents(chunk, source.grid), texts, strict=True):
                ids.append(sample["id"])
                yield sample["id"], self._files(sample, latents, text, source.folder)

    def _latents(self, samples: list[Sample], grid: Grid) -> Iterator[AV[Tensor]]:
        media = collate(samples).media
        assert media is not None
        given: AV[Any] = media.map(lambda x: x.to(self.device))
        pictures = None if given.video is None else given.video.float() / 127.5 - 1
        latents: AV[Any] = self.codec.encode(AV(pictures, given.audio), grid)
        columns = ([None] * len(samples) if z is None else z for z in latents)
        return (AV(video, audio) for video, audio in zip(*columns, strict=True))

    @torch.no_grad()
    def _states(self, prompts: list[str]) -> list[Tensor]:
        assert self.text is not None
        return [valid(states).to("cpu", self.dtype).contiguous() for states in self.text(prompts)]

    def _files(self, sample: Sample, latents: AV[Tensor], text: Tensor | None, folder: Path) -> dict[str, bytes]:
        tensors = {name: z for name, z in {**latents._asdict(), "text": text}.items() if z is not None}
        for name, values in tensors.items():
            if not bool((values.abs() <= torch.finfo(self.dtype).max).all()):
                what = "text states" if name == "text" else f"{name} latents"
                raise ValueError(f"clip {sample['id']} of {folder}: its {what} are not finite in {self.order.dtype}")
        data = save_safetensors({name: z.to("cpu", self.dtype).contiguous() for name, z in tensors.items()})
        told: Sample = {name: sample[name] for name in ("id", "prompt", "faces") if name in sample}
        voice = {voices.FILE: sample["voice"]} if "voice" in sample else {}
        return sample_files({"safetensors": data} | voice, told)


def line_path(shard: Path) -> Path:
    """Of the line about a shard, until it stands in the index."""
    return shard.with_suffix(".line.json")


def finished(shard: Path, samples: int) -> Line | None:
    """The line about a shard of so many clips, with their `ids`, if it is finished."""
    path = line_path(shard)
    if not path.is_file():
        return None
    try:
        with reading(path, "the line of a shard"):
            line = check_line(json.loads(path.read_text(encoding="utf-8")), path)
            whole = (line["name"], line["bytes"]) == (shard.name, shard.stat().st_size)
            named = isinstance(line["ids"], list) and all(isinstance(id, str) for id in line["ids"])
            return line if whole and named and samples == line["samples"] == len(line["ids"]) else None
    except (FileError, FileNotFoundError):  # it is done again
        return None
