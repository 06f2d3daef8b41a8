"""What the page sends and what comes of it, without the page."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccl.cli import main
from ccl.cli.errors import UsageError
from ccl.data.world import World
from ccl.evaluation.metrics.mouth import correlate, envelope, found, opening
from ccl.files import MARK
from ccl.guidance import UCG2, UCG3, TextCFG
from ccl.media import Clip, read_clip, write_wav
from ccl.rows import MEDIA
from ccl.serve import GIVEN, OWN, Asked, Bounds, Desk, Folder, Side, curves
from ccl.serve.desk import ENDING
from ccl.serve.page import MISSING, another, sentence
from ccl.serve.verb import password_of
from ccl.serve.visitors import is_loopback
from ccl.types import AV, Scale
from helpers.tiny import tiny_pipeline

OWN_RULE = UCG2(Scale(4.0, 3.0))


def test_a_request_becomes_a_row_and_settings() -> None:
    asked = Asked('a man says "hi"', "blur", {"voice": "/x/v.wav", "image": None}, "pictures alone", 12.5)
    row = asked.row(Side(seed=7.0), "a")
    assert (row.prompt, row.negative, row.voice, row.image, row.seed) == (asked.prompt, "blur", "/x/v.wav", None, 7)
    settings = asked.settings(Side(steps=5.0), OWN_RULE, Bounds())
    assert settings == {"wanted": AV(True, False), "guidance": OWN_RULE, "steps": 5, "seconds": 12.5}


def test_fields_that_are_left_empty_are_the_models_own() -> None:
    settings = Asked("a", seconds=0).settings(Side(), OWN_RULE, Bounds())
    assert settings == {"wanted": AV(True, True), "guidance": OWN_RULE, "steps": None, "seconds": None}
    assert Asked("a").row(Side(), "a").seed == 0


def test_guidance_takes_the_strengths_that_are_said_and_the_models_for_others() -> None:
    assert Side("text_cfg").rule(OWN_RULE).record() == TextCFG(Scale(4.0, 3.0)).record()
    assert Side(OWN, "1", " 2.0 ", "", "").rule(OWN_RULE).record() == UCG2(Scale(1.0, 2.0)).record()
    three = Side("ucg3", 1.0, 2.0, 5.0, 6.0).rule(OWN_RULE)
    assert three.record() == UCG3(Scale(1.0, 2.0), Scale(5.0, 6.0)).record()


@pytest.mark.parametrize(
    ("asked", "side", "said"),
    [
        ({"prompt": " \n"}, {}, "the prompt is empty; say what is to be seen and heard"),
        ({"prompt": "a\ud800"}, {}, "^the prompt "),
        ({"prompt": "a" * 10_001}, {}, "^the prompt has 10,001 letters; here 10,000 are the most"),
        ({"prompt": "a", "negative": "a" * 10_001}, {}, "^the negative prompt has 10,001 letters"),
        ({"prompt": "a"}, {"seed": 1.5}, "seed is 1.5; here it must be a whole number from 0 to"),
        ({"prompt": "a"}, {"seed": float("nan")}, "seed is nan"),
        ({"prompt": "a"}, {"steps": 101}, "steps is 101; here it must be a whole number from 1 to 100"),
        ({"prompt": "a", "seconds": 31}, {}, "seconds is 31; here it must be a number from 0 to 30"),
        ({"prompt": "a", "seconds": "x" * 99}, {}, "seconds is x{40}; here"),
        ({"prompt": "a"}, {"video": "inf", "audio": "1"}, "the scale is inf; here it must be a number from -1000"),
        ({"prompt": "a", "wanted": "smell"}, {}, "'smell' cannot be made; there are: pictures and sound"),
        ({"prompt": "a"}, {"guidance": "ucg4"}, "there is no guidance 'ucg4' .did you mean"),
        ({"prompt": "a"}, {"video": 2.0}, "the scale is said of one stream alone"),
        ({"prompt": "a"}, {"modal_video": 2.0, "modal_audio": 1.0}, "guidance 'UCG2' has no such strength: modal"),
        ({"prompt": "a", "given": {"video": "v", "image": "i"}}, {}, "^a first image and a whole video are both given"),
        ({"prompt": "a", "given": {"smell": "v"}}, {}, "there is no medium 'smell' to give"),
    ],
)
def test_what_does_not_fit_is_said_in_the_pages_words(asked: dict[str, Any], side: dict[str, Any], said: str) -> None:
    one = Asked(**asked)
    with pytest.raises(ValueError, match=said):
        one.row(Side(**side), "clip-1"), one.settings(Side(**side), OWN_RULE, Bounds())


def test_every_medium_of_a_row_has_a_place_on_the_page() -> None:
    assert tuple(GIVEN) == MEDIA


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = Folder(tmp_path / "kept")
    folder.make()
    return Desk(tiny_pipeline(), folder)


def test_a_desk_makes_what_the_pipeline_makes_with_a_record_beside_it(desk: Desk) -> None:
    told = list[tuple[int, int]]()
    sides = (Side(seed=3, steps=2), Side("none", seed=3, steps=2))
    one, other = desk.make(Asked("a man", sides=sides), lambda done, steps: told.append((done, steps)))
    own = desk.pipe("a man", seed=3, steps=2)
    own.save(desk.folder.root / "own.mp4")
    assert one.path.read_bytes() == (desk.folder.root / "own.mp4").read_bytes() != other.path.read_bytes()
    assert json.loads(other.record.read_text())["guidance"] != json.loads(one.record.read_text())["guidance"]
    assert one.drawing.startswith("<svg") and told[-1] == (4, 4) and sorted(told) == told


def test_sound_alone_is_a_wav(desk: Desk) -> None:
    (made,) = desk.make(Asked("a drum", wanted="sound alone"))
    assert made.path.suffix == ".wav" and read_clip(made.path, require=AV(False, True)).audio is not None


def test_records_notes_and_errors_name_an_upload_as_it_was_sent(desk: Desk) -> None:
    sent = desk.folder.uploads / "0123abc" / "voice.wav"
    sent.parent.mkdir()
    write_wav(sent, np.sin(np.arange(32_000) / 9).astype(np.float32) / 4)
    (made,) = desk.make(Asked("a man", given={"audio": str(sent)}))
    record = json.loads(made.record.read_text())
    assert record["audio"] == "voice.wav" and str(desk.folder.root) not in made.record.read_text()
    assert made.notes == record["notes"] and any(note.startswith("voice.wav ") for note in made.notes)
    sent.write_bytes(b"no sound at all")
    with pytest.raises(ValueError, match=r"^voice\.wav: is not a media file|^voice\.wav: "):
        desk.make(Asked("a man", given={"audio": str(sent)}))
    assert desk.make(Asked("a man"))[0].path.is_file()  # the next one is served
    odd = sent.with_name("\u202egnp.exe")  # which a library writes in escapes
    odd.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is not a picture") as told:
        desk.make(Asked("a man", given={"image": str(odd)}))
    assert str(desk.folder.root) not in str(told.value)


def test_what_nobody_foresaw_is_not_told_to_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    told = sentence(RuntimeError("secret"))
    assert "secret" not in told and "RuntimeError" in told and "secret" in capsys.readouterr().err
    assert sentence(ValueError("in words")) == "in words"


def test_a_full_disk_is_told_to_the_page_and_with_its_place_in_a_sentence_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/clip.mp4")
    told, said = sentence(full), capsys.readouterr().err
    assert os.strerror(errno.ENOSPC) in told and "secret" not in told
    assert said == f"ccl: /secret/clip.mp4: {os.strerror(errno.ENOSPC)}\n"


def test_a_folder_keeps_the_newest_within_its_bound_and_nothing_that_is_old(tmp_path: Path) -> None:
    folder = Folder(tmp_path, most=250, age=5000.0)
    folder.make()
    now = 1e9
    paths = [folder.uploads / "aa" / "0.wav", *(folder.clips / f"{i}.mp4" for i in range(1, 5))]
    for place, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (now, now + 1000 * place))
    assert folder.clean(now + 4500) == paths[:3]  # 500 bytes: of 250, two fit
    assert not (folder.uploads / "aa").exists() and folder.clips.is_dir()
    assert folder.clean(now + 8500) == [paths[3]]  # too old
    paths[3].write_bytes(bytes(1000))
    os.utime(paths[3], (now + 9000, now + 9000))
    assert folder.clean(now + 9001) == [paths[4]]
    assert paths[3].exists()  # it has just come


def test_names_of_clips_cannot_be_guessed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert len({folder.new(".mp4") for _ in range(100)}) == 100
    folder.make()
    assert (folder.clips.stat().st_mode & 0o77) == 0


def test_a_server_begins_without_what_a_kill_left_half_made(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    (folder.uploads / "ab").mkdir()
    kept = [folder.clips / "clip-1.mp4", folder.clips / "clip-1.json", folder.uploads / "ab/tmp.wav"]
    left = [folder.clips / f"{MARK}clip-2.mp4", folder.clips / "clip-3.wav", folder.uploads / "tmp123"]
    for path in (*kept, *left):
        path.touch()
    folder.make()
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)


@pytest.mark.parametrize("name", ["clips/clip-holiday.mp4", "uploads/ab/old.wav"])
def test_a_folder_with_files_of_a_users_own_is_refused_and_they_stay(tmp_path: Path, name: str) -> None:
    """As with `--folder .` in a project that has clips: a server empties these folders of what is old."""
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.touch()
    os.utime(own, (0, 0))
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^{tmp_path}/{name.split('/')[0]} holds files that are no server's"):
            Folder(tmp_path).make()
    assert own.is_file()


def test_a_server_that_is_ended_leaves_nothing_of_the_clip_that_it_makes(desk: Desk) -> None:
    with pytest.raises(ValueError, match=ENDING):
        desk.make(Asked("a man", sides=(Side(steps=2),)), lambda done, steps: desk._ended.set())
    desk.end()  # waits for no one
    assert list(desk.folder.clips.iterdir()) == []


def test_two_clips_side_by_side_begin_with_different_rules() -> None:
    assert another("ucg2") == "text_cfg" and another("text_cfg") == "none"


def test_under_a_clip_stand_its_mouth_and_sound_or_its_waveform() -> None:
    world = World(seed=0, split="train")
    clip = next(clip for clip in map(world.clip, range(20)) if found(opening(clip.video)))
    mouth = opening(clip.video)
    r = correlate(mouth, envelope(clip.audio, np.arange(len(mouth) + 1) / clip.fps, clip.sample_rate))
    assert f"they correlate by {r:.2f}" in curves(clip) and r > 0.3
    assert "the mouth's opening<" in curves(Clip(clip.video, None))
    grey = Clip(np.full((9, 16, 16, 3), 99, np.uint8), clip.audio[:5760])
    assert "no mouth was found" in curves(grey) and curves(grey).count("<path") == 1
    assert curves(Clip(grey.video, None)) == ""


def test_only_this_machine_is_served_without_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.com", "")))
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host is 0.0.0.0, which others reach, and no password is given" in capsys.readouterr().err


def test_a_name_that_is_allowed_is_a_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--allow-host", "page.example", "--allow-host", "https://page.example"]) == 2
    assert "--allow-host is https://page.example; here it must be a host's name alone" in capsys.readouterr().err


def test_a_password_comes_from_the_command_line_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password.txt"
    file.write_text("ann:from:file\n")
    assert password_of("ann:x", file, "ann:y") == ("ann", "x")
    assert password_of(None, file, "ann:y") == ("ann", "from:file")
    file.write_text("\ufeffann : from file\n")  # as an editor of Windows' writes it; gradio strips names that are typed
    assert password_of(None, file, None) == ("ann", " from file")
    file.write_bytes("ann:ü".encode("latin-1"))
    with pytest.raises(UsageError, match=r"--password-file .*password\.txt cannot be read \(it is no UTF-8 text\)"):
        password_of(None, file, None)
    assert password_of(None, None, "ann:y") == ("ann", "y")
    assert password_of(None, None, None) is None
    for wrong in ("", "ann", "ann:", ":x"):
        with pytest.raises(UsageError, match="CCL_SERVE_PASSWORD must be USER:PASSWORD"):
            password_of(None, None, wrong)
    with pytest.raises(UsageError, match=r"none\.txt cannot be read \(No such file"):
        password_of(None, tmp_path / "none.txt", None)


def test_where_gradio_is_not_installed_it_is_said_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # it is set, and put back
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert main(["serve"]) == 1
    assert MISSING in capsys.readouterr().err
