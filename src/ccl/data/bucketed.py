"""Read a folder of buckets (buckets.py): batches, each of clips of one length and shape.

The order of the batches is a function of (seed, place), the same on all ranks, so that no rank waits for another's
longer clips; it is resumed as that of shards is, for each bucket keeps its own place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from ccl.data.index import INDEX, read_index
from ccl.data.shards import Sample, Shards
from ccl.files import reading
from ccl.grid import Grid
from ccl.rng import seed_of

VARIES = ("frames", "fps", "height", "width")
"""What may differ between the buckets of a training; the rest of the grid is the model's."""


class Buckets(IterableDataset[list[Sample]]):
    """Batches of a folder of buckets, each of one bucket, drawn as often as the bucket has clips.

    Args:
        folder: with a buckets.json.
        names: of its buckets.
        grid: of the model; buckets differ from it in VARIES alone.
        batch_size: samples a batch.
        endless: go on for ever; else each bucket once through, one after the other, its last batch smaller.
        options: of `Shards`, for every bucket.

    Raises:
        ValueError: as `Shards`, naming the bucket's folder.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        grid: Grid,
        batch_size: int,
        *,
        endless: bool = True,
        options: dict[str, Any],
    ) -> None:
        self.batch_size, self.endless, self.seed = batch_size, endless, options.get("seed", 0)
        self.buckets: dict[str, Shards] = {}
        for name in names:
            own = of_bucket(Path(folder) / name, grid)
            self.buckets[name] = Shards(Path(folder) / name, own, endless=endless, **options)
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

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "buckets": {name: shards.state_dict() for name, shards in self.buckets.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError where the buckets are no longer those of the state."""
        if state.get("buckets", {}).keys() != self.buckets.keys():
            raise ValueError("the checkpoint's place is in other buckets than this run reads; train on the same ones")
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
            name = self.draw(self.drawn * workers + number)
            self.drawn += 1
            yield [self._tagged(name, next(streams[name])) for _ in range(self.batch_size)]

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
        u = seed_of("bucket", self.seed, number) / 2**63 * sum(sizes.values())
        for name, size in sizes.items():
            u -= size
            if u < 0:
                return name
        return next(reversed(sizes))

    def _tagged(self, name: str, sample: Sample) -> Sample:
        grid = self.buckets[name].grid
        return {**sample, "grid": {key: getattr(grid, key) for key in (*VARIES, "audio_latents")}}


def of_bucket(folder: Path, grid: Grid) -> Grid:
    """The model's grid with the length and size of a bucket."""
    found = read_index(folder / INDEX)["settings"]["grid"]
    with reading(folder, "a bucket for this model"):
        counted = {name: found[name] for name in ("audio_latents",) if name in found}
        return grid.resized(**{name: found[name] for name in VARIES}, **counted)
