"""Reference voices of own clips: named in the captions, kept in shards and latents, given in training."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ccl import cli
from ccl.data import ShardData
from ccl.data.encode import encode_shards
from ccl.data.shards import Shards
from ccl.data.sources import folder_sources
from ccl.data.voices import Kept, encoded
from ccl.data.write import shards_make, write_shards
from ccl.files import FileError
from ccl.media import MediaError, write_clip, write_wav
from ccl.text.embedded import EmbeddedText
from ccl.types import AV, VOICE, VOICE_SECONDS
from helpers.encoded import make_codec
from helpers.fakes import GRID
from helpers.tiny_clips import tiny_sources

LENGTH = round(VOICE_SECONDS * GRID.sample_rate)


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * GRID.sample_rate)) / GRID.sample_rate)).astype(
        np.float32
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two clips, the first of them with a voice that lies beside them."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, source in zip("ab", tiny_sources(2, GRID), strict=True):
        write_clip(source.load(), folder / f"{name}.mp4")
    write_wav(folder / "speaker.wav", tone(440))
    (folder / "captions.csv").write_text("file,prompt,voice\na.mp4,a man,speaker.wav\nb.mp4,a bell,\n")
    return folder


def made(videos: Path, out: Path) -> Path:
    shards_make(videos, out, captions=videos / "captions.csv", grid=GRID)
    return out


def test_a_voice_goes_with_its_clip_into_shards_and_latents_and_is_told_in_training(
    videos: Path, tmp_path: Path
) -> None:
    encode_shards(made(videos, tmp_path / "clips"), tmp_path / "z", make_codec(), GRID)
    for folder in ("clips", "z"):
        data = ShardData(str(tmp_path / folder), GRID, make_codec(), batch_size=2, shuffle=0)
        data.serve(AV(True, True), EmbeddedText(dim=8), (VOICE,))
        batch = next(iter(data.train_dataloader()))
        heard = dict(zip(batch.id, batch.extras[VOICE].numpy(), strict=True))
        assert heard["a"].shape == (LENGTH,) and not heard["b"].any()
        spectrum = np.abs(np.fft.rfft(heard["a"]))
        assert spectrum.argmax() / VOICE_SECONDS == pytest.approx(440, abs=2)
        assert np.abs(heard["a"]).max() == pytest.approx(0.3, rel=0.1)


def test_a_sound_that_is_a_voice_alone_makes_no_clip(videos: Path) -> None:
    sources = folder_sources(videos, videos / "captions.csv", grid=GRID)
    assert [source.id for source in sources] == ["a.mp4", "b.mp4"]
    assert [source.voice is None for source in sources] == [False, True]
    old = (videos / "captions.csv").read_text().replace("speaker.wav", "")
    (videos / "captions.csv").write_text(old)
    others = folder_sources(videos, videos / "captions.csv", grid=GRID)
    assert [source.id for source in others] == ["a.mp4", "b.mp4", "speaker.wav"]  # which is skipped, with the reason
    assert sources[0].fingerprint != others[0].fingerprint and sources[1].fingerprint == others[1].fingerprint


@pytest.mark.parametrize(
    ("voice", "words"),
    [
        ("a.mp4", r"captions.csv, line 2: its voice is the file itself; it must be another one, with other words"),
        ("gone.wav", r"captions.csv, line 2: gone.wav is not in"),
        ("../speaker.wav", r"captions.csv, line 2: ../speaker.wav is not in .*, but outside of it"),
    ],
)
def test_a_voice_that_is_none_is_told_with_its_line(videos: Path, voice: str, words: str) -> None:
    (videos / "captions.csv").write_text(f"file,prompt,voice\na.mp4,a man,{voice}\nb.mp4,a bell,\n")
    with pytest.raises(ValueError, match=words):
        folder_sources(videos, videos / "captions.csv", grid=GRID)


def test_a_table_of_lines_names_voices_too(videos: Path) -> None:
    table = videos / "captions.jsonl"
    table.write_text('{"file": "a.mp4", "prompt": "a", "voice": "speaker.wav"}\n{"file": "b.mp4", "prompt": "b"}\n')
    assert [source.voice is None for source in folder_sources(videos, table, grid=GRID)] == [False, True]
    table.write_text('{"file": "a.mp4", "prompt": "a", "voice": 3}\n')
    with pytest.raises(ValueError, match=r"captions.jsonl, line 1: its `voice` must be text, the name of a file"):
        folder_sources(videos, table, grid=GRID)


def test_a_clip_whose_voice_is_silent_is_left_out_with_the_reason(videos: Path, tmp_path: Path) -> None:
    write_wav(videos / "speaker.wav", 0 * tone(440))
    report = shards_make(videos, tmp_path / "out", captions=videos / "captions.csv", grid=GRID)
    why = "its voice cannot be taken, the voice: nothing is heard in its first 1.5 s"
    assert report.skipped == [("a.mp4", why)] and report.written == 1


def test_a_damaged_voice_is_told_with_its_clip(videos: Path, tmp_path: Path) -> None:
    (shard,) = made(videos, tmp_path / "clips").glob("*.tar")
    with tarfile.open(shard) as tar:
        files = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(shard, "w") as tar:
        for member, data in files:
            tar.addfile(member, io.BytesIO(data[:-1] + b"x" if member.name.endswith("voice.mp4") else data))
    with pytest.raises(FileError, match=r"clip a: its voice.mp4 is corrupt \(its checksum differs\)"):
        list(Shards(tmp_path / "clips", GRID, shuffle=0, endless=False))


def test_a_voice_of_which_the_clips_json_has_no_sum_is_not_its_own(videos: Path, tmp_path: Path) -> None:
    (shard,) = made(videos, tmp_path / "clips").glob("*.tar")
    with tarfile.open(shard) as tar:
        files = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(shard, "w") as tar:
        for member, data in files:
            if member.name.endswith("json"):
                said = json.loads(data)
                said["crc32"].pop("voice.mp4", None)
                data = json.dumps(said).encode()
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert not any("voice" in sample for sample in Shards(tmp_path / "clips", GRID, shuffle=0, endless=False))


def test_shards_without_voices_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write_shards(tiny_sources(1, GRID), tmp_path / "clips", GRID)
    assert "voices" not in json.loads((tmp_path / "clips/index.json").read_text())["settings"]
    data = ShardData(str(tmp_path / "clips"), GRID, make_codec(), batch_size=1)
    with pytest.raises(ValueError, match=r"on 'voice', which is not known of the clips in .*; make the shards with"):
        data.serve(AV(True, True), EmbeddedText(dim=8), (VOICE,))


def test_what_is_no_voice_is_refused() -> None:
    with pytest.raises(MediaError, match="nothing is heard"):
        encoded(np.zeros(100, np.float32), GRID.sample_rate)
    with pytest.raises(MediaError):
        Kept()({"id": "a", "voice": b"none"}, GRID)
    assert not Kept()({"id": "a"}, GRID)[VOICE].any()


def test_the_command_takes_voices_from_the_captions(videos: Path, tmp_path: Path) -> None:
    size = ["--frames", str(GRID.frames), "--height", str(GRID.height), "--width", str(GRID.width)]
    line = ["shards", "make", str(videos), "-o", str(tmp_path / "out"), "--captions", str(videos / "captions.csv")]
    assert cli.main([*line, *size]) == 0
    assert json.loads((tmp_path / "out/index.json").read_text())["settings"]["voices"] is True
    assert cli.main(["shards", "verify", str(tmp_path / "out")]) == 0
