"""Shards: written whole, the same for the same clips, and read back clip by clip; what is wrong is named."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl import cli
from ccl.codecs.base import Codec
from ccl.data.archive import safe_keys, write_tar
from ccl.data.encode import encode_shards
from ccl.data.shards import Shards, collate
from ccl.data.sources import Source, folder_sources
from ccl.data.write import Report, shards_make, write_shards
from ccl.media import write_clip
from ccl.types import AV
from helpers.tiny_clips import TINY, FakeAudio, FakeVideo, tiny_clip, tiny_folder, tiny_sources


@pytest.fixture
def codec() -> Codec:
    return Codec(FakeVideo(), FakeAudio())


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "ten"
    write_shards(tiny_sources(10), out, TINY, shard_size=4)
    return out


@pytest.fixture
def shards(written, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "shards"))


def digests(report: Report) -> list[str]:
    return [shard["sha256"] for shard in report.shards]


def ids(dataset: Shards, count: int) -> list[str]:
    return [sample["id"] for _, sample in zip(range(count), dataset, strict=False)]


def rewrite(tar: Path, change, *, vouched: bool = False) -> None:
    """Pass the members of a tar file through `change(name, data)`, keeping its size in the index, or its sum too."""
    with tarfile.open(tar) as file:
        members = [(m.name, file.extractfile(m).read()) for m in file]
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in members:
            data = change(name, data)
            if data is not None:
                path = tar.with_name("member")
                path.write_bytes(data)
                file.add(path, name)
                path.unlink()
    line: dict = {"name": tar.name, "bytes": tar.stat().st_size}
    vouch(tar.parent, line | ({"sha256": hashlib.sha256(tar.read_bytes()).hexdigest()} if vouched else {}))


def vouch(folder: Path, line: dict) -> None:
    """What the index says of a shard, changed."""
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        if shard["name"] == line["name"]:
            shard.update(line)
    (folder / "index.json").write_text(json.dumps(index))


# Writing


def test_same_clips_give_the_same_shards_by_any_number_of_workers(tmp_path):
    reports = [write_shards(tiny_sources(5), tmp_path / str(w), TINY, shard_size=2, workers=w) for w in (0, 2)]
    assert digests(reports[0]) == digests(reports[1]) and len(digests(reports[0])) == 3


def test_index_counts_every_clip_and_its_hash_is_the_files(written):
    index = json.loads((written / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [4, 4, 2] and index["samples"] == 10
    for shard in index["shards"]:
        assert hashlib.sha256((written / shard["name"]).read_bytes()).hexdigest() == shard["sha256"]
    assert sorted(p.name for p in written.iterdir()) == ["index.json", *(s["name"] for s in index["shards"])]


def test_unusable_clips_are_listed_with_their_reason(tmp_path):
    folder = tiny_folder(tmp_path / "videos", 1)
    write_clip(replace(tiny_clip(), audio=None), folder / "mute.mp4")
    write_clip(replace(tiny_clip(), video=None), folder / "blind.m4a")
    write_clip(tiny_clip(seconds=0.1), folder / "short.mp4")
    (folder / "text.mp4").write_text("not a video")
    report = write_shards(folder_sources(folder, grid=TINY, need_captions=False), tmp_path / "out", TINY)
    assert report.written == 1
    reasons = dict(report.skipped)
    assert reasons["mute.mp4"] == "no audio stream" and reasons["blind.m4a"] == "no video stream"
    assert reasons["short.mp4"].startswith("too short (2 of 9 frames") and "no media file" in reasons["text.mp4"]
    assert json.loads((tmp_path / "out/index.json").read_text())["skipped"] == [list(row) for row in report.skipped]
    assert all(id in str(report) for id in reasons)


def test_strict_fails_and_names_the_clip(tmp_path):
    sources = [*tiny_sources(1), Source("mute", lambda: replace(tiny_clip(), audio=None))]
    with pytest.raises(ValueError, match="clip mute cannot be used: no audio stream"):
        write_shards(sources, tmp_path / "out", TINY, strict=True)
    assert not (tmp_path / "out/index.json").exists()


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"none of 1 clip .* the first: mute: no audio stream"):
        write_shards([Source("mute", lambda: replace(tiny_clip(), audio=None))], tmp_path / "out", TINY)


def test_stopped_run_goes_on_after_its_last_whole_shard(tmp_path):
    made: list[int] = []

    def sources(broken: bool) -> list[Source]:
        def load(number):
            made.append(number)
            if broken and number == 5:
                raise RuntimeError("the power went")
            return tiny_clip(number)

        return [Source(f"clip{n}", lambda n=n: load(n)) for n in range(7)]

    with pytest.raises(RuntimeError):
        write_shards(sources(True), tmp_path / "a", TINY, shard_size=2)
    made.clear()
    report = write_shards(sources(False), tmp_path / "a", TINY, shard_size=2)
    assert made == [4, 5, 6]
    assert digests(report) == digests(write_shards(tiny_sources(7), tmp_path / "b", TINY, shard_size=2))
    assert (tmp_path / "a/index.json").read_text() == (tmp_path / "b/index.json").read_text()


def test_same_settings_reuse_and_others_are_refused(shards):
    def forbidden():
        raise AssertionError("made again")

    report = write_shards([Source(s.id, forbidden) for s in tiny_sources(10)], shards, TINY, shard_size=4)
    assert report.reused and report.written == 10
    with pytest.raises(ValueError, match=r"already holds shards made with other grid.frames, shard_size, sources"):
        write_shards(tiny_sources(9), shards, replace(TINY, frames=5), shard_size=3)


def test_foreign_tar_files_are_not_overwritten(tmp_path):
    (tmp_path / "shard-000000.tar").write_bytes(b"precious")
    with pytest.raises(ValueError, match="holds tar files but no index"):
        write_shards(tiny_sources(1), tmp_path, TINY)
    assert (tmp_path / "shard-000000.tar").read_bytes() == b"precious"


def test_clip_of_another_shape_is_never_changed_in_silence(tmp_path):
    sources = [*tiny_sources(1), Source("long", lambda: tiny_clip(seconds=1.0))]
    report = write_shards(sources, tmp_path / "out", TINY)
    assert report.skipped[0][0] == "long" and "not (9, 16, 16, 3)" in report.skipped[0][1]


def test_names_become_safe_and_stay_apart():
    keys = safe_keys(["../../etc/passwd", "a.b.mp4", "a_b.mov", "A_B", "", "..", "x/y z.mp4", "/abs"])
    assert keys == ["etc_passwd", "a_b", "a_b-2", "A_B-3", "clip", "clip-2", "x_y_z", "abs"]


# Folders and captions


def test_names_that_no_terminal_shows_and_prompts_of_half_a_character_are_told(tmp_path, capsys):
    """Old systems wrote names in Latin-1; the others of the folder are made, and the report can be printed."""
    folder = tiny_folder(tmp_path / "videos", 3)
    for end in ("mp4", "txt"):
        (folder / f"clip0.{end}").rename(folder / f"caf\udce9.{end}")  # the byte 0xe9
    (folder / "bad\x1b[31m.mp4").write_text("not a video")
    rows = [{"file": "clip2.mp4", "prompt": "fine"}, {"file": "caf\udce9.mp4", "prompt": "fine"}]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = write_shards(folder_sources(folder, grid=TINY), tmp_path / "a", TINY)
    assert report.written == 3 and "bad\\x1b[31m.mp4: " in str(report).encode().decode()
    assert write_shards(folder_sources(folder, grid=TINY), tmp_path / "a", TINY).reused
    captioned = folder_sources(folder, tmp_path / "captions.jsonl", grid=TINY)
    half = Source("half", lambda: replace(tiny_clip(), prompt="half \ud83d"))
    skipped = dict(write_shards([*captioned, half], tmp_path / "b", TINY).skipped)
    assert skipped["half"].startswith("its prompt holds half a character, ") and "clip2.mp4" not in skipped
    assert ids(Shards(tmp_path / "b", TINY, shuffle=0), 2) == ["caf", "clip2"]


def test_captions_come_from_a_file_or_from_sidecars(tmp_path):
    folder = tiny_folder(tmp_path / "videos", 3)
    (tmp_path / "c.csv").write_text('file,prompt\nclip1.mp4,"a dog, barking"\nclip0.mp4,a cat\n')
    (tmp_path / "c.jsonl").write_text('{"file": "clip2.mp4", "prompt": "says \\"hi\\""}\n\n')
    beside = [s.load().prompt for s in folder_sources(folder, grid=TINY)]
    assert beside == ["clip number 0", "clip number 1", "clip number 2"]
    sources = folder_sources(folder, tmp_path / "c.csv", grid=TINY)
    assert [s.load().prompt for s in sources[:2]] == ["a cat", "a dog, barking"]
    report = write_shards(sources, tmp_path / "out", TINY)
    assert report.skipped == [("clip2.mp4", "no caption in c.csv")]
    assert folder_sources(folder, tmp_path / "c.jsonl", grid=TINY)[2].load().prompt == 'says "hi"'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.jsonl", '{"file": "clip0.mp4", "prompt": "a"}\n{"file": ', "line 2: is not JSON"),
        ("c.jsonl", '{"file": "clip0.mp4"}\n', "line 1: it must have `file` and `prompt`"),
        ("c.csv", "name,text\nclip0.mp4,a\n", "line 1: the head lacks `file`; it must have `file` and `prompt`"),
        ("c.csv", "file,prompt\nclip0.mp4,a\nclip9.mp4,b\n", "line 3: clip9.mp4 is not in"),
        ("c.csv", "file,prompt\nclip0.mp4,a\nclip0.mp4,b\n", "line 3: clip0.mp4 was named before"),
        ("c.xml", "<a/>", "must end in .csv or .jsonl"),
    ],
)
def test_bad_caption_line_is_named(tmp_path, name, text, message):
    folder = tiny_folder(tmp_path / "videos", 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        folder_sources(folder, tmp_path / name)


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no video file"):
        folder_sources(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        folder_sources(tmp_path / "absent")


def test_real_clips_become_shards(tmp_path):
    root = os.environ.get("CCL_TEST_DATA")
    if not root:
        pytest.skip("CCL_TEST_DATA names no folder of real clips")
    grid = replace(TINY, frames=49, height=48, width=48)
    names = ["condfoley_tennis.mp4", "condfoley_hitting_bag.mp4", "jfk.flac", "versebench_419.mp4"]
    for name in names:
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / name).symlink_to(Path(root).resolve() / "clips" / name)
    report = shards_make(tmp_path / "videos", tmp_path / "out", grid=grid, empty_prompts=True)
    assert dict(report.skipped) == {"condfoley_tennis.mp4": "no audio stream", "jfk.flac": "no video stream"}
    samples = list(Shards(tmp_path / "out", grid, shuffle=0, endless=False))
    assert [s["video"].std() > 10 and np.abs(s["audio"]).max() > 0.05 for s in samples] == [True, True]


# Reading


def test_a_clip_comes_back_as_it_was_written(written):
    sample = next(iter(Shards(written, TINY, shuffle=0)))
    clip = tiny_clip(0)
    assert sample["id"] == "clip0" and sample["prompt"] == clip.prompt
    assert np.abs(sample["video"].astype(int) - clip.video).mean() < 6
    assert np.corrcoef(sample["audio"], clip.audio)[0, 1] > 0.95


def test_batch_holds_pictures_channels_first(written):
    dataset = Shards(written, TINY, shuffle=0, endless=False)
    samples = list(dataset)
    batch = collate(samples[:3])
    assert batch.media.video.shape == (3, 3, 9, 16, 16) and batch.media.video.dtype == torch.uint8
    assert (batch.media.video[1, :, 4].permute(1, 2, 0).numpy() == samples[1]["video"][4]).all()
    assert batch.media.audio.shape == (3, TINY.samples) and batch.id == ["clip0", "clip1", "clip2"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_parts_share_an_epoch_without_overlap(written, ranks):
    parts = [Shards(written, TINY, shuffle=4, endless=False, rank=r, ranks=ranks) for r in range(ranks)]
    seen = [[s["id"] for s in part] for part in parts]
    assert {len(part) for part in seen} == {10 // ranks}
    assert max(Counter(id for part in seen for id in part).values()) == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_endless_epochs_hold_every_clip_once(written, ranks):
    """With enough shards a part reads its own; with fewer it strides over all."""
    seen: Counter[str] = Counter()
    for rank in range(ranks):
        part = Shards(written, TINY, shuffle=3, rank=rank, ranks=ranks)
        for sample in part:
            if part.epoch:
                break
            seen[sample["id"]] += 1
    assert seen == {f"clip{n}": 1 for n in range(10)}


def test_every_epoch_has_its_own_order_and_every_seed(written):
    epochs = np.array(ids(Shards(written, TINY, shuffle=8), 30)).reshape(3, 10)
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    orders = {tuple(epoch) for epoch in epochs} | {tuple(ids(Shards(written, TINY, seed=1, shuffle=8), 10))}
    assert len(orders) == 4


@pytest.mark.parametrize("taken", [0, 3, 10, 14, 25])
def test_a_restored_place_gives_the_same_samples(written, taken):
    whole = ids(Shards(written, TINY, shuffle=5), 32)
    first = Shards(written, TINY, shuffle=5)
    iterator = iter(first)
    assert [next(iterator)["id"] for _ in range(taken)] == whole[:taken]
    second = Shards(written, TINY, shuffle=5)
    second.load_state_dict(first.state_dict())
    assert ids(second, 32 - taken) == whole[taken:]


def test_skipped_samples_are_not_decoded(written, monkeypatch):
    dataset = Shards(written, TINY, shuffle=5)
    decoded = []
    decode = dataset._decode
    monkeypatch.setattr(dataset, "_decode", lambda raw: decoded.append(raw["__key__"]) or decode(raw))
    dataset.load_state_dict({"epoch": 0, "n": 8})
    next(iter(dataset))
    assert len(decoded) == 1


# Damage


def test_missing_shard_is_named(shards):
    (shards / "shard-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"shard .*shard-000001.tar is missing"):
        Shards(shards, TINY)


def test_cut_shard_is_named(shards):
    path = shards / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"shard .*shard-000001.tar has 9000 bytes, its index says"):
        Shards(shards, TINY)


def test_shard_that_breaks_off_while_it_is_read_is_named(shards):
    dataset = Shards(shards, TINY, shuffle=0)
    path = shards / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"shard .*shard-000001.tar cannot be read after clip \S+: unexpected end"):
        ids(dataset, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "clip clip5: its mp4 is corrupt"),
        (lambda data: data[:-500] + bytes(len(data[-500:])), "clip clip5: its mp4 is corrupt"),
        (lambda data: None, "clip clip5: its mp4 is missing"),
    ],
)
def test_damaged_clip_is_named_with_its_shard(shards, change, message):
    rewrite(shards / "shard-000001.tar", lambda name, data: change(data) if name == "clip5.mp4" else data)
    with pytest.raises(ValueError, match=rf"shard .*shard-000001.tar, {message}"):
        ids(Shards(shards, TINY, shuffle=0), 10)


def test_mp4_that_was_cut_before_it_was_packed_is_named(shards):
    """Its checksum agrees: only decoding tells."""
    import zlib

    cut: dict[str, bytes] = {}

    def change(name, data):
        if name == "clip5.mp4":
            return cut["mp4"]
        if name == "clip5.json":
            return json.dumps({**json.loads(data), "crc32": {"mp4": zlib.crc32(cut["mp4"])}}).encode()
        return data

    with tarfile.open(shards / "shard-000001.tar") as file:
        cut["mp4"] = file.extractfile("clip5.mp4").read()[:-600]
    rewrite(shards / "shard-000001.tar", change)
    with pytest.raises(ValueError, match=r"shard .*shard-000001.tar, clip clip5: its mp4 .*truncated"):
        ids(Shards(shards, TINY, shuffle=0), 10)


def test_bad_json_is_named(shards):
    rewrite(shards / "shard-000000.tar", lambda name, data: b"{" if name == "clip2.json" else data)
    with pytest.raises(ValueError, match=r"shard .*shard-000000.tar, clip clip2: its json cannot be read as"):
        ids(Shards(shards, TINY, shuffle=0), 10)


def tail_of_zeros(data: bytes) -> bytes:
    """From the second clip on."""
    half = data.index(b"clip1.json")
    return data[:half] + bytes(len(data) - half)


def other_header(data: bytes) -> bytes:
    """What tarfile takes for the end: a header in the middle whose sum is wrong."""
    half = data.index(b"clip2.json")
    return data[:half] + b"CLIP" + data[half + 4 :]


@pytest.mark.parametrize(
    ("damage", "found"), [(tail_of_zeros, 1), (lambda data: bytes(len(data)), 0), (other_header, 2)]
)
def test_a_shard_that_ends_too_soon_never_counts_as_whole(shards, tmp_path, codec, damage, found, capsys):
    """Of the same size, so that only reading tells: in training, once through or without end, encoding, verifying."""
    path = shards / "shard-000000.tar"
    path.write_bytes(damage(path.read_bytes()))
    for endless in (True, False):
        dataset = iter(Shards(shards, TINY, shuffle=0, endless=endless))
        with pytest.raises(ValueError, match=rf"^shard {path} .*: it ends with {found} clips, and its index says 4$"):
            for _ in range(50):
                next(dataset)
    with pytest.raises(ValueError, match=rf"^shard {path} is damaged: its sha256 is \w+\.\.\., its index says"):
        encode_shards(shards, tmp_path / "z", codec, TINY)
    assert not (tmp_path / "z/index.json").exists()
    capsys.readouterr()
    assert cli.main(["shards", "verify", str(shards)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        told_by(path),
        f"{shards}: 2 of 3 shards whole",
    ]
    assert cli.main(["shards", "verify", str(shards), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told == {"folder": str(shards), "shards": 3, "damaged": {path.name: told_by(path)}}


def told_by(path: Path) -> str:
    right = {x["name"]: x["sha256"] for x in json.loads((path.parent / "index.json").read_text())["shards"]}[path.name]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"shard {path} is damaged: its sha256 is {found[:12]}..., its index says {right[:12]}..."


def test_whole_shards_are_verified(written, tmp_path, codec, capsys):
    encode_shards(written, tmp_path / "z", codec, TINY)
    for folder in (written, tmp_path / "z"):
        assert cli.main(["shards", "verify", str(folder)]) == 0
        assert f"{folder}: 3 of 3 shards whole" in capsys.readouterr().out
        assert cli.main(["shards", "verify", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "shards": 3, "damaged": {}}


def swapped(name: str, data: bytes) -> bytes:
    """Each clip under another's name."""
    return data.replace(b'"id": "clip1"', b'"id": "clip0"') if name == "clip1.json" else data


def edited(key: str, value):
    return lambda name, data: json.dumps(json.loads(data) | {key: value}).encode() if name == "clip1.json" else data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "clip clip1: its json is that of clip clip0"),
        (edited("id", "../../clip1"), "clip clip1 names '../../clip1', which is not a plain file name"),
        (edited("id", 3), "clip clip1 names '3', which is not a plain file name"),
        (edited("prompt", 3), "clip clip1: its prompt is no text"),
        (edited("prompt", None), "clip clip1: its prompt is no text"),
        (edited("prompt", "half \ud83d"), "clip clip1: its prompt is no text"),
        (edited("crc32", []), "clip clip1: its json cannot be read as that of a clip"),
        (lambda name, data: b"[]" if name == "clip1.json" else data, "clip clip1: its json cannot be read"),
        (
            lambda name, data: b'{"id": "clip1"}' if name == "clip1.json" else data,
            "clip clip1: its json cannot be read",
        ),
    ],
)
def test_what_a_clip_says_of_itself_is_checked(shards, tmp_path, codec, change, words):
    rewrite(shards / "shard-000000.tar", change, vouched=True)
    for read in (
        lambda: ids(Shards(shards, TINY, shuffle=0), 4),
        lambda: encode_shards(shards, tmp_path / "z", codec, TINY),
    ):
        with pytest.raises(ValueError) as told:
            read()
        assert str(told.value).startswith(f"shard {shards}/shard-000000.tar, {words}")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["clip0"], "cannot be read after clip clip3: clip clip0 is there twice"),
        (["other"], "cannot be read after clip clip3: its index says 4 clips, and there are more"),
    ],
)
def test_a_shard_that_holds_more_than_its_index_says_is_refused(shards, extra, words):
    path = shards / "shard-000000.tar"
    with tarfile.open(path) as file:
        members = {m.name: file.extractfile(m).read() for m in file}
    clips = [*dict.fromkeys(name.partition(".")[0] for name in members), *extra]
    line = write_tar(
        path, ((clip, {end: members.get(f"{clip}.{end}", b"{}") for end in ("json", "mp4")}) for clip in clips)
    )
    vouch(shards, line | {"samples": 4})
    with pytest.raises(ValueError, match=rf"^shard {path} {words}$"):
        ids(Shards(shards, TINY, shuffle=0), 10)


def test_a_clip_in_two_shards_is_not_encoded(shards, tmp_path, codec, capsys):
    path = shards / "shard-000001.tar"
    path.write_bytes((shards / "shard-000000.tar").read_bytes())
    line = next(x for x in json.loads((shards / "index.json").read_text())["shards"] if x["name"] == "shard-000000.tar")
    vouch(shards, line | {"name": path.name})
    with pytest.raises(ValueError, match=r"^clip clip0 of .* is in two shards, shard-000000.tar and shard-000001.tar$"):
        encode_shards(shards, tmp_path / "z", codec, TINY)
    assert cli.main(["shards", "verify", str(shards)]) == 1
    assert f"shard {path}: its clip clip0 is in shard-000000.tar too\n" in capsys.readouterr().out


def test_a_shard_that_unfolds_is_not_read(shards):
    """Packed, or with a hole that a few bytes say is large."""
    path = shards / "shard-000000.tar"
    for data in (gzip.compress(path.read_bytes(), 0), sparse(2**33 - 1)):
        path.write_bytes(data)
        vouch(shards, {"name": path.name, "samples": 4, "bytes": len(data), "sha256": "0" * 64})
        with pytest.raises(ValueError, match=rf"^shard {path} cannot be read after clip \(none\): "):
            ids(Shards(shards, TINY, shuffle=0), 1)


def sparse(size: int) -> bytes:
    info = tarfile.TarInfo("clip0.json")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"00000000000\0" * 2  # one piece, at 0 and of no bytes
    block[483:495] = tarfile.itn(size, 12)  # of a file so large
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(20 * 512)


def test_other_grid_is_refused(written):
    with pytest.raises(ValueError, match=r"have grid.frames 9, the model 13"):
        Shards(written, replace(TINY, frames=13))


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no index.json"):
        Shards(tmp_path, TINY)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index.json is not an index of shards"):
        Shards(tmp_path, TINY)


def test_too_few_clips_for_the_readers_is_said(written):
    with pytest.raises(ValueError, match="holds 10 clips, too few for 11 ranks x 1 workers"):
        next(iter(Shards(written, TINY, ranks=11)))


# Latents


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11), ("float32", 0)])
def test_latents_are_the_codecs(written, tmp_path, codec, dtype, tolerance):
    report = encode_shards(written, tmp_path / "z", codec, TINY, batch_size=3, dtype=dtype)
    assert report.written == 10 and len(report.shards) == 3
    samples = list(Shards(tmp_path / "z", TINY, shuffle=0, endless=False, codec=codec.known))
    media = collate(list(Shards(written, TINY, shuffle=0, endless=False))).media
    direct = codec.encode(type(media)(media.video.float() / 127.5 - 1, media.audio), TINY)
    batch = collate(samples)
    assert batch.media is None and batch.latents.video.dtype == torch.float32
    for stored, z in zip(batch.latents, direct, strict=True):
        assert stored.shape == z.shape and torch.allclose(stored, z, rtol=tolerance, atol=1e-6)


def test_latents_of_another_codec_are_refused(written, tmp_path, codec):
    encode_shards(written, tmp_path / "z", codec, TINY)
    with pytest.raises(ValueError, match=r"are of codec fake-video-1\+fake-audio-1, the model's is other"):
        Shards(tmp_path / "z", TINY, codec=AV("other", "other"))


def test_latents_cannot_be_encoded_again(written, tmp_path, codec):
    encode_shards(written, tmp_path / "z", codec, TINY)
    with pytest.raises(ValueError, match="holds latents"):
        encode_shards(tmp_path / "z", tmp_path / "zz", codec, TINY)


def test_infinite_latents_are_named(written, tmp_path, codec):
    codec.video.encode = lambda video: FakeVideo.encode(codec.video, video) / 0
    with pytest.raises(ValueError, match=r"clip clip0 of .*: its video latents are not finite"):
        encode_shards(written, tmp_path / "z", codec, TINY)
