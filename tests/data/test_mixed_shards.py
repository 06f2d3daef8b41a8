"""Mixed data in shards: nothing that can be learned from is dropped, and no silence is written in its place."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ccl.cli import main
from ccl.data import ShardData, shards_make, write_shards
from ccl.data.buckets import parse_buckets
from ccl.data.filters import Cuts, Silent
from ccl.data.index import buckets_in, held, read_index
from ccl.media import write_clip
from ccl.types import AV
from helpers.fakes import GRID, make_codec, make_text
from helpers.mixed import make_mixed, mixed_sources
from helpers.tiny_clips import TINY, tiny_clip


def folder_of_all_kinds(folder: Path) -> Path:
    """Two films with sound, of which a caption calls one mute; one without a sound track; a silent one; and a sound."""
    folder.mkdir()
    clips = {name: tiny_clip(number) for number, name in enumerate(("sounding", "labelled", "mute", "silent", "heard"))}
    clips["mute"] = replace(clips["mute"], audio=None)
    clips["silent"] = replace(clips["silent"], audio=np.zeros_like(clips["silent"].audio))
    rows = []
    for name, clip in clips.items():
        file = f"{name}.wav" if name == "heard" else f"{name}.mp4"
        write_clip(clip, folder / file)
        rows.append({"file": file, "prompt": name, "mute": name == "labelled"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def written(out: Path) -> dict[str, list[str]]:
    """Ids by bucket."""
    found = {}
    for name in buckets_in(out):
        shards = ShardData(str(out / name), TINY)._dataset(str(out / name), shuffle=0, endless=False)
        found[name] = [sample["id"] for sample in shards]
    return found


def test_clips_of_one_stream_go_into_buckets_of_their_own(tmp_path: Path) -> None:
    folder = folder_of_all_kinds(tmp_path / "videos")
    options = {"captions": folder / "captions.jsonl", "grid": TINY, "filters": [Silent(), Cuts()]}
    made = shards_make(folder, tmp_path / "out", mixed=True, **options)
    assert (made.written, made.skipped) == (5, [])
    assert written(tmp_path / "out") == {
        "9x16x16": ["sounding"],
        "9x16x16_video": ["labelled", "mute", "silent"],
        "9_audio": ["heard"],
    }
    streams = {name: held(read_index(tmp_path / "out" / name / "index.json")) for name in buckets_in(tmp_path / "out")}
    assert list(streams.values()) == [AV(True, True), AV(True, False), AV(False, True)]
    assert "  with video alone: 3\n  with audio alone: 1" in str(made)
    again = shards_make(folder, tmp_path / "out", mixed=True, **options)
    assert again.reused and again.alone == made.alone == {"video": 3, "audio": 1}


def test_without_it_they_are_left_out_with_the_reason_and_the_flag_that_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_all_kinds(tmp_path / "videos")
    size = ["--frames", "9", "--height", "16", "--width", "16"]
    more = ["--captions", str(folder / "captions.jsonl"), "--filters", "silent"]
    assert main(["shards", "make", str(folder), "-o", str(tmp_path / "out"), *size, *more]) == 0
    told = capsys.readouterr().out
    assert "1 clip in 1 shard, 4 skipped\n  no audio: 2, no video: 1, silent: 1\n" in told
    assert "skipped labelled.mp4: mute by its caption\n" in told and "skipped mute.mp4: no audio stream\n" in told
    assert "with --mixed, clips without sound train pictures alone" in told
    assert main(["shards", "make", str(folder), "-o", str(tmp_path / "mixed"), *size, *more, "--mixed"]) == 0
    assert "5 clips in 3 shards, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("mute", "is_mute"), [("true", True), ("Yes", True), ("1", True), ("", False), ("no", False)])
def test_a_table_says_in_words_which_clips_are_mute(mute: str, is_mute: bool, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tiny_clip(), tmp_path / "videos" / "a.mp4")
    table = tmp_path / "c.csv"
    table.write_text(f"file,prompt,mute\na.mp4,x,{mute}\n")
    made = shards_make(tmp_path / "videos", tmp_path / "out", captions=table, grid=TINY, mixed=True)
    assert made.alone == {"video": int(is_mute), "audio": 0}


def test_a_label_that_says_neither_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tiny_clip(), tmp_path / "videos" / "a.mp4")
    (tmp_path / "c.csv").write_text("file,prompt,mute\na.mp4,x,perhaps\n")
    with pytest.raises(ValueError, match=r"c\.csv, line 2: its `mute` is 'perhaps'; it must be true or false"):
        shards_make(tmp_path / "videos", tmp_path / "out", captions=tmp_path / "c.csv", grid=TINY, mixed=True)


def test_each_kind_has_the_lengths_and_shapes_that_were_asked_for(tmp_path: Path) -> None:
    folder = folder_of_all_kinds(tmp_path / "videos")
    grids = parse_buckets(["9x16x16", "5x16x16", "5x16x32"], TINY)
    write_clip(replace(tiny_clip(9, grids[1]), audio=None), folder / "short.mp4")
    write_clip(replace(tiny_clip(8, grids[1]), video=None), folder / "note.wav")
    with (folder / "captions.jsonl").open("a") as table:
        table.write('{"file": "short.mp4", "prompt": "short"}\n{"file": "note.wav", "prompt": "note"}\n')
    made = shards_make(folder, tmp_path / "out", captions=folder / "captions.jsonl", grid=grids, mixed=True)
    assert made.skipped == []
    counts = {name: read_index(tmp_path / "out" / name / "index.json")["samples"] for name in buckets_in(made.out)}
    assert counts == {"9x16x16": 2, "9x16x16_video": 2, "5x16x16_video": 1, "9_audio": 1, "5_audio": 1}


def test_a_stopped_writing_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    sources = mixed_sources(8, 4, 2)
    with pytest.raises(KeyboardInterrupt):
        write_shards(sources, tmp_path / "a", GRID, shard_size=2, mixed=True, progress=stop)
    made = [write_shards(sources, tmp_path / name, GRID, shard_size=2, mixed=True) for name in "ab"]
    assert made[0].shards == made[1].shards and made[0].written == 14


# Reading


def loader(shards: Path, window: int, quota: dict[str, int] | None = None, rank: int = 0, ranks: int = 1):
    data = ShardData(str(shards), GRID, make_codec(), batch_size=1, quota=quota)
    data.trainer = SimpleNamespace(accumulate_grad_batches=window, num_devices=1, is_global_zero=True)
    data._place = lambda: (rank, ranks)
    return iter(data.train_dataloader())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mixed(tmp_path_factory.mktemp("mixed"), 8, 4, 4)


def kind(batch) -> str:
    return "both" if None not in batch.latents else "video" if batch.latents.audio is None else "audio"


def test_a_quota_holds_in_every_window_on_every_rank(shards: Path) -> None:
    quota = {"audio": 1, "both": 3, "video": 2}
    for rank in range(2):
        batches = loader(shards, 6, quota, rank, 2)
        for _ in range(4):
            assert Counter(kind(next(batches)) for _ in range(6)) == quota


@pytest.mark.parametrize("quota", [None, {"both": 2, "video": 1, "audio": 1}])
def test_each_streams_loss_is_a_mean_over_the_batches_of_its_window_that_have_it(
    quota: dict[str, int] | None, shards: Path
) -> None:
    batches, seen = loader(shards, 4, quota), set()
    for _ in range(12):
        window = [next(batches) for _ in range(4)]
        for i in range(2):
            there = [batch for batch in window if batch.latents[i] is not None]
            assert all(batch.weight[i] == pytest.approx(4 / len(there)) for batch in there)
        seen.add(tuple(sorted(kind(batch) for batch in window)))
    assert len(seen) == 1 if quota else len(seen) > 3  # drawn, windows differ


def test_drawn_without_a_quota_kinds_come_as_often_as_there_are_clips(shards: Path) -> None:
    batches = loader(shards, 1)
    counts = Counter(kind(next(batches)) for _ in range(200))
    assert 0.4 < counts["both"] / 200 < 0.6 and min(counts.values()) > 30


@pytest.mark.parametrize(
    ("quota", "window", "said"),
    [
        (
            {"both": 2, "video": 1},
            3,
            r"\{both: 2, video: 1\}, and clips in .* are of the kind audio too; 0 leaves them",
        ),
        ({"both": 1, "video": 1, "audio": 1}, 4, "3 batches, and a step accumulates 4; set trainer.accumulate_grad"),
        ({"both": 1, "video": 1, "audio": 1, "mute": 1}, 4, "no clip in .* is of the kind mute; there are both, video"),
    ],
)
def test_a_quota_that_does_not_fit_is_refused(quota: dict[str, int], window: int, said: str, shards: Path) -> None:
    with pytest.raises(ValueError, match=said):
        loader(shards, window, quota)


def test_a_quota_of_shards_of_one_kind_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"is no folder of clips of several kinds, which `ccl shards make --mixed`"):
        loader(shards / "9x16x16", 1, {"both": 1})


def test_a_place_that_another_quota_has_counted_is_not_gone_on_from(shards: Path) -> None:
    def endless(quota: dict[str, int] | None):
        data = ShardData(str(shards), GRID, make_codec(), batch_size=1, quota=quota)
        data.trainer = SimpleNamespace(accumulate_grad_batches=3, num_devices=1, is_global_zero=True)
        return data.train_dataloader()

    state, other = endless({"both": 1, "video": 1, "audio": 1}).state_dict(), endless(None)
    other.load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"order of data\.init_args\.quota \{both: 1, video: 1, audio: 1\}, and this run"
    ):
        next(iter(other))


def test_what_clips_have_alone_is_told_when_training_begins(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ShardData(str(shards), GRID, make_codec())
    data.serve(AV(True, True), make_text())
    assert "4 of 16 clips with " in capsys.readouterr().out and data.alone == ["video", "audio"]
    data.serve(AV(False, True), make_text())
    assert f"{shards}: 4 of 16 clips with nothing that the model learns" in capsys.readouterr().out


def test_a_model_of_both_streams_needs_some_clips_with_each(tmp_path: Path) -> None:
    mute = make_mixed(tmp_path, 0, 4, 0)
    data = ShardData(str(mute), GRID, make_codec())
    with pytest.raises(ValueError, match="hold no audio, and the model learns audio; train on others"):
        data.serve(AV(True, True), make_text())
