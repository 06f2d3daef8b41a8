"""What training reads: shards of clips or latents from a folder, or the embedded world, made when it is not there yet.

The loader resumes bit for bit: its dataset knows its place (shards.py), each rank's place is kept in the checkpoint,
and it claims a length, without which Lightning fetches a batch ahead and saves a place that is one too far.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import compress
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from ccl import arguments
from ccl.codecs.base import Codec
from ccl.data.bucketed import Buckets, shared, told_of
from ccl.data.captions import captioned
from ccl.data.faces import Written
from ccl.data.index import (
    BUCKETS,
    INDEX,
    buckets_in,
    content,
    dump,
    grid_settings,
    kind_of,
    read_index,
    settings_of,
    uncaptioned,
)
from ccl.data.make import known_of, world_sources, world_version
from ccl.data.shards import Extras, Shards, Together, collate
from ccl.data.voices import Kept
from ccl.data.write import write_shards
from ccl.files import one_writer
from ccl.grid import Grid
from ccl.progress import bar
from ccl.spelling import counted
from ccl.text.base import TextEncoder
from ccl.types import AV, FACE_MASK, STREAMS, VOICE, Batch, Stream

REMEDIES = {
    FACE_MASK: "; make the shards with --faces",
    VOICE: "; make the shards with --captions that name another sound of each speaker in a column `voice`",
}
# Numbers of a data module's, from and to; what is beyond is a slip that would fill the memory or never end.
NUMBERS = {
    "batch_size": (1, 100_000),
    "num_workers": (0, 1024),
    "seed": (0, 2**63 - 1),
    "shuffle": (0, arguments.MOST),
    "clips": (1, arguments.MOST),
    "val_clips": (0, arguments.MOST),
    "makers": (0, 1024),
}
ENDLESS = 10**9
"""The length an endless loader claims."""


def check_numbers(given: Mapping[str, Any], where: str = "") -> None:
    """ValueError where one that NUMBERS has is none that can be read by; `where` stands before its name."""
    for name, (least, most) in NUMBERS.items():
        if name in given:
            arguments.number(f"{where}{name}", given[name], least, most, whole=True)


class Loader(StatefulDataLoader):
    """An endless loader whose state holds the place of every rank. A dataset of buckets makes its own batches."""

    def __init__(self, dataset: Shards | Buckets, **options: Any) -> None:
        self.clips = options["batch_size"] or getattr(dataset, "batch_size", None)  # a batch
        self.readers = dataset.ranks  # fewer than ranks where several share their clips
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata's, not ours
            super().__init__(dataset, **options)

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return _in_one_sentence(super().__iter__())

    def state_dict(self) -> dict[str, Any]:
        """Called by every rank together, as Lightning does; it keeps rank 0's answer alone, so all are in it."""
        own = super().state_dict()
        ranks = [own]
        if _distributed():
            ranks = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        numbers = {"readers": self.readers, "num_workers": self.num_workers, "batch_size": self.clips}
        return {"ranks": ranks, **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError where the place cannot be found again, because the data were read by other numbers of readers."""
        ranks = torch.distributed.get_world_size() if _distributed() else 1
        found = {"readers": len(state["ranks"]), **state, "ranks": len(state["ranks"])}
        wanted = {"ranks": ranks, "readers": self.readers, "num_workers": self.num_workers, "batch_size": self.clips}
        for name, value in wanted.items():
            if found[name] != value:
                raise ValueError(
                    f"the checkpoint was written with {name} {found[name]}, this run has {value}; its place in the "
                    "data is known only for the same number"
                )
        super().load_state_dict(state["ranks"][torch.distributed.get_rank() if _distributed() else 0])


class ShardData(LightningDataModule):
    """Shards of clips or of latents, for training.

    Args:
        shards: folder with an index.json, or of buckets, as `ccl shards make` or `ccl shards encode` writes it.
        grid: of the model; the shards must agree, but for the length and size of buckets.
        codec: of the model; latents of another one are refused. Clips are encoded by the module, so not needed here.
        batch_size: clips a step and process.
        num_workers: processes that read and decode, no more than there are clips; 0 reads in the training process.
        seed: of the order.
        shuffle: samples that a process and its readers hold to draw from; 0 keeps the order of the shards.
        val_shards: folder of shards for validation, read once in order; none where it is null.
        quota: of mixed data, how many of the batches that a step accumulates are of clips with "both" streams, with
            "video" and with "audio" alone; null draws each batch's kind by the number of clips.
    """

    def __init__(
        self,
        shards: str,
        grid: Grid,
        codec: Codec | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        shuffle: int = 256,
        val_shards: str | None = None,
        quota: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        for kind, count in (quota or {}).items():
            arguments.number(f"quota.{kind}", count, 0, arguments.MOST, whole=True)
        self.quota = quota
        check_numbers({"batch_size": batch_size, "num_workers": num_workers, "seed": seed, "shuffle": shuffle})
        self.shards, self.val_shards, self.grid, self.seed, self.shuffle = shards, val_shards, grid, seed, shuffle
        self.batch_size, self.num_workers = batch_size, num_workers
        self.known: AV[str | None] = AV(None, None) if codec is None else codec.known
        self.streams: AV[bool] | None = None  # that are read; all there are, until a model says what it learns
        self.extras: Extras | None = None  # what is known of the clips besides
        self.needs: tuple[str, ...] = ()  # what of it a model trains on

    def train_dataloader(self) -> Loader:
        dataset = self._dataset(self.shards, shuffle=self.shuffle, endless=True)
        return Loader(dataset, **self._options(dataset))

    def val_dataloader(self) -> DataLoader | list[Any]:
        if self.val_shards is None:
            return []
        dataset = self._dataset(self.val_shards, shuffle=0, endless=False)
        return DataLoader(dataset, **self._options(dataset))

    def serve(self, streams: AV[bool], text: TextEncoder, needs: tuple[str, ...] = ()) -> None:
        """Read what a model learns from: its streams alone, prompts as its text encoder reads them, and what its
        interaction needs besides.

        What could not be checked, because its weights are not on this machine, is said in a line, and so is how many
        clips have no caption.

        Raises:
            ValueError: as `refuse_text`; something that is needed is not known of the clips.
        """
        self.streams, self.needs = streams, needs
        self.refuse_text(text)
        known = () if (told := self._told(self.shards, True)) is None else told.names
        if lacking := [name for name in needs if name not in known]:
            remedy = REMEDIES.get(lacking[0], "")
            raise ValueError(
                f"the model trains on {lacking[0]!r}, which is not known of the clips in {self.shards}{remedy}"
            )
        if self.trainer is None or self.trainer.is_global_zero:
            lines = [*self._unchecked(streams, text), *self._uncaptioned(), *self._mixed()]
            sys.stdout.writelines(f"{line}\n" for line in lines)

    def _uncaptioned(self) -> Iterator[str]:
        for folder in filter(None, (self.shards, self.val_shards)):
            indices = [read_index(Path(folder) / name / INDEX) for name in buckets_in(Path(folder))]
            if count := sum(uncaptioned(index["shards"]) for index in indices):
                of = sum(index["samples"] for index in indices)
                yield f"{folder}: {count} of {counted(of, 'clip')} without a caption, whose words are not learned"

    @property
    def kinds(self) -> Counter[str]:
        """How many of the training clips are read with both streams, "both", and how many with one alone; how many hold
        none of those that the model learns, ""."""
        indices = {name: read_index(Path(self.shards) / name / INDEX) for name in buckets_in(Path(self.shards))}
        read = shared(self.shards, list(indices), self.streams)
        found: Counter[str] = Counter()
        for name, index in indices.items():
            found[kind_of(read[name]) if name in read else ""] += index["samples"]
        return found

    @property
    def alone(self) -> list[Stream]:
        """The streams that some clips of mixed data have alone."""
        return [stream for stream in STREAMS if len(self.kinds.keys() - {""}) > 1 and stream in self.kinds]

    def _mixed(self) -> Iterator[str]:
        kinds = self.kinds
        for stream in self.alone:
            yield (
                f"{self.shards}: {kinds[stream]} of {counted(kinds.total(), 'clip')} with {stream} alone, which train "
                "that stream; the other one is not run"
            )
        if kinds[""]:
            yield f"{self.shards}: {kinds['']} of {counted(kinds.total(), 'clip')} with nothing that the model learns"

    def _unchecked(self, streams: AV[bool], text: TextEncoder) -> Iterator[str]:
        of = "weights are not on this machine: that"
        for folder in filter(None, (self.shards, self.val_shards)):
            settings = settings_of(folder)
            if settings["kind"] == "latents" and None in compress(self.known, streams):
                yield f"the codec's {of} the latents in {folder} are its own ({settings['codec']}) was not checked"
            if "text" in settings and text.known is None:
                stored = settings["text"]["identity"]
                yield f"the text encoder's {of} the text states in {folder} are its own ({stored}) was not checked"

    def captions(self, count: int) -> tuple[str, list[str]]:
        """The first captions, each another one, of the validation clips where there are any; and whose they are."""
        folder = self.shards if self.val_shards is None else self.val_shards
        there: dict[str, None] = {}
        for clip in captioned(Path(folder)):
            if len(there) == count:
                break
            if clip.prompt.strip():
                there[clip.prompt] = None
        return folder, list(there)

    def prompts(self) -> Iterator[str]:
        """Those of the training clips, as they lie there."""
        return (clip.prompt for clip in captioned(Path(self.shards)))

    @property
    def stored_codec(self) -> str | None:
        """Identity of the codecs whose latents the shards hold of both streams."""
        settings = settings_of(self.shards)
        return settings["codec"] if settings["kind"] == "latents" and "streams" not in settings else None

    @property
    def sums(self) -> dict[str, str]:
        """Sum of all clips in each folder that is read; none of one that is not made yet."""
        folders = [Path(folder) for folder in (self.shards, self.val_shards) if folder is not None]
        made = [folder for folder in folders if (folder / INDEX).is_file() or (folder / BUCKETS).is_file()]
        return {str(folder): content(folder) for folder in made}

    def refuse_text(self, text: TextEncoder) -> None:
        """Refuse shards whose prompts another text encoder has encoded.

        Raises:
            ValueError: one sentence.
        """
        for folder in filter(None, (self.shards, self.val_shards)):
            for name in buckets_in(Path(folder)):
                refuse_other_text(Path(folder) / name, text)

    def _dataset(self, folder: str, *, shuffle: int, endless: bool) -> Shards | Buckets:
        rank, ranks = self._place()
        options: dict[str, Any] = {
            "seed": self.seed,
            "shuffle": shuffle,
            "rank": rank,
            "ranks": ranks,
            "codec": self.known,
            "streams": self.streams,
        }
        names = buckets_in(Path(folder))
        if names == [""]:
            if self.quota is not None and endless:
                raise ValueError(
                    f"data.init_args.quota is {told_of(self.quota)}, and {folder} is no folder of clips of several "
                    "kinds, which `ccl shards make --mixed` writes; set it to null"
                )
            return Shards(folder, self.grid, endless=endless, extras=self._told(folder, endless), **options)
        how: dict[str, Any] = {"extras": {name: self._told(Path(folder) / name, endless) for name in names}}
        if endless:
            how |= {"quota": self.quota, "window": getattr(self.trainer, "accumulate_grad_batches", 1)}
        return Buckets(folder, names, self.grid, self.batch_size, endless=endless, options=options, **how)

    def _told(self, folder: str | Path, training: bool) -> Extras | None:
        """What is told of the clips in a folder of shards besides."""
        if not (training and self.needs):
            return None
        return kept_of(settings_of(folder), self.needs) if self.extras is None else self.extras

    def _options(self, dataset: Shards | Buckets) -> dict[str, Any]:
        # Of every rank on this machine: torchrun tells how many, Lightning starts one a device.
        started = 1 if self.trainer is None else self.trainer.num_devices
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        # A reader needs a clip of its own. There are no fewer on a small machine: a run goes on only with as many.
        workers = min(self.num_workers, dataset.fewest // dataset.ranks)
        refuse_small_memory(ranks * workers, self.batch_size * dataset.sample_bytes)
        # A generator of its own: a loader's start must not move the global one.
        generator = torch.Generator().manual_seed(self.seed)
        return {
            "batch_size": None if isinstance(dataset, Buckets) else self.batch_size,
            "num_workers": workers,
            "collate_fn": collate,
            "generator": generator,
        }

    def _place(self) -> tuple[int, int]:
        """This process among those that read different data (ranks that share a model's shards read the same)."""
        strategy = getattr(self.trainer, "strategy", None)
        places = getattr(strategy, "distributed_sampler_kwargs", None) or {"rank": 0, "num_replicas": 1}
        return places["rank"], places["num_replicas"]


class WorldData(ShardData):
    """The embedded talking world: real mp4 in real shards, made once in `root`, then encoded once.

    Args:
        grid: size and length of the clips.
        codec: of the model; needed for latents.
        root: folder of the shards, one folder in it for every set of settings.
        clips: for training.
        val_clips: for validation, not among the training clips.
        latents: encode the clips once, instead of in every step.
        batch_size: clips a step and process.
        num_workers: processes that read; 0 reads in the training process.
        seed: of the world and of the order.
        shuffle: samples that a process and its readers hold to draw from; 0 keeps the order of the shards.
        makers: processes that make clips when they are not there yet.
    """

    def __init__(
        self,
        grid: Grid,
        codec: Codec | None = None,
        root: str = "data/world",
        clips: int = 1024,
        val_clips: int = 0,
        latents: bool = True,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        shuffle: int = 256,
        makers: int = 2,
    ) -> None:
        if latents and codec is None:
            raise ValueError("WorldData with latents: true needs a codec")
        check_numbers({"clips": clips, "val_clips": val_clips, "makers": makers})
        self.root, self.clips, self.val_clips, self.makers = Path(root), clips, val_clips, makers
        self.codec = codec if latents else None
        settings = [grid_settings(grid, "media"), seed, world_version()]
        # The name of a split -> its first clip and their number.
        self.ranges = {"train": (0, clips)} | ({"val": (clips, val_clips)} if val_clips else {})
        self.media = {s: self.root / f"{s}-{_hash(*settings, r)}" for s, r in self.ranges.items()}
        self.folders = self.media
        if self.codec is not None:
            parts = [grid_settings(grid, "latents"), self.codec.identity]
            self.folders = {s: p.with_name(f"{p.name}-latents-{_hash(*parts)}") for s, p in self.media.items()}
        val = str(self.folders["val"]) if val_clips else None
        super().__init__(str(self.folders["train"]), grid, codec, batch_size, num_workers, seed, shuffle, val)

    def serve(self, streams: AV[bool], text: TextEncoder, needs: tuple[str, ...] = ()) -> None:
        self.extras = known_of(self.grid, self.seed, needs)
        super().serve(streams, text, needs)

    def prepare_data(self) -> None:
        """Make what is not there yet; a run that was stopped goes on, and two runs at once wait for each other."""
        if all((folder / "index.json").is_file() for folder in self.folders.values()):
            return
        with one_writer(self.root, wait=True):
            for split, folder in self.media.items():
                start, count = self.ranges[split]
                sources = world_sources(self.grid, count, start=start, seed=self.seed)
                with bar(f"world: {counted(count, f'{split} clip')}", said=True) as advance:
                    size = max(16, min(256, count // 8))  # at least a few shards, to shuffle and to share among readers
                    write_shards(
                        sources, folder, self.grid, shard_size=size, workers=self.makers, strict=True, progress=advance
                    )
                if self.codec is not None:
                    from ccl.data.encode import encode_shards

                    with bar(f"world: {split} latents", said=True) as advance:
                        # Closed forms of unit variance: float16 holds them to three digits.
                        options: dict[str, Any] = {"dtype": "float16", "progress": advance}
                        encode_shards(folder, self.folders[split], self.codec, self.grid, **options)


def refuse_small_memory(workers: int, batch: int, shared: Path = Path("/dev/shm")) -> None:
    """Refuse processes whose batches do not fit into the memory that they share: they would wait for ever.

    Args:
        workers: processes that read; each has two batches on the way.
        batch: bytes of a batch.
        shared: where the system keeps what processes share; small in a container unless it is told otherwise.

    Raises:
        ValueError: one sentence.
    """
    if not workers or not shared.is_dir():
        return
    free, needed = disk_usage(shared).free, 2 * workers * batch
    if free < needed:
        raise ValueError(
            f"{shared} has {free / 2**20:.0f} MiB left, and {workers} processes with batches of {batch / 2**20:.0f} "
            f"MiB need {needed / 2**20:.0f}: use fewer num_workers (0 reads in the training process) or a larger "
            f"{shared} (docker run --shm-size)"
        )


def kept_of(settings: dict[str, Any], needs: Collection[str]) -> Extras | None:
    """What shards of these settings keep with each clip, of what a model needs."""
    parts: list[Extras] = []
    if FACE_MASK in needs and "faces" in settings:
        parts.append(Written())
    if VOICE in needs and settings.get("voices"):
        parts.append(Kept())
    return Together(tuple(parts)) if parts else None


def refuse_other_text(folder: Path, text: TextEncoder) -> None:
    """Refuse a folder of shards whose text states are of another encoder than this one.

    Where the encoder's files are not on this machine, which need not have them, its shape alone can be compared.
    """
    stored = read_index(folder / INDEX)["settings"].get("text")
    if stored is None:
        return
    found, shape = f"the text states in {folder}", (stored["length"], stored["dim"])
    if shape != (text.length, text.dim):
        raise ValueError(
            f"{found} are {shape[0]} of {shape[1]} numbers a prompt, the model's text encoder gives {text.length} of "
            f"{text.dim}; encode again"
        )
    identity = text.known
    if identity is None:
        return
    if not identity:
        raise ValueError(
            f"{found} are of {stored['identity']}, and the model's text encoder trains; encode without --text"
        )
    if identity != stored["identity"]:
        raise ValueError(f"{found} are of {stored['identity']}, the model's text encoder is {identity}; encode again")


def _hash(*parts: object) -> str:
    return hashlib.sha256(dump(parts)).hexdigest()[:10]


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _in_one_sentence(batches: Iterator[Batch]) -> Iterator[Batch]:
    """A worker's error comes as a traceback in a string; what it says is the last line."""
    try:
        yield from batches
    except (ValueError, OSError) as error:
        if "in DataLoader worker process" not in str(error):
            raise
        raise type(error)(re.split(r"\n[\w.]*Error: ", str(error))[-1].strip()) from None
