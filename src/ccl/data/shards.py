"""Read shards: an endless stream of samples in an order that (seed, epoch, part) decides and that remembers its place.

The dataset counts: its state is {epoch, n}, and of which shards in which order; a resumed run skips n samples of the
epoch undecoded. A part is one loader process of one rank.

A shard may be damaged, or anybody's. Its size is compared when it is opened, each clip's checksum and name as it is
read, and at its end the number of clips; its sum by `verify`, which encoding asks for and `ccl shards verify`.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from random import Random
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ccl.data import voices
from ccl.data.archive import check_sizes
from ccl.data.index import digest, grid_settings, held, read_index
from ccl.files import FileError, MachineError, machine_trouble, plain_name, reading, sha256_now
from ccl.files.plaintext import unreadable
from ccl.grid import Grid
from ccl.media import MediaError, read_clip
from ccl.rng import seed_of
from ccl.text.states import TextStates
from ccl.types import AV, STREAMS, Batch

Sample = dict[str, Any]
"""id, prompt, and either video (F, H, W, 3) uint8 and audio (S,) float32, or latents AV((C, t_v, h, w), (C, t_a)) and,
where they were encoded too, the prompt's states, text; `grid` where it comes from a bucket; `faces`, boxes of each
picture, where they were found; `voice`, the bytes of one; `extras` where a network is told more; `weight` of each
stream's loss, of mixed data. A stream that is not read is None."""
OF_PICTURES = ("height", "width", "stride_time", "stride_space")  # of a grid; sound knows nothing of them
EMPTY = "empty.safetensors"  # beside the index: states of the empty prompt


@runtime_checkable
class Extras(Protocol):
    """What is known of clips beside what shards hold of them.

    Attributes:
        names: of all that it tells.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, sample: Sample, grid: Grid) -> dict[str, np.ndarray]:
        """By name, arrays of a shape that the clip's grid decides; a ValueError says what is wrong with the sample."""
        ...


@dataclass(frozen=True)
class Together:
    """What several tell of a clip.

    Args:
        parts: that tell it.
    """

    parts: tuple[Extras, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that they tell."""
        return tuple(name for part in self.parts for name in part.names)

    def __call__(self, sample: Sample, grid: Grid) -> dict[str, np.ndarray]:
        return {name: told for part in self.parts for name, told in part(sample, grid).items()}


class Shards(IterableDataset[Sample]):
    """Samples of a folder of shards, without end, or once through.

    Args:
        folder: with an index.json and the tar files it names.
        grid: what the samples must have.
        seed: of the order.
        shuffle: samples that a rank and its readers hold to draw from, beside a shuffle of the shards in every epoch; 0
            keeps the order.
        endless: go on with the next epoch; else stop after one, with as many samples in every part.
        rank: of this process among `ranks`.
        ranks: training processes, each of which reads its own part.
        codec: identities of the codecs whose latents are wanted; checked where the shards hold latents, and where they
            are known.
        streams: that are read, the other being neither decoded nor in a sample; None is what the shards hold.
        extras: what each sample is told besides.

    Raises:
        ValueError: naming what is wrong: the folder, a missing shard, another grid, latents of another codec, a stream
            that the shards do not hold.
    """

    def __init__(
        self,
        folder: str | Path,
        grid: Grid,
        *,
        seed: int = 0,
        shuffle: int = 256,
        endless: bool = True,
        rank: int = 0,
        ranks: int = 1,
        codec: AV[str | None] = AV(None, None),
        streams: AV[bool] | None = None,
        extras: Extras | None = None,
    ) -> None:
        self.folder, self.grid, self.seed, self.shuffle, self.endless = Path(folder), grid, seed, shuffle, endless
        self.rank, self.ranks, self.extras = rank, ranks, extras
        self.index = read_index(self.folder / "index.json")
        self.kind: str = self.index["settings"]["kind"]
        self.counts: dict[str, int] = {line["name"]: line["samples"] for line in self.index["shards"]}
        self.held = held(self.index)
        self.streams = self.held if streams is None else streams
        self._check(codec)
        self.text: dict[str, Any] | None = self.index["settings"].get("text")
        self._empty = None if self.text is None else self._read_empty()
        self.epoch, self.n = 0, 0
        self._resuming = False

    def _read_empty(self) -> Tensor:
        path = self.folder / EMPTY
        if not path.is_file():
            raise ValueError(f"{path}, the states of the empty prompt, is missing; encode again")
        data = path.read_bytes()
        if zlib.crc32(data) != self.index["empty"]["crc32"]:
            raise FileError(f"{path} is corrupt (its checksum differs)")
        with reading(path, "states of the empty prompt"):
            return _states(load_safetensors(data)["text"], self.text)

    def _check(self, codec: AV[str | None]) -> None:
        settings = self.index["settings"]
        for stream, asked, there in zip(STREAMS, self.streams, self.held, strict=True):
            if asked and not there:
                raise ValueError(
                    f"the shards in {self.folder} hold no {stream}, and the model learns {stream}; train on others"
                )
        wanted, found = grid_settings(self.grid, settings["kind"]), settings["grid"]
        # Of pictures that are not read, their number and rate are the length of the sound, and their size is nothing.
        unseen = () if self.streams.video else OF_PICTURES
        names = [*wanted, *(name for name in found if name not in wanted)]
        if other := [name for name in names if found.get(name) != wanted.get(name) and name not in unseen]:
            have = ", ".join(f"grid.{name} {_number(found.get(name))}" for name in other)
            model = ", ".join(_number(wanted.get(name)) for name in other)
            flags = " ".join(f"--grid.{name} {_number(found.get(name))}" for name in other)
            raise ValueError(
                f"the shards in {self.folder} have {have}, the model {model}; train with {flags}, "
                "or make shards for this model"
            )
        codec = AV.zip(lambda name, read: name if read else None, codec, self.streams)
        if self.kind == "latents" and not is_of(settings["codec"], self.held, codec):
            model = "+".join(name for name in codec if name is not None)
            raise ValueError(
                f"the latents in {self.folder} are of codec {settings['codec']}, the model's is {model}; encode again"
            )
        check_sizes(self.folder, self.index["shards"])

    def verify(self, shard: str) -> None:
        """Read a whole tar file: ValueError where its sum is not the one that the index gives."""
        path, right = self.folder / shard, next(x["sha256"] for x in self.index["shards"] if x["name"] == shard)
        if (found := sha256_now(path)) != right:
            raise FileError(f"shard {path} is damaged: its sha256 is {found[:12]}..., its index says {right[:12]}...")

    def __iter__(self) -> Iterator[Sample]:
        if not self._resuming:
            self.epoch, self.n = 0, 0
        self._resuming = False
        return self._stream()

    def samples(self, shard: str) -> Iterator[Sample]:
        """The samples of one tar file, decoded, in their order."""
        return map(self._decode, self._read(shard))

    def ids(self, shard: str) -> Iterator[str]:
        """Those of one tar file, its samples' checksums being compared, and nothing decoded."""
        return (self._described(raw)["id"] for raw in self._read(shard))

    @property
    def fewest(self) -> int:
        """Samples that its readers share."""
        return self.index["samples"]

    @property
    def sample_bytes(self) -> int:
        """Of a sample as a loader hands it over; of latents, whose numbers are stored in two bytes or four, at most."""
        grid, streams = self.grid, self.streams
        if self.kind == "media":
            return streams.video * 3 * grid.frames * grid.height * grid.width + streams.audio * 4 * grid.samples
        return max(2 * line["bytes"] // line["samples"] for line in self.index["shards"])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "n": self.n, "shards": digest(self.index)[:16], **self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError where the place is one in other shards, or in another order of them."""
        if state.get("shards", mine := digest(self.index)[:16]) != mine:
            raise ValueError(
                f"the checkpoint's place in the data is one in other shards than {self.folder} holds now; go on with "
                "those, or begin a new run from the weights, with model.pretrained"
            )
        for name, value in self._order.items():
            if (was := state.get(name, value)) != value:
                raise ValueError(
                    f"the checkpoint counts clips in the order of data.init_args.{name} {was}, and this run reads "
                    f"{self.folder} in that of {value}; set that back, or begin a new run from the weights, with "
                    "model.pretrained"
                )
        self.epoch, self.n = state["epoch"], state["n"]
        self._resuming = True

    @property
    def _order(self) -> dict[str, int]:
        return {"seed": self.seed, "shuffle": self.shuffle}

    def _stream(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self.rank * workers + number, self.ranks * workers
        if self.index["samples"] < parts:
            raise ValueError(
                f"{self.folder} holds {self.index['samples']} clips, too few for {self.ranks} ranks x {workers} workers"
            )
        while True:
            for position, raw in enumerate(self._epoch(self.epoch, part, parts)):
                if position < self.n:
                    continue  # resumed: seen before, and not decoded again
                self.n += 1
                yield self._decode(raw)
            if not self.endless:
                return
            self.epoch, self.n = self.epoch + 1, 0

    def _epoch(self, epoch: int, part: int, parts: int) -> Iterator[Sample]:
        """The samples of a part, undecoded, in an epoch's order."""
        names = list(self.counts)
        if self.shuffle:
            Random(seed_of("shards", self.seed, epoch)).shuffle(names)
        if self.endless and len(names) >= parts:
            samples = (sample for name in names[part::parts] for sample in self._read(name))
        else:
            # Fewer shards than readers, or parts of one size wanted: each reads all and takes every parts-th sample.
            limit = self.index["samples"] if self.endless else self.index["samples"] // parts * parts
            stream = (sample for name in names for sample in self._read(name))
            samples = (sample for i, sample in enumerate(stream) if i % parts == part and i < limit)
        if not self.shuffle:
            return samples
        share = max(1, self.shuffle * self.ranks // parts)
        return _shuffled(samples, share, Random(seed_of("samples", self.seed, epoch, part)))

    def _read(self, name: str) -> Iterator[Sample]:
        """The samples of one tar file: bytes by ending, and __key__; as many as the index says."""
        from webdataset.tariterators import group_by_keys

        path, keys, count = self.folder / name, dict[str, None](), self.counts[name]
        try:
            for sample in group_by_keys(_members(path)):
                key = sample["__key__"]
                if key in keys:
                    raise ValueError(f"clip {key} is there twice")
                if len(keys) == count:
                    raise ValueError(f"its index says {count} clips, and there are more")
                keys[key] = None
                yield {**sample, "__shard__": name}
            if len(keys) < count:
                raise ValueError(f"it ends with {len(keys)} clips, and its index says {count}")
        except FileNotFoundError as error:
            raise FileError(f"shard {path} is missing") from error
        except Exception as error:  # tarfile, zlib and webdataset raise a dozen kinds
            what = getattr(error, "strerror", None) or (str(error.args[0]) if error.args else type(error).__name__)
            last, kind = next(reversed(keys), "(none)"), MachineError if machine_trouble(error) else FileError
            raise kind(f"shard {path} cannot be read after clip {last}: {what}") from error

    def _described(self, raw: Sample) -> Sample:
        """Id and prompt of a sample, its faces as they are written, and its voice, if it is whole and its own; else
        FileError."""
        where = self._where(raw)
        if "json" not in raw:
            raise FileError(f"{where}: its json is missing")
        with reading(f"{where}: its json", "that of a clip"):
            description = json.loads(raw["json"])
            id, prompt, sums = description["id"], description["prompt"], dict(description["crc32"])
            endings = (self._ending, *([voices.FILE] if voices.FILE in sums else []))
            checksums = {ending: sums[ending] for ending in endings}
        if plain_name(id, where) != raw["__key__"]:
            raise FileError(f"{where}: its json is that of clip {id}")
        if not isinstance(prompt, str) or unreadable(prompt):
            raise FileError(f"{where}: its prompt is no text")
        for ending, checksum in checksums.items():
            if ending not in raw:
                raise FileError(f"{where}: its {ending} is missing")
            if zlib.crc32(raw[ending]) != checksum:
                raise FileError(f"{where}: its {ending} is corrupt (its checksum differs)")
        found = {name: description[name] for name in ("id", "prompt", "faces") if name in description}
        return found | ({"voice": raw[voices.FILE]} if voices.FILE in checksums else {})

    def _decode(self, raw: Sample) -> Sample:
        sample = self._described(raw)
        where, data = self._where(raw), raw[self._ending]
        if self.extras is not None:
            with reading(where, "a clip for this model"):
                sample["extras"] = self.extras(sample, self.grid)
        if self.kind == "latents":
            with reading(f"{where}: its safetensors", "latents"):
                return {**sample, **self._latents(load_safetensors(data))}
        try:
            clip = read_clip(data, grid=self.grid, prompt=sample["prompt"], id=sample["id"], require=self.streams)
        except MediaError as error:
            kind = MachineError if machine_trouble(error) else FileError
            raise kind(f"{where}: its mp4 {error.reason}") from error
        return {**sample, "video": clip.video, "audio": clip.audio}

    @property
    def _ending(self) -> str:
        return "mp4" if self.kind == "media" else "safetensors"

    def _where(self, raw: Sample) -> str:
        return f"shard {self.folder / raw['__shard__']}, clip {raw['__key__']}"

    def _latents(self, tensors: dict[str, Tensor]) -> Sample:
        """Latents and text states of a sample; ValueError where they have another shape than the grid's."""
        grid, read = self.grid, {}
        shapes = {"video": (grid.t_v, grid.latent_height, grid.latent_width), "audio": (grid.t_a,)}
        for name in compress(STREAMS, self.streams):
            z = tensors[name]
            if not z.is_floating_point() or tuple(z.shape[1:]) != shapes[name]:
                raise ValueError(f"{name} is {tuple(z.shape)} {z.dtype}, not (channels, *{shapes[name]})")
            read[name] = z
        sample: Sample = {"latents": AV(*(read.get(name) for name in STREAMS))}
        if self.text is not None and self._empty is not None:
            states = _states(tensors["text"], self.text)
            sample["text"] = TextStates([states], self._empty, self.text["length"])
        return sample


def _members(path: Path) -> Iterator[dict[str, Any]]:
    """Names and bytes of the files in a tar file, as webdataset groups them; none is larger than it."""
    size = path.stat().st_size
    with tarfile.open(path, "r|") as tar:  # never unpacked: what unfolds to more than its size is none of ours
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            if file is None:
                continue
            if info.size > size:
                raise ValueError(f"{info.name:.80} claims {info.size} bytes")
            yield {"fname": info.name, "data": file.read(), "__url__": str(path)}


def _states(states: Tensor, text: dict[str, Any] | None) -> Tensor:
    """Text states, if they have the shape (n, dim) that the index gives, n <= length; else ValueError."""
    assert text is not None
    if states.ndim != 2 or states.shape[1] != text["dim"] or len(states) > text["length"]:
        raise ValueError(f"text is {tuple(states.shape)}, not at most ({text['length']}, {text['dim']})")
    return states


def is_of(stored: str, streams: AV[bool], codec: AV[str | None]) -> bool:
    """Whether latents may be of these codecs, as far as they are known.

    Args:
        stored: identity that the index names: "video+audio", or that of the one stream which the shards hold.
        streams: that the shards hold.
        codec: identities; None is unknown, or not read.
    """
    if not all(streams):
        return next(iter(compress(codec, streams))) in (None, stored)
    if None not in codec:
        return stored == "+".join(map(str, codec))
    video, audio = codec
    return stored.startswith(f"{video}+" if video else "") and stored.endswith(f"+{audio}" if audio else "")


def _shuffled(samples: Iterator[Sample], size: int, rng: Random) -> Iterator[Sample]:
    """Draw from a buffer of `size` samples that is filled as it empties."""
    buffer: list[Sample] = []
    for sample in samples:
        if len(buffer) < size:
            buffer.append(sample)
            continue
        place = rng.randrange(size)
        buffer[place], sample = sample, buffer[place]
        yield sample
    rng.shuffle(buffer)
    yield from buffer


def collate(samples: list[Sample]) -> Batch:
    """Samples to a batch: media video (B, 3, F, H, W) uint8 and audio (B, S), or latents (B, C, T, ...) float32."""
    ids, prompts = [s["id"] for s in samples], [s["prompt"] for s in samples]
    text = TextStates.gathered([s["text"] for s in samples]) if "text" in samples[0] else None
    tags: dict[str, Any] = {name: samples[0][name] for name in ("grid", "weight") if name in samples[0]}
    told = [s.get("extras", {}) for s in samples]
    extras = {name: torch.from_numpy(np.stack([each[name] for each in told])) for name in told[0]}
    if "latents" in samples[0]:
        pairs = [s["latents"] for s in samples]
        latents = AV(*(None if column[0] is None else _stack(list(column)) for column in zip(*pairs, strict=True)))
        return Batch(ids, prompts, latents=latents, text=text, extras=extras, **tags)
    video = audio = None
    if samples[0]["video"] is not None:
        frames, height, width, _ = samples[0]["video"].shape
        video = np.empty((len(samples), 3, frames, height, width), np.uint8)
        for row, sample in zip(video, samples, strict=True):  # one copy, by numpy, the fastest of five ways tried
            row[...] = rearrange(sample["video"], "f h w c -> c f h w")
    if samples[0]["audio"] is not None:
        audio = np.stack([sample["audio"] for sample in samples])
    return Batch(ids, prompts, media=AV(video, audio).map(torch.from_numpy), extras=extras, **tags)


def _stack(latents: list[Tensor]) -> Tensor:
    return torch.stack(latents).float()


def _number(value: int | float | None) -> str:
    """A setting of a grid as the command line takes it."""
    return "null" if value is None else f"{value:g}"
