# ruff: noqa: RUF001 - quotes of many languages
"""Clips are described once, in a table that becomes prompts; the words of their quotes are those that are heard."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccl import cli
from ccl.cli import captioners
from ccl.data.captioning import checked, enlarged, read_described, write_captions
from ccl.data.captions import captioned
from ccl.data.world import World
from ccl.evaluation.metrics.wer import word_errors
from ccl.evaluation.speech import quoted, saying, spoken, unclear, unquoted
from ccl.files import add_line
from ccl.grid import Grid
from ccl.media import Clip, MediaError, read_clip
from ccl.types import AV
from helpers import ROOT
from helpers.forked import call, start
from helpers.tiny_captioners import tiny_blip, tiny_llava
from helpers.tiny_clips import TINY, tiny_clip, tiny_folder

SHAPE = ["--frames", "9", "--height", "16", "--width", "16"]
TEXTS = st.text(st.sampled_from("ab .!'\"’‘“”„«»「」<SE>5。"), max_size=20)


@pytest.fixture
def clips(tmp_path, monkeypatch) -> Path:
    """Four clips without captions in the folder `clips` of the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tiny_folder(tmp_path / "clips", 4)
    for text in folder.glob("*.txt"):
        text.unlink()
    return folder


@pytest.fixture
def captioner(tmp_path, request) -> str:
    """A module of the user's, in the working directory; its name, which no other test's has."""
    name = f"captioner_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(
        "import os, signal\n"
        "class Count:\n"
        "    def __call__(self, clip):\n"
        "        with open('calls', 'a') as file:\n"
        "            file.write(clip.id + '\\n')\n"
        "        if clip.id in os.environ.get('DIES_AT', ''):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        if clip.id in os.environ.get('FAILS_AT', ''):\n"
        "            raise RuntimeError('a bad day')\n"
        "        return f'A square\\nbefore a wall, {len(clip.video)} pictures of {clip.id}'\n"
        "def number(clip):\n"
        "    return 5\n"
        "class Broken(Count):\n"
        "    def __init__(self):\n"
        "        raise OSError('no key')\n"
        "text = 'no callable'\n"
    )
    return name


def rows(file: str | Path = "clips/captions.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def told(*numbers: int) -> list[dict]:
    """What `Count` says of these clips, as rows."""
    names = [f"clip{number}.mp4" for number in numbers]
    return [{"file": name, "prompt": f"A square before a wall, 9 pictures of {name}"} for name in names]


def caption(*argv: str) -> int:
    return cli.main(["shards", "caption", "clips", *SHAPE, *argv])


# Quotes ---------------------------------------------------------------------------------------------------------------


@given(words=TEXTS, description=TEXTS)
def test_what_is_said_in_a_caption_is_read_back_from_it(words, description):
    clean = " ".join(words.replace('"', "").split())
    caption = saying(words, description)
    assert spoken("", " ".join(caption.split())) == clean
    if not clean:
        assert unclear(caption) == ""


@given(TEXTS)
def test_without_its_quotes_a_text_says_nothing(text):
    assert list(quoted(unquoted(text))) == [] and unclear(unquoted(text)) == ""
    assert text.translate(str.maketrans("", "", "'\"’‘“”„«»「」<SE>")) in [
        unquoted(text).translate(str.maketrans("", "", "'’‘<SE>"))
    ]


def test_captions_are_worded_as_prompts_are():
    assert saying("Good morning.", "a man waves") == 'a man waves. Someone says "Good morning."'
    assert saying("Good morning.", "A man waves!") == 'A man waves! Someone says "Good morning."'
    assert saying("Good morning") == 'Someone says "Good morning"'
    own = 'A man waves and says, "Good morning."'
    assert saying("Good morning.", own) == own, "who weaves the words in is left alone"
    assert saying("", own) == "A man waves and says, Good morning.", "nobody was heard"
    sign = """A sign reads "STOP", don't, a 24" screen"""
    assert saying("Go", sign) == """A sign reads STOP, don't, a 24 screen. Someone says "Go\""""


def test_the_captioner_of_the_docs_takes_a_clip():
    text = (ROOT / "docs/training.md").read_text()
    (code,) = [block.partition("```")[0] for block in text.split("```python\n") if block.startswith("def describe")]
    module: dict[str, Any] = {}
    exec(code, module)
    assert module["describe"](tiny_clip(0)) in ("A bright scene, loud", "A dark scene, loud")


# The table ------------------------------------------------------------------------------------------------------------


def test_captions_of_a_folder_become_the_prompts_of_its_shards(clips, captioner, capsys):
    assert caption("--captioner", f"{captioner}:Count", "--transcribe", "none") == 0
    assert "4 clips described, 0 with a caption before, 0 without" in capsys.readouterr().out
    assert rows() == told(0, 1, 2, 3)
    make = ["shards", "make", "clips", "-o", "out", "--captions", "clips/captions.jsonl", *SHAPE]
    assert cli.main(make) == 0
    assert [clip.prompt for clip in captioned(Path("out"))] == [row["prompt"] for row in told(0, 1, 2, 3)]


def test_a_caption_that_is_there_is_kept_and_a_row_keeps_what_else_it_says(clips, captioner):
    (clips / "clip0.txt").write_text('A hand wrote\n"this"\n')
    kept = [
        {"file": "./clip2.mp4", "prompt": "Mine", "note": "x"},
        {"file": "clip1.mp4", "prompt": " ", "voice": "clip3.mp4"},
    ]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept).rstrip())
    argv = ["-o", "mine.jsonl", "--captioner", f"{captioner}.Count", "--transcribe", "none"]
    assert caption(*argv) == 0
    assert Path("calls").read_text().split() == ["clip1.mp4", "clip3.mp4"]
    assert rows("mine.jsonl") == [
        kept[0],
        {**told(1)[0], "voice": "clip3.mp4"},
        {"file": "clip0.mp4", "prompt": 'A hand wrote "this"'},
        *told(3),
    ]
    before = Path("mine.jsonl").read_text()
    assert caption(*argv[:3], f"{captioner}.Broken", *argv[4:], "--overwrite") == 2
    assert Path("mine.jsonl").read_text() == before, "nobody was there to describe them again"
    assert caption(*argv, "--overwrite") == 0
    by_file = {row["file"].removeprefix("./"): row for row in rows("mine.jsonl")}
    assert [by_file[f"clip{i}.mp4"]["prompt"] for i in range(4)] == [row["prompt"] for row in told(0, 1, 2, 3)]
    assert by_file["clip1.mp4"]["voice"] == "clip3.mp4" and by_file["clip2.mp4"]["note"] == "x"


def test_a_run_that_was_killed_goes_on_and_describes_nothing_twice(clips, captioner):
    argv = ["--captioner", f"{captioner}:Count", "--transcribe", "none"]
    killed = start(caption, *argv, DIES_AT="clip2.mp4")
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert rows() == told(0, 1) and Path("clips/captions.jsonl").read_text().endswith("\n")
    assert caption(*argv) == 0
    assert rows() == told(0, 1, 2, 3)
    assert Path("calls").read_text().split() == [f"clip{i}.mp4" for i in (0, 1, 2, 2, 3)]
    assert sorted(path.name for path in clips.iterdir() if path.name.startswith(".")) == []
    Path("calls").unlink()
    assert caption(*argv) == 0 and not Path("calls").exists(), "nothing is left to do"


def test_half_a_line_at_the_end_is_done_again_and_another_fault_is_told(clips, captioner, capsys):
    argv = ["--captioner", f"{captioner}:Count", "--transcribe", "none"]
    whole = "".join(json.dumps(row) + "\n" for row in told(0, 1))
    (clips / "captions.jsonl").write_text(whole + '{"file": "clip2.mp4", "pro')
    assert caption(*argv) == 0
    assert rows() == told(0, 1, 2, 3)
    (clips / "captions.jsonl").write_text('{"file": \n' + whole)
    assert caption(*argv) == 1
    assert "captions.jsonl, line 1: is not JSON" in capsys.readouterr().err
    assert (clips / "captions.jsonl").read_text() == '{"file": \n' + whole


def test_clips_that_fail_are_told_by_name_and_the_others_are_written(clips, captioner, capsys, monkeypatch):
    (clips / "clip1.mp4").write_bytes(b"no film")
    tiny_clip(5, seconds=0.1).save(clips / "short.mp4")
    monkeypatch.setenv("FAILS_AT", "clip2.mp4")
    argv = ["--captioner", f"{captioner}:Count", "--transcribe", "none"]
    assert caption(*argv) == 1
    said = capsys.readouterr().out
    assert "2 clips described, 0 with a caption before, 3 without" in said
    assert f"no caption of clip2.mp4: {captioner}.py, line 9: RuntimeError: a bad day" in said
    assert "no caption of clip1.mp4: " in said and "no caption of short.mp4: too short" in said
    assert rows() == told(0, 3)
    monkeypatch.delenv("FAILS_AT")
    assert caption(*argv) == 1 and rows() == told(0, 3, 2)


def test_trouble_of_the_machine_is_no_result_of_a_clip(clips, tmp_path):
    def out_of_memory(clip: Clip) -> str:
        raise MemoryError

    with pytest.raises(OSError, match=r"^clip clip0\.mp4: .*the same command goes on"):
        write_captions(clips, tmp_path / "c.jsonl", lambda: partial(captioners.told, out_of_memory), grids=[TINY])


def add_where_there_is_room(file: Path, room: int) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + room,) * 2)
    try:
        add_line(file, "another line")
    except OSError as error:
        return str(error.filename)
    return ""


@pytest.mark.parametrize("room", [0, 1, 12, 13])
def test_a_line_is_added_whole_or_not_at_all(tmp_path, room):
    file = tmp_path / "lines"
    file.write_text("a line\n")
    failed = call(add_where_there_is_room, file, room)
    assert file.read_text() == ("a line\n" if room < 13 else "a line\nanother line\n")
    assert failed == (str(file) if room < 13 else "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--captioner", "{}:Counts"], "has no 'Counts' (did you mean 'Count'?)"),
        (["--captioner", "nobody:describe"], "there is no module 'nobody'"),
        (["--captioner", "{}"], "it must be module:callable, or hf:MODEL"),
        (["--captioner", "hf:"], "without a model"),
        (["--captioner", "hf:nowhere/at all"], "transformers cannot run nowhere/at all as image-text-to-text"),
        (["--captioner", "{}:text"], "cannot be called; it must take a clip"),
        (["--captioner", "{}:Broken"], "cannot be made: "),
        (["--captioner", "{}:Count", "--pictures", "3"], "--pictures and --question are for hf:MODEL"),
        (["--captioner", "{}:Count", "-o", "c.csv"], "the name must end in .jsonl"),
        (["--captioner", "{}:Count", "--transcribe", "huge"], "--transcribe: Whisper has no size 'huge'"),
        (["--captioner", "{}:Count", "--buckets", "8x16x16"], "--buckets: bucket 8x16x16"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(clips, captioner, capsys, monkeypatch, argv, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    speech = [] if "--transcribe" in argv else ["--transcribe", "none"]
    assert caption(*(arg.format(captioner) for arg in argv), *speech) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not Path("calls").exists()


def test_what_is_no_text_is_no_caption(clips, captioner, capsys):
    assert caption("--captioner", f"{captioner}:number", "--transcribe", "none") == 1
    assert f"clip0.mp4: {captioner}.number returned int; it must return text" in capsys.readouterr().out
    for text, words in ((" \n", "nothing was said"), ("a\0b", "holds a NUL"), ("a\ufffd", "holds U\\+FFFD")):
        with pytest.raises(ValueError, match=words):
            checked(text)


# What is described ----------------------------------------------------------------------------------------------------


def test_what_is_described_is_the_beginning_and_the_crop_that_is_trained_on(tmp_path):
    """Larger by a whole number, so that means of blocks of pixels are the pictures of the shards."""
    tiny_clip(3, Grid(frames=33, height=80, width=112)).save(file := tmp_path / "a.mp4")
    clip = read_described(file, [TINY], "a.mp4")
    trained = read_clip(file, grid=TINY)
    assert clip.video.shape == (9, 80, 80, 3) and clip.id == "a.mp4"
    assert np.array_equal(clip.audio, trained.audio)
    means = clip.video.reshape(9, 16, 5, 16, 5, 3).mean((2, 4))
    assert np.abs(means - trained.video).mean() < 4  # of 255; the resampling reaches into the blocks beside
    several = read_described(
        file, [TINY, Grid(frames=17, height=16, width=32), Grid(frames=17, height=32, width=48)], ""
    )
    assert several.video.shape == (17, 64, 96, 3), "of the bucket nearest in shape"


def test_pictures_are_enlarged_as_far_as_the_file_and_memory_go():
    grid = Grid(frames=81, fps=16.0, height=352, width=640)
    assert enlarged(grid, 200, 300) == grid
    assert (enlarged(grid, 1080, 1920).height, enlarged(grid, 2160, 3840).width) == (704, 1280)
    assert 3 * 81 * 704 * 1280 <= 2**28 < 3 * 81 * 1056 * 1920


def test_a_clip_that_lacks_a_stream_is_described_by_the_other(tmp_path):
    mute, sound = tmp_path / "mute.mp4", tmp_path / "sound.wav"
    whole = tiny_clip(1)
    Clip(whole.video, None, whole.fps).save(mute)
    Clip(None, whole.audio, sample_rate=whole.sample_rate).save(sound)
    assert read_described(mute, [TINY], "m").audio is None
    whole.save(tmp_path / "whole.mp4")
    assert read_described(tmp_path / "whole.mp4", [TINY], "w", mute=True).audio is None, "by its caption"
    heard = read_described(sound, [TINY], "s")
    assert heard.video is None and len(heard.audio) == TINY.samples
    with pytest.raises(MediaError, match="too short"):
        read_described(sound, [Grid()], "s")


# Whisper --------------------------------------------------------------------------------------------------------------


def hears(clip: Clip) -> str:
    """A Whisper that hears words in anything."""
    return "Hello there"


def describe(clip: Clip) -> str:
    return "A person" if clip.meta["speech"] else "Nobody speaks"


def test_nothing_is_heard_where_nobody_speaks(capsys, monkeypatch):
    clip = tiny_clip(0)
    with_words = captioners.Spoken(describe, hears)
    assert with_words(clip) == 'A person. Someone says "Hello there"'
    assert ("note: Whisper alone" in capsys.readouterr().err) is (with_words.vad is None)
    for silent in (None, clip.audio * 1e-4):
        assert with_words(Clip(clip.video, silent)) == "Nobody speaks"
    for share, words in ((0.0, "Nobody speaks"), (0.3, 'A person. Someone says "Hello there"')):
        monkeypatch.setattr("ccl.evaluation.vad.VAD.missing", lambda self: "")
        monkeypatch.setattr("ccl.evaluation.vad.VAD.share", lambda self, sound, share=share: share)
        assert captioners.Spoken(describe, hears)(clip) == words


def test_words_of_the_world_come_back_from_the_prompts_of_its_shards(tmp_path, monkeypatch):
    """A listener that knows them: from a clip's sound to the quotes of a prompt in a shard nothing is lost."""
    world, folder = World(), tmp_path / "clips"
    folder.mkdir()
    said = {}
    for number in range(2):
        clip = world.clip(number)
        clip.save(folder / f"{number}.mp4")
        said[f"{number}.mp4"] = spoken("", clip.prompt)

    def begin() -> captioners.Spoken:
        return captioners.Spoken(lambda clip: 'A person before a wall that reads "no"', lambda clip: said[clip.id])

    write_captions(folder, tmp_path / "c.jsonl", begin, grids=[Grid()])
    make = ["shards", "make", str(folder), "-o", str(tmp_path / "out"), "--captions", str(tmp_path / "c.jsonl")]
    assert cli.main(make) == 0
    assert [spoken("", clip.prompt) for clip in captioned(tmp_path / "out")] == list(said.values()) != ["", ""]


def test_whisper_hears_kennedy_and_no_words_in_blows(tmp_path, monkeypatch, captioner):
    data = os.environ.get("CCL_TEST_DATA")
    if data is None:
        pytest.skip("CCL_TEST_DATA is not set: no weights of Whisper")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAILS_AT", raising=False)
    Path("clips").mkdir()
    sound = read_clip(Path(data) / "clips/jfk.flac", require=AV(False, True)).audio
    picture = np.full((275, 32, 32, 3), 90, np.uint8)
    Clip(picture, sound[: 16_000 * 11]).save("clips/jfk.mp4")
    shutil.copy(Path(data) / "clips/condfoley_hitting_metal.mp4", "clips/blows.mp4")
    argv = ["--captioner", f"{captioner}:Count", "--transcribe", str(Path(data) / "weights/whisper-tiny.en.pt")]
    # 3.6 s, in which "ask not" is not reached yet: what is cut away is not in the caption.
    assert cli.main(["shards", "caption", "clips", "--frames", "45", "--fps", "12.5", *SHAPE[2:], *argv]) == 0
    blows, jfk = rows()
    assert jfk["prompt"].startswith('A square before a wall, 45 pictures of jfk.mp4. Someone says "')
    assert word_errors("And so my fellow Americans", spoken("", jfk["prompt"])) == (0, 5)
    assert blows["prompt"] == "A square before a wall, 45 pictures of blows.mp4"


# transformers ---------------------------------------------------------------------------------------------------------


def test_a_model_of_transformers_is_shown_pictures_in_a_chat(clips, tmp_path, monkeypatch):
    model = tiny_llava(tmp_path / "llava")
    assert (
        caption("--captioner", f"hf:{model}", "--transcribe", "none", "--question", "describe", "--pictures", "2") == 0
    )
    assert [row["file"] for row in rows()] == [f"clip{i}.mp4" for i in range(4)]
    clip = read_described(clips / "clip0.mp4", [TINY], "clip0.mp4")
    captioner = captioners.Hugging(str(model), question="describe")
    asked = []
    monkeypatch.setattr(captioner, "pipe", lambda **how: asked.append(how) or [{"generated_text": "a red ball"}])
    assert captioner(clip) == "a red ball" and captioner(Clip(None, clip.audio)) == ""
    (message,) = asked[0]["text"]
    shown = [np.asarray(part["image"]) for part in message["content"][:-1]]
    assert [frame.tolist() for frame in shown] == [clip.video[place].tolist() for place in (1, 3, 5, 7)]
    assert message["content"][-1] == {"type": "text", "text": "describe"}


def test_a_model_that_takes_no_chat_goes_on_from_a_beginning(clips, tmp_path, capsys):
    model = tiny_blip(tmp_path / "blip")
    assert caption("--captioner", f"hf:{model}", "--transcribe", "none", "--question", "a man") == 0
    assert all(row["prompt"].startswith("a man ") and len(row["prompt"]) > 6 for row in rows())
    assert caption("--captioner", f"hf:{model}", "--transcribe", "none", "--pictures", "2", "--overwrite") == 2
    assert "takes no chat, and so one picture" in capsys.readouterr().err
