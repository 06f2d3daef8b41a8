"""What a folder of shards says of itself is anybody's word: each value is of its kind, and no name leads outside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ccl import cli
from ccl.codecs.base import Codec
from ccl.data.encode import encode_shards
from ccl.data.index import buckets_in, read_index
from ccl.data.write import write_shards
from helpers.fakes import GRID
from helpers.tiny_clips import tiny_sources
from helpers.tiny_encoders import FrozenText, MeanAudio, MeanVideo


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "clips"
    write_shards(tiny_sources(3, GRID), out, GRID, shard_size=2)
    return out


@pytest.fixture(scope="module")
def latents(clips: Path) -> Path:
    encode_shards(clips, clips.with_name("z"), Codec(MeanVideo(), MeanAudio()), GRID, text=FrozenText())
    return clips.with_name("z")


def changed(folder: Path, out: Path, *path: str | int, to: Any) -> Path:
    """A copy whose index has another value at a path; `...` takes it away."""
    shutil.copytree(folder, out)
    index = json.loads((out / "index.json").read_text())
    inner = index
    for key in path[:-1]:
        inner = inner[key]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    (out / "index.json").write_text(json.dumps(index))
    return out


SHARD, STREAMS, TEXT = ("shards", 0), ("settings", "streams"), ("settings", "text")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("samples",), 10**12, "samples must be those of its shards, 3"),
        (("samples",), 2, "samples must be those of its shards, 3"),
        (("samples",), -1, "samples must be"),
        (("samples",), "3", "samples must be"),
        (("consumed",), -1, "consumed must be a whole number, at least 3"),
        (("consumed",), None, "consumed must be"),
        (("shards",), {}, "shards must be a list"),
        (("shards",), [[]], "shards.0 must be an object"),
        (("skipped",), [["a"]], "skipped.0 must be a clip and its reason"),
        (("skipped",), 3, "skipped must be a list"),
        ((*SHARD, "name"), "shard-000001.tar", "shards must be of different names"),
        ((*SHARD, "name"), "index.json", "shards.0.name must be a tar file"),
        ((*SHARD, "samples"), 10**12, "shards.0.samples must be what"),
        ((*SHARD, "samples"), -1, "shards.0.samples must be a whole number, at least 1"),
        ((*SHARD, "samples"), True, "shards.0.samples must be a whole number"),
        ((*SHARD, "bytes"), 2.5, "shards.0.bytes must be a whole number"),
        ((*SHARD, "sha256"), "", "shards.0.sha256 must be 64 hex digits"),
        ((*SHARD, "sha256"), ..., "shards.0.sha256 must be 64 hex digits"),
        (("settings",), [], "settings must be an object"),
        (("settings", "version"), "1", "settings.version must be a number"),
        (("settings", "version"), 2, "has version 2; this code reads version 1"),
        (("settings", "kind"), "audio", "settings.kind must be media or latents"),
        (STREAMS, ["sound"], "settings.streams must be a list of streams"),
        (("settings", "grid"), 7, "settings.grid must be of frames, fps"),
        (("settings", "grid", "t_z"), 7, "settings.grid must be of frames, fps"),
        (("settings", "grid", "fps"), float("nan"), "settings.grid.fps must be a positive number"),
        (("settings", "grid", "height"), "16", "settings.grid.height must be a whole number"),
        (("settings", "grid", "width"), -16, "settings.grid.width must be a whole number"),
        (("settings", "grid", "fps"), 1e-320, "cannot be read as an index of shards (grid.fps is 1e-320"),
        (("settings", "grid", "frames"), 8, "(grid.frames is 8; the video codec needs 4k + 1 frames)"),
        (("settings", "codec"), None, "settings.codec must be the identity of codecs"),
        ((*TEXT, "identity"), 3, "settings.text.identity must be"),
        ((*TEXT, "dim"), 0, "settings.text.dim must be a whole number, at least 1"),
        (("empty", "crc32"), "x", "empty.crc32 must be a sum"),
        (("empty",), ..., "empty.crc32 must be a sum"),
    ],
)
def test_a_value_of_another_kind_is_told_with_file_and_key(
    latents: Path, tmp_path: Path, path: tuple[str | int, ...], value: Any, words: str
) -> None:
    index = changed(latents, tmp_path / "z", *path, to=value) / "index.json"
    with pytest.raises(ValueError) as told:
        read_index(index)
    assert str(told.value).startswith(str(index)) and words in str(told.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", '"x"', "[" * 100_000, '{"settings": {}}', "\ufeff{}"])
def test_another_file_is_no_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/index.json .*an index of shards"):
        read_index(tmp_path / "index.json")


@pytest.mark.parametrize(
    "name", ["../victim.tar", "{outside}/victim.tar", "..", "a/b.tar", ".victim.tar", "a\0.tar", 7]
)
def test_no_name_in_an_index_leads_outside(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: Any
) -> None:
    """The tar that is named is there and whole: only its name is at fault."""
    victim, out = tmp_path / "victim.tar", tmp_path / "made" / "out"
    name = name.format(outside=tmp_path) if isinstance(name, str) else name
    hostile = changed(clips, tmp_path / "shards", "shards", 0, "name", to=name)
    shutil.copy(hostile / "shard-000000.tar", victim)
    (tmp_path / "made").mkdir()
    shutil.copy(victim, tmp_path / "made" / "victim.tar")
    before = {path: path.read_bytes() for path in tmp_path.rglob("victim.tar")}
    assert cli.main(["shards", "encode", str(hostile), "-o", str(out)]) == 1
    assert "index.json: shards.0.name names" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("victim.tar")} == before


@pytest.mark.parametrize(
    "names", [[".."], ["../other"], ["/"], [""], [], {}, "x", [3], ["9x16x16", "9x16x16"], [".hidden"]]
)
def test_no_bucket_leads_outside(clips: Path, tmp_path: Path, names: Any) -> None:
    (tmp_path / "buckets.json").write_text(json.dumps({"buckets": names}))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/buckets.json "):
        buckets_in(tmp_path)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/buckets.json "):
        encode_shards(tmp_path, tmp_path / "a/b/z", Codec(MeanVideo(), MeanAudio()), GRID)
    assert not (tmp_path / "a").exists()


def test_clips_of_a_size_that_no_codec_here_takes_are_named(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = changed(clips, tmp_path / "odd", "settings", "grid", "height", to=24)
    assert cli.main(["shards", "encode", str(odd), "-o", str(tmp_path / "z")]) == 1
    assert f"ccl: {odd} cannot be read as clips for these codecs (grid.height is 24;" in capsys.readouterr().err
    (tmp_path / "buckets.json").write_text('{"buckets": ["odd"]}')
    with pytest.raises(ValueError, match=rf"^{odd} cannot be read as a bucket for this model \(grid.height is 24;"):
        encode_shards(tmp_path, tmp_path / "z", Codec(MeanVideo(), MeanAudio()), GRID)
