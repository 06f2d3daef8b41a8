"""What is left out of shards is left out for a reason that is counted; what is kept goes into the right bucket."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccl import cli
from ccl.cli.errors import UsageError
from ccl.data.buckets import candidates, parse_buckets, read_into_bucket
from ccl.data.filters import Cuts, Least, Silent, cause, cuts, loudness
from ccl.data.shards import Shards
from ccl.data.sources import Source, folder_sources
from ccl.data.write import write_shards
from ccl.grid import Grid
from ccl.media import Clip, MediaError, read_clip, write_clip
from helpers.tiny_clips import TINY, tiny_clip, tiny_folder, tiny_sources


class Hears:
    """A listener that hears the clip's name."""

    version = "hears-1"

    def prompt(self, clip: Clip) -> str:
        return f'Someone says "{clip.id}"'


def scene(seed: int, frames: int, size: int = 64) -> np.ndarray:
    """A coloured pattern that pans, with a little noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (8, 16, 3))
    wall = np.kron(small, np.ones((size // 8, size // 4, 1)))
    pans = np.stack([np.roll(wall, frame, axis=1)[:, :size] for frame in range(frames)])
    return np.clip(pans + rng.normal(0, 4, pans.shape), 0, 255).astype(np.uint8)


# Filters


def test_a_cut_is_found_where_scenes_meet_and_motion_is_none():
    video = np.concatenate([scene(0, 10), scene(1, 15), scene(2, 9)])
    assert cuts(video, 20.0, 3.0) == [10, 25]
    assert cuts(scene(3, 40), 20.0, 3.0) == []


def test_flicker_is_no_cut():
    video = scene(4, 1).repeat(20, 0)
    video[::2] = video[::2] // 2
    assert cuts(video, 20.0, 3.0) == []


def test_a_single_picture_has_no_cut():
    assert cuts(scene(0, 1), 20.0, 3.0) == []


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (33, 50)])
def test_pictures_of_any_size_are_judged(size):
    video = np.zeros((6, *size, 3), np.uint8)
    video[3:] = 200
    assert cuts(video, 20.0, 3.0) == [3]


def test_real_clips_spliced_together_cut_where_they_were_spliced_and_nowhere_else():
    root = os.environ.get("CCL_TEST_DATA")
    if not root:
        pytest.skip("CCL_TEST_DATA names no folder of real clips")
    grid = Grid(frames=25, height=64, width=64)
    videos = []
    for path in sorted((Path(root) / "clips").glob("*.mp4")):
        try:
            videos.append(read_clip(path, grid=grid).video)
        except MediaError:  # one has no sound
            continue
    assert [cuts(video, 20.0, 3.0) for video in videos] == [[]] * len(videos)
    pairs = [(a, b) for a in range(len(videos)) for b in range(len(videos)) if a != b]
    found = [cuts(np.concatenate([videos[a], videos[b]]), 20.0, 3.0) == [25] for a, b in pairs]
    assert sum(found) >= 0.9 * len(pairs)


def test_loudness_is_that_of_the_loudest_window():
    sound = np.zeros(16_000, np.float32)
    assert loudness(sound, 16_000) == -np.inf
    sound[8000:8800] = 0.1
    assert loudness(sound, 16_000) == pytest.approx(-20, abs=0.1)


def test_each_filter_says_what_it_found():
    clip = tiny_clip()
    assert Silent()(clip) == "" and Cuts()(clip) == ""
    assert Silent()(replace(clip, audio=clip.audio * 1e-4)).endswith("dB, under -50")
    video = np.concatenate([scene(0, 10), scene(1, 15)])
    assert Cuts()(replace(clip, video=video)) == "1, at 0.40 s"
    least = Least("speech", lambda clip: 0.25, 0.5, "v1")
    assert least(clip) == "0.25, under 0.5" and Least("speech", lambda clip: 0.5, 0.5)(clip) == ""

    def faceless(clip):
        raise ValueError("no face is seen")

    assert Least("lips", faceless, 3.0)(clip) == "no face is seen"
    assert repr(least) == "Least(name='speech', least=0.5, version='v1')"


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        ("no audio stream", "no audio"),
        ("its audio stream holds no sound", "no audio"),
        ("too short (2 of 9 frames at 25 fps)", "too short"),
        ("sound too short (0.10 of 0.36 s)", "too short"),
        ("is corrupt or truncated", "corrupt"),
        ("no media file (moov atom not found)", "corrupt"),
        ("[Errno 5] Input/output error: 'a.mp4'", "corrupt"),
        ("no caption in c.csv", "no caption"),
        ("cuts: 1, at 0.40 s", "cuts"),
        ("lips: no face is seen", "lips"),
    ],
)
def test_reasons_are_counted_under_their_cause(reason, counted):
    assert cause(reason) == counted


def test_the_report_counts_what_each_filter_removed(tmp_path):
    folder = tiny_folder(tmp_path / "videos", 2)
    clip = tiny_clip()
    write_clip(replace(clip, audio=None), folder / "mute.mp4")
    write_clip(replace(clip, audio=clip.audio * 0), folder / "silent.mp4")
    write_clip(replace(clip, video=np.concatenate([scene(0, 5, 16), scene(1, 4, 16)])), folder / "cut.mp4")
    write_clip(tiny_clip(seconds=0.1), folder / "short.mp4")
    (folder / "broken.mp4").write_text("not a video")
    sources, out = folder_sources(folder, grid=TINY, need_captions=False), tmp_path / "out"
    report = write_shards(sources, out, TINY, filters=[Silent(), Cuts()])
    assert report.written == 2
    assert report.removed == {"corrupt": 1, "cuts": 1, "no audio": 1, "too short": 1, "silent": 1}
    assert "corrupt: 1, cuts: 1, no audio: 1, too short: 1, silent: 1" in str(report)
    assert dict(report.skipped)["cut.mp4"] == "cuts: 1, at 0.20 s"
    assert json.loads((out / "index.json").read_text())["skipped"] == [list(row) for row in report.skipped]
    assert write_shards(sources, out, TINY, filters=[Silent(), Cuts()]).reused
    with pytest.raises(ValueError, match="already holds shards made with other filters"):
        write_shards(sources, out, TINY, filters=[Silent(-30.0), Cuts()])


def test_the_verb_takes_filters_and_says_what_they_removed(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "videos", 1)
    write_clip(replace(tiny_clip(), audio=tiny_clip().audio * 0), folder / "silent.mp4")
    grid = ["--frames", "9", "--height", "16", "--width", "16"]
    assert (
        cli.main(
            ["shards", "make", str(folder), "-o", str(tmp_path / "z"), *grid, "--filters", "silent", "--empty-prompts"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "1 clip in 1 shard, 1 skipped\n  silent: 1\n" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--speech", "2"], "--speech is 2; it must be a number from 0 to 1"),
        (["--transcribe", "huge"], "Whisper has no size 'huge'"),
        (["--buckets", "81x352"], "--buckets: bucket 81x352 is not FRAMESxHEIGHTxWIDTH"),
        (["--buckets", "80x352x640"], "--buckets: bucket 80x352x640: grid.frames is 80; the video codec needs 4k + 1"),
        (["--buckets", "9x16x16", "9x16x16"], "one is named twice"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_work(tmp_path, flags, message):
    pytest.importorskip("whisper")
    with pytest.raises(UsageError) as caught:
        cli.run(["shards", "make", str(tmp_path), "-o", str(tmp_path / "z"), *flags])
    assert message in str(caught.value)


# Prompts that are heard


def test_clips_without_a_caption_get_what_is_heard(tmp_path):
    folder = tiny_folder(tmp_path / "videos", 3)
    (folder / "clip1.txt").unlink()
    (tmp_path / "c.jsonl").write_text('{"file": "clip0.mp4", "prompt": "a cat"}\n')
    sources = folder_sources(folder, grid=TINY, need_captions=False)
    write_shards(sources, tmp_path / "a", TINY, listener=Hears())
    prompts = [sample["prompt"] for sample in Shards(tmp_path / "a", TINY, shuffle=0, endless=False)]
    assert prompts == ["clip number 0", 'Someone says "clip1.mp4"', "clip number 2"]
    sources = folder_sources(folder, tmp_path / "c.jsonl", grid=TINY, need_captions=False)
    write_shards(sources, tmp_path / "b", TINY, listener=Hears(), workers=2)
    prompts = [sample["prompt"] for sample in Shards(tmp_path / "b", TINY, shuffle=0, endless=False)]
    assert prompts == ["a cat", 'Someone says "clip1.mp4"', 'Someone says "clip2.mp4"']
    with pytest.raises(ValueError, match="already holds shards made with other listener"):
        write_shards(sources, tmp_path / "b", TINY)


@pytest.mark.slow
def test_whisper_writes_the_words_of_real_speech_in_double_quotes(tmp_path, capsys):
    root = os.environ.get("CCL_TEST_DATA")
    if not root:
        pytest.skip("CCL_TEST_DATA names no folder of real clips")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").symlink_to(Path(root).resolve() / "clips/versebench_syncnet_1.mp4")
    whisper = str(Path(root).resolve() / "weights/whisper-tiny.en.pt")
    grid = ["--frames", "121", "--height", "32", "--width", "48"]
    line = ["shards", "make", str(tmp_path / "videos"), "-o", str(tmp_path / "out"), "--transcribe", whisper, *grid]
    assert cli.main(line) == 0
    (sample,) = Shards(tmp_path / "out", Grid(frames=121, height=32, width=48), shuffle=0, endless=False)
    assert sample["prompt"].startswith('Someone says "') and "freedom" in sample["prompt"].lower()


# Buckets


WIDE, TALL, SHORT = parse_buckets(["13x16x32", "13x32x16", "9x16x32"], TINY)


def test_a_clip_goes_into_the_nearest_shape_and_the_longest_that_it_fills():
    grids = [SHORT, WIDE, TALL]
    assert candidates(grids, 90, 160) == [WIDE, SHORT]
    assert candidates(grids, 160, 90) == [TALL]
    square, large = parse_buckets(["9x16x16", "9x32x32"], TINY)
    assert candidates([square, large], 400, 400) == [large]
    assert candidates([square, large], 17, 18) == [square]


def test_a_clip_too_short_for_all_buckets_of_its_shape_is_told(tmp_path):
    clip = tiny_clip(0, replace(TINY, frames=9, height=16, width=32))
    write_clip(clip, tmp_path / "a.mp4")
    assert read_into_bucket(tmp_path / "a.mp4", grids=[WIDE, SHORT], prompt="", id="a").video.shape == (9, 16, 32, 3)
    with pytest.raises(MediaError, match="too short"):
        read_into_bucket(tmp_path / "a.mp4", grids=[WIDE, TALL], prompt="", id="a")


def mixed(count: int, broken: int = -1) -> list[Source]:
    """Clips of three shapes in turn, one of them mute."""

    def load(number: int) -> Clip:
        if number == broken:
            raise RuntimeError("the power went")
        clip = tiny_clip(number, (WIDE, TALL, SHORT)[number % 3])
        return replace(clip, audio=None) if number == 4 else clip

    return [Source(f"clip{n}", lambda n=n: load(n)) for n in range(count)]


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_buckets_stopped_anywhere_go_on_to_the_same_shards(tmp_path):
    grids = [WIDE, TALL, SHORT]
    report = write_shards(mixed(14), tmp_path / "a", grids, shard_size=2)
    assert report.written == 13 and [row[0] for row in report.skipped] == ["clip4"]
    for broken in (3, 8, 13):
        out = tmp_path / f"broken at {broken}"
        with pytest.raises(RuntimeError):
            write_shards(mixed(14, broken), out, grids, shard_size=2)
        assert not (out / "buckets.json").exists()
        again = write_shards(mixed(14), out, grids, shard_size=2)
        assert files(tmp_path / "a") == files(out) and again.skipped == report.skipped
        assert write_shards(mixed(14), out, grids, shard_size=2, workers=2).reused


def test_a_bucket_that_stays_empty_is_not_listed(tmp_path):
    write_shards(mixed(2), tmp_path, [WIDE, TALL, SHORT])
    assert json.loads((tmp_path / "buckets.json").read_text()) == {"buckets": ["13x16x32", "13x32x16"]}


def test_buckets_and_shards_of_one_grid_do_not_share_a_folder(tmp_path):
    write_shards(tiny_sources(2), tmp_path / "one", TINY)
    with pytest.raises(ValueError, match="holds shards of one grid; choose another folder for buckets"):
        write_shards(mixed(2), tmp_path / "one", [WIDE, TALL])
    write_shards(mixed(2), tmp_path / "two", [WIDE, TALL])
    with pytest.raises(ValueError, match="holds the buckets 13x16x32, 13x32x16; choose another folder"):
        write_shards(tiny_sources(2), tmp_path / "two", TINY)
