"""Read a folder of buckets (buckets.py): batches, each of clips of one length and shape, and of the same streams.

The order of the batches is a function of (seed, place), the same on all ranks, so that no rank waits for another's
longer clips; it is resumed as that of shards is, for each bucket keeps its own place.

Of mixed data some clips have one stream alone. Each stream's loss is then to be a mean over the batches that have the
stream, which those without are not to dilute: of a window of A batches, accumulated into one step, that divides by A, n
have it, and in these its loss counts A / n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from ccl.data.index import INDEX, KINDS, held, kind_of, read_index
from ccl.data.shards import Extras, Sample, Shards
from ccl.files import reading
from ccl.grid import Grid
from ccl.rng import seed_of
from ccl.types import AV, STREAMS

VARIES = ("frames", "fps", "height", "width")
"""What may differ between the buckets of a training; the rest of the grid is the model's."""


class Buckets(IterableDataset[list[Sample]]):
    """Batches of a folder of buckets, each of one bucket, drawn as often as the bucket has clips.

    A bucket that holds none of the streams that are read is left out; of others those that it holds are read.

    Args:
        folder: with a buckets.json.
        names: of its buckets.
        grid: of the model; buckets differ from it in VARIES alone.
        batch_size: samples a batch.
        endless: go on for ever; else each bucket once through, one after the other, its last batch smaller.
        window: batches that one step accumulates.
        quota: how many of them are of each kind of clips, "both", "video" and "audio", in this order; within a kind a
            bucket is drawn as usual. None draws them like the buckets, by the number of clips.
        extras: what the samples of each bucket are told besides, by its name.
        options: of `Shards`, for every bucket.

    Raises:
        ValueError: as `Shards`, naming the bucket's folder; a quota is not of this window or of these kinds.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        grid: Grid,
        batch_size: int,
        *,
        endless: bool = True,
        window: int = 1,
        quota: Mapping[str, int] | None = None,
        extras: Mapping[str, Extras | None] | None = None,
        options: dict[str, Any],
    ) -> None:
        self.batch_size, self.endless, self.seed = batch_size, endless, options.get("seed", 0)
        self.window, self.quota = window, None if quota is None else dict(quota)
        self.buckets: dict[str, Shards] = {}
        streams = shared(folder, names, options.get("streams"))
        for name, read in streams.items():
            own, told = of_bucket(Path(folder) / name, grid), (extras or {}).get(name)
            each = {**options, "streams": read, "extras": told}
            self.buckets[name] = Shards(Path(folder) / name, own, endless=endless, **each)
        self.kinds = {name: kind_of(read) for name, read in streams.items()}
        self.mixed = len(set(self.kinds.values())) > 1
        self._check_quota(folder)
        self.text = next(iter(self.buckets.values())).text
        self.ranks: int = options.get("ranks", 1)
        self.drawn = 0  # batches, by this reader
        self._resuming = False

    @property
    def fewest(self) -> int:
        """Samples that the readers of the smallest bucket share."""
        return min(shards.fewest for shards in self.buckets.values())

    @property
    def sample_bytes(self) -> int:
        """Of the largest sample as a loader hands it over."""
        return max(shards.sample_bytes for shards in self.buckets.values())

    def _check_quota(self, folder: str | Path) -> None:
        if self.quota is None:
            return
        given, kinds = f"data.init_args.quota is {told_of(self.quota)}", dict.fromkeys(self.kinds.values())
        if untold := [kind for kind in kinds if kind not in self.quota]:
            raise ValueError(f"{given}, and clips in {folder} are of the kind {untold[0]} too; 0 leaves them out")
        if other := [kind for kind in self.quota if kind not in kinds]:
            raise ValueError(
                f"{given}, and no clip in {folder} is of the kind {other[0]}; there are {', '.join(kinds)}"
            )
        if (total := sum(self.quota.values())) != self.window:
            raise ValueError(
                f"{given}, {total} batches, and a step accumulates {self.window}; set trainer.accumulate_grad_batches "
                f"{total}, or another quota"
            )

    def state_dict(self) -> dict[str, Any]:
        order = {} if self.quota is None else {"quota": self.quota}
        buckets = {name: shards.state_dict() for name, shards in self.buckets.items()}
        return {"drawn": self.drawn, "buckets": buckets, **order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError where the buckets are no longer those of the state."""
        if state.get("buckets", {}).keys() != self.buckets.keys():
            raise ValueError("the checkpoint's place is in other buckets than this run reads; train on the same ones")
        if (was := state.get("quota")) != self.quota:
            raise ValueError(
                f"the checkpoint counts clips in the order of data.init_args.quota {told_of(was)}, and this run reads "
                f"them in that of {told_of(self.quota)}; set that back, or begin a new run from the weights, with "
                "model.pretrained"
            )
        self.drawn = state["drawn"]
        for name, place in state["buckets"].items():
            self.buckets[name].load_state_dict(place)
        self._resuming = True

    def __iter__(self) -> Iterator[list[Sample]]:
        if not self._resuming:
            self.drawn = 0
        self._resuming = False
        streams = {name: iter(shards) for name, shards in self.buckets.items()}
        return self._endless(streams) if self.endless else self._once(streams)

    def _endless(self, streams: dict[str, Iterator[Sample]]) -> Iterator[list[Sample]]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        while True:
            # A loader takes from its workers in turn, so this is the batch's number on every rank.
            place = self.drawn * workers + number
            name, weight = self.draw(place), {"weight": self.weight(place)} if self.mixed else {}
            self.drawn += 1
            yield [self._tagged(name, next(streams[name])) | weight for _ in range(self.batch_size)]

    def _once(self, streams: dict[str, Iterator[Sample]]) -> Iterator[list[Sample]]:
        for name, stream in streams.items():
            batch: list[Sample] = []
            for sample in stream:
                batch.append(self._tagged(name, sample))
                if len(batch) == self.batch_size:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def draw(self, number: int) -> str:
        """The bucket of a batch."""
        sizes = {name: shards.index["samples"] for name, shards in self.buckets.items()}
        if self.quota is not None:
            order = [kind for kind in KINDS for _ in range(self.quota.get(kind, 0))]
            sizes = {name: size for name, size in sizes.items() if self.kinds[name] == order[number % self.window]}
        u = seed_of("bucket", self.seed, number) / 2**63 * sum(sizes.values())
        for name, size in sizes.items():
            u -= size
            if u < 0:
                return name
        return next(reversed(sizes))

    def weight(self, number: int) -> AV[float]:
        """What each stream's loss counts in a batch: A / n, as above; 1 of a stream that its window has not."""
        first = number - number % self.window
        read = [self.buckets[self.draw(place)].streams for place in range(first, first + self.window)]
        return AV(*(self.window / (sum(there) or self.window) for there in zip(*read, strict=True)))

    def _tagged(self, name: str, sample: Sample) -> Sample:
        grid = self.buckets[name].grid
        return {**sample, "grid": {key: getattr(grid, key) for key in (*VARIES, "audio_latents")}}


def shared(folder: str | Path, names: Sequence[str], streams: AV[bool] | None) -> dict[str, AV[bool]]:
    """The streams that are read of each bucket; buckets that have none of them are left out.

    Args:
        folder: of buckets.
        names: theirs.
        streams: that are wanted; None is all.

    Raises:
        ValueError: a stream that is wanted is in no bucket.
    """
    wanted = AV(True, True) if streams is None else streams
    there = {name: held(read_index(Path(folder) / name / INDEX)) for name in names}
    read = {name: AV(*(a and b for a, b in zip(each, wanted, strict=True))) for name, each in there.items()}
    for stream, asked, found in zip(STREAMS, wanted, zip(*read.values(), strict=True), strict=True):
        if streams is not None and asked and not any(found):
            raise ValueError(f"the shards in {folder} hold no {stream}, and the model learns {stream}; train on others")
    return {name: each for name, each in read.items() if any(each)}


def told_of(quota: Mapping[str, int] | None) -> str:
    """A quota as the command line takes it."""
    return "null" if quota is None else f"{{{', '.join(f'{kind}: {n}' for kind, n in quota.items())}}}"


def of_bucket(folder: Path, grid: Grid) -> Grid:
    """The model's grid with the length and size of a bucket."""
    found = read_index(folder / INDEX)["settings"]["grid"]
    with reading(folder, "a bucket for this model"):
        counted = {name: found[name] for name in ("audio_latents",) if name in found}
        return grid.resized(**{name: found[name] for name in VARIES}, **counted)
