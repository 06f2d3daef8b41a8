"""What training reads: batches of the right kind, and the same ones after a stop, bit for bit."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ccl.data.datamodule as datamodule
from ccl.codecs.base import Codec
from ccl.data import ShardData, WorldData, encode_shards, write_shards
from ccl.data.shards import Shards
from ccl.data.sources import Source
from ccl.tasks import PAPER_TASKS
from ccl.training.module import JointDiffusion
from ccl.types import Batch
from helpers.fakes import make_codec, make_net, make_text
from helpers.tiny_clips import TINY, FakeAudio, FakeVideo, tiny_clip, tiny_sources


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("data") / "clips"
    write_shards(tiny_sources(14), out, TINY, shard_size=3)
    return str(out)


@pytest.fixture(scope="module")
def buckets(tmp_path_factory) -> str:
    """5 clips of one shape and 9 of another."""
    out = tmp_path_factory.mktemp("buckets") / "clips"
    grids = [replace(TINY, width=32), replace(TINY, frames=13)]
    few, many = tiny_sources(5, grids[0]), [replace(s, id=f"long-{s.id}") for s in tiny_sources(9, grids[1])]
    write_shards([*few, *many], out, grids, shard_size=3)
    return str(out)


@pytest.fixture(scope="module")
def folders(shards, buckets, tmp_path_factory) -> dict[str, str]:
    mixed = tmp_path_factory.mktemp("mixed") / "clips"
    mute = [Source(f"mute{n}", lambda n=n: replace(tiny_clip(n), audio=None)) for n in range(5)]
    write_shards([*tiny_sources(9), *mute], mixed, TINY, shard_size=3, mixed=True)
    return {"shards": shards, "buckets": buckets, "mixed": str(mixed)}


@pytest.fixture(scope="module")
def made_again(tmp_path_factory) -> dict[int, str]:
    """The clips of `shards` written a second time, and without the last."""
    out = tmp_path_factory.mktemp("again")
    for count in (14, 13):
        write_shards(tiny_sources(count), out / str(count), TINY, shard_size=3)
    return {count: str(out / str(count)) for count in (14, 13)}


@pytest.fixture
def small_world(monkeypatch):
    """WorldData over tiny clips, so that its books can be tested without speech."""

    def sources(grid, clips, *, start=0, seed=0):
        return tiny_sources(start + clips, grid)[start:]

    monkeypatch.setattr(datamodule, "world_sources", sources)


def codec() -> Codec:
    return Codec(FakeVideo(), FakeAudio())


def take(iterator, count: int) -> list[Batch]:
    return [next(iterator) for _ in range(count)]


def same(a: Batch, b: Batch) -> bool:
    there = [(x, y) for x, y in zip(a.media, b.media, strict=True) if x is not y]  # None of a stream that is not there
    return a.id == b.id and a.weight == b.weight and all(torch.equal(x, y) for x, y in there)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("of", ["shards", "buckets", "mixed"])
def test_resumed_loader_goes_on_bit_for_bit(folders, of, num_workers):
    """Within an epoch, and over its border: an epoch is 14 clips, or 6 and 8 for two workers."""

    def loader():
        return ShardData(folders[of], TINY, batch_size=2, num_workers=num_workers, shuffle=4).train_dataloader()

    whole, states = take(iter(loader()), 10), {}
    first = loader()
    iterator = iter(first)
    for begin, stop in ((0, 3), (3, 8)):
        assert all(map(same, take(iterator, stop - begin), whole[begin:]))
        states[stop] = first.state_dict()
    del iterator, first
    for stop, state in states.items():
        second = loader()
        second.load_state_dict(state)
        assert all(map(same, take(iter(second), 10 - stop), whole[stop:]))


def test_state_survives_a_checkpoint(shards, tmp_path):
    loader = ShardData(shards, TINY, batch_size=2).train_dataloader()
    take(iter(loader), 3)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == loader.state_dict()


def test_claims_a_length_so_that_nothing_is_fetched_ahead(shards):
    assert len(ShardData(shards, TINY).train_dataloader()) >= 10**9


def test_starting_a_loader_leaves_the_global_generator_alone(shards):
    before = torch.get_rng_state()
    take(iter(ShardData(shards, TINY, batch_size=2).train_dataloader()), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "value"), [("num_workers", 2), ("batch_size", 4)])
def test_other_numbers_of_readers_cannot_resume(shards, name, value):
    loader = ShardData(shards, TINY, batch_size=2).train_dataloader()
    state = loader.state_dict()
    other = ShardData(shards, TINY, **{"batch_size": 2, name: value}).train_dataloader()
    with pytest.raises(ValueError, match=f"written with {name} {state[name]}, this run has {value}"):
        other.load_state_dict(state)


def test_ranks_that_share_their_clips_cannot_resume_where_each_had_its_own(shards, monkeypatch):
    data = ShardData(shards, TINY, batch_size=2)
    state = {"num_workers": 0, "batch_size": 2, "ranks": [data.train_dataloader().state_dict()["ranks"][0]]}
    data.train_dataloader().load_state_dict(state)  # as it was written before ranks could share
    monkeypatch.setattr(data, "_place", lambda: (0, 2))
    with pytest.raises(ValueError, match=r"written with readers 1, this run has 2"):
        data.train_dataloader().load_state_dict(state)


def test_own_ranks_place_is_taken(shards, monkeypatch):
    loader = ShardData(shards, TINY, batch_size=2).train_dataloader()
    iterator, states = iter(loader), []
    for _ in range(2):
        next(iterator)
        states.append(loader.state_dict()["ranks"][0])
    monkeypatch.setattr(datamodule, "_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    resumed = ShardData(shards, TINY, batch_size=2).train_dataloader()
    resumed.load_state_dict({"ranks": states, "readers": 1, "num_workers": 0, "batch_size": 2})
    assert next(iter(resumed)).id == next(iterator).id


def test_error_of_a_worker_is_one_sentence(shards, tmp_path):
    write_shards(tiny_sources(4), tmp_path / "clips", TINY, shard_size=2)
    path = tmp_path / "clips/shard-000001.tar"
    path.write_bytes(path.read_bytes().replace(b"mdat", b"mdaX"))
    loader = ShardData(str(tmp_path / "clips"), TINY, batch_size=1, num_workers=1).train_dataloader()
    with pytest.raises(
        ValueError, match=rf"^shard {path}, clip clip[23]: its mp4 is corrupt \(its checksum differs\)$"
    ):
        take(iter(loader), 4)


def test_validation_reads_every_clip_once_in_order(shards):
    assert ShardData(shards, TINY).val_dataloader() == []
    loader = ShardData(shards, TINY, batch_size=4, val_shards=shards).val_dataloader()
    assert [id for batch in loader for id in batch.id] == [f"clip{n}" for n in range(14)]


def test_latents_of_another_codec_are_refused(shards, tmp_path):
    encode_shards(shards, tmp_path / "z", codec(), TINY)
    assert next(iter(ShardData(str(tmp_path / "z"), TINY, codec()).train_dataloader())).latents is not None
    other = codec()
    other.audio.__class__ = type("Other", (FakeAudio,), {"identity": property(lambda self: "other")})
    with pytest.raises(ValueError, match=r"the model's is fake-video-1\+other"):
        ShardData(str(tmp_path / "z"), TINY, other).train_dataloader()


@pytest.mark.parametrize("latents", [False, True])
def test_world_is_made_once_and_found_again(small_world, tmp_path, monkeypatch, latents):
    def data(**options) -> WorldData:
        options = {"clips": 6, "val_clips": 2, "latents": latents, "batch_size": 5, "makers": 0, **options}
        return WorldData(TINY, codec(), root=str(tmp_path), **options)

    data().prepare_data()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    batch = next(iter(data().train_dataloader()))
    assert (batch.latents is not None) == latents and len(batch.id) == 5
    assert [batch.id for batch in data().val_dataloader()] == [["clip6", "clip7"]]
    data().prepare_data()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == made
    data(clips=7).prepare_data()
    assert len(list(Path(tmp_path).glob("train-*"))) == (4 if latents else 2)


def test_world_with_latents_needs_a_codec():
    with pytest.raises(ValueError, match="latents: true needs a codec"):
        WorldData(TINY)


# Buckets


def test_a_batch_is_of_one_bucket_and_knows_its_grid(buckets):
    batches = take(iter(ShardData(buckets, TINY, batch_size=2).train_dataloader()), 60)
    shapes = Counter(tuple(batch.media.video.shape) for batch in batches)
    assert shapes.keys() == {(2, 3, 9, 16, 32), (2, 3, 13, 16, 16)}
    assert 0.4 < shapes[2, 3, 13, 16, 16] / 60 < 0.9  # of 9 in 14 clips
    for batch in batches:
        grid = replace(TINY, **batch.grid)
        assert batch.media.video.shape[2:] == (grid.frames, grid.height, grid.width)


def test_ranks_draw_the_same_bucket_and_other_clips(buckets, monkeypatch):
    def batches(rank: int) -> list[Batch]:
        data = ShardData(buckets, TINY, batch_size=1, num_workers=0)
        monkeypatch.setattr(data, "_place", lambda: (rank, 2))
        return take(iter(data.train_dataloader()), 12)

    for a, b in zip(batches(0), batches(1), strict=True):
        assert a.grid == b.grid and a.id != b.id


def test_validation_reads_every_bucket_once(buckets):
    loader = ShardData(buckets, TINY, batch_size=2, val_shards=buckets).val_dataloader()
    assert [len(batch.id) for batch in loader] == [2, 2, 1, 2, 2, 2, 2, 1]


def test_a_place_in_other_buckets_cannot_be_taken(buckets, shards):
    state = ShardData(shards, TINY, batch_size=2).train_dataloader().state_dict()
    loader = ShardData(buckets, TINY, batch_size=2).train_dataloader()
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="place is in other buckets"):
        next(iter(loader))


def test_losses_follow_the_grid_of_a_batch(buckets):
    """Clips of a bucket, in a model whose own grid is another, learn as in a model of the bucket's grid."""
    grids = {(9, 16, 32): replace(TINY, width=32), (13, 16, 16): replace(TINY, frames=13)}
    for batch in take(iter(ShardData(buckets, TINY, batch_size=2).train_dataloader()), 6):
        losses = []
        for own, extra in ((TINY, batch.grid), (grids[tuple(batch.media.video.shape[2:])], {})):
            module = JointDiffusion(make_net, make_text, make_codec(), own)
            module.configure_model()
            losses.append(module.losses(replace(batch, grid=extra), PAPER_TASKS["joint"], index=0).terms[0])
        assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


# What the machine and the folder are like


def test_a_place_in_other_shards_is_not_gone_on_from(shards, made_again):
    """Made again they are the same; with one clip less they are others, though the place would be there."""
    state = ShardData(shards, TINY, batch_size=2).train_dataloader().state_dict()
    whole = take(iter(ShardData(shards, TINY, batch_size=2).train_dataloader()), 1)
    again = ShardData(made_again[14], TINY, batch_size=2).train_dataloader()
    again.load_state_dict(state)
    assert same(next(iter(again)), whole[0])
    other = ShardData(made_again[13], TINY, batch_size=2).train_dataloader()
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=rf"place in the data is one in other shards than {made_again[13]} holds now"):
        next(iter(other))


@pytest.mark.parametrize("of", ["shards", "buckets"])
def test_a_place_in_another_order_is_not_gone_on_from(folders, of):
    folder = folders[of]
    state = ShardData(folder, TINY, batch_size=2, shuffle=4).train_dataloader().state_dict()
    for name, was, value in (("seed", 0, 1), ("shuffle", 4, 5)):
        loader = ShardData(folder, TINY, batch_size=2, **{"shuffle": 4, name: value}).train_dataloader()
        loader.load_state_dict(state)
        with pytest.raises(
            ValueError, match=rf"order of data.init_args.{name} {was}, and this run .* in that of {value};"
        ):
            next(iter(loader))


def test_a_sum_of_clips_is_the_same_for_the_same_clips_alone(shards, buckets, made_again, tmp_path):
    sums = [ShardData(f, TINY).sums[f] for f in (shards, made_again[14], made_again[13], buckets)]
    assert sums[0] == sums[1] and len(set(sums)) == 3
    own = ShardData(shards, TINY, val_shards=str(tmp_path / "not made yet"))
    assert own.sums == {shards: sums[0]}


def nbytes(batch: Batch) -> int:
    return sum(z.nbytes for z in (batch.media or batch.latents))


def test_processes_that_share_too_little_memory_are_refused_before_they_wait_for_ever(shards, tmp_path, monkeypatch):
    encode_shards(shards, tmp_path / "z", codec(), TINY)
    for folder in (shards, str(tmp_path / "z")):
        batch = next(iter(ShardData(folder, TINY, batch_size=2).train_dataloader()))
        few, many = 2 * 2 * nbytes(batch) - 1, 2**30
        for free in (few, many):
            monkeypatch.setattr(datamodule, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
            ShardData(folder, TINY, batch_size=2).train_dataloader()  # in this process nothing is shared
            refused = pytest.raises(ValueError, match=r"^/dev/shm has 0 MiB left, and 2 processes .* --shm-size\)$")
            with refused if free == few else nullcontext():
                ShardData(folder, TINY, batch_size=2, num_workers=2).train_dataloader()


@pytest.mark.parametrize("launcher", ["torchrun", "Lightning"])
def test_ranks_of_one_machine_share_its_memory(shards, launcher, monkeypatch):
    alone = 2 * nbytes(next(iter(ShardData(shards, TINY, batch_size=2).train_dataloader())))  # of one process, one rank
    data = ShardData(shards, TINY, batch_size=2, num_workers=1)
    if launcher == "torchrun":
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    else:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        data.trainer = SimpleNamespace(num_devices=3, strategy=None)  # as Trainer says how many it starts here
    for free, enough in ((3 * alone - 1, False), (3 * alone, True)):
        monkeypatch.setattr(datamodule, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        with nullcontext() if enough else pytest.raises(ValueError, match="and 3 processes with batches of"):
            data.train_dataloader()


def test_there_are_no_more_readers_than_clips(tmp_path):
    """Two clips to learn from and one held out, of a user's first try, with the four readers of shards.yaml."""
    for name, count in (("few", 2), ("one", 1)):
        write_shards(tiny_sources(count), tmp_path / name, TINY, shard_size=1)
    data = ShardData(str(tmp_path / "few"), TINY, batch_size=2, num_workers=4, val_shards=str(tmp_path / "one"))
    train, val = data.train_dataloader(), data.val_dataloader()
    assert (train.num_workers, val.num_workers) == (2, 1)
    assert [batch.id for batch in val] == [["clip0"]]


def test_the_readers_of_a_process_share_what_it_holds_to_draw_from(shards, monkeypatch):
    dataset, taken = Shards(shards, TINY, shuffle=6), []
    read = dataset._read
    monkeypatch.setattr(dataset, "_read", lambda name: (taken.append(raw) or raw for raw in read(name)))
    for parts, held in ((1, 6), (2, 3)):
        taken.clear()
        next(dataset._epoch(0, 0, parts))
        assert held < len(taken) <= parts * (held + 1), "it gives one when it holds that many and meets another"
