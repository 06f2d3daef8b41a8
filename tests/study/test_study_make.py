"""A study in a folder: blind, whole, made once, and never over another one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ccl import cli
from ccl.media import read_natural, resample
from ccl.study import read_key
from helpers.films import film
from helpers.studies import named_in, system

NAMES = ("alphasystem", "betasystem", "gammasystem", "truefolder")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("folders")
    for number, name in enumerate(NAMES):
        system(home / name, number)
    rows = [{"id": f"row{n}", "prompt": f"prompt {n} </script><b>", "speech": f"words {n}"} for n in range(4)]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


def command(folders: Path, out: Path, *more: str, systems: tuple[str, ...] = NAMES[:2]) -> list[str]:
    methods = [f"{name}={folders / name}" for name in systems]
    return ["study", "make", "--methods", *methods, "--question", "sync", "--raters", "3", "-o", str(out), *more]


def data_of(study: Path) -> dict:
    text = (study / "page/index.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def study(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "study"
    more = ("--reference", str(folders / "truefolder"), "--testset", str(folders / "rows.jsonl"))
    assert cli.main(command(folders, out, *more, systems=NAMES[:3])) == 0
    return out


def test_nothing_that_is_handed_out_names_a_system(study: Path, folders: Path) -> None:
    assert len(named_in(folders, *NAMES)) == 16, "the clips themselves say it"
    assert named_in(study / "page", *NAMES, "row0", "row1", "shuffled", str(folders)) == []
    assert named_in(study, "alphasystem") == [str(study / "key.json")]


def test_the_page_has_every_clip_that_it_shows_and_no_other(study: Path) -> None:
    key, data = read_key(study), data_of(study)
    shown = {name for trial in data["trials"] for name in trial["clips"]}
    assert shown == {path.stem for path in (study / "page/clips").iterdir()}
    assert [tuple(trial["clips"]) for trial in data["trials"]] == [trial.clips for trial in key.trials]
    assert set(data["trials"][0]) == {"clips", "prompt"} and data["study"] == key.study
    assert len([t for t in key.trials if not t.check]) == 12 and len(data["parts"]) == 3


def test_clips_are_those_of_their_systems(study: Path, folders: Path) -> None:
    for trial in (trial for trial in read_key(study).trials if trial.check != "shuffled"):
        for side, name in zip(trial.sides, trial.clips, strict=True):
            a = read_natural(folders / side / f"{trial.row}.mp4")[0]
            b = read_natural(study / "page/clips" / f"{name}.mp4")[0]
            assert np.array_equal(a.video, b.video) and np.array_equal(a.audio, b.audio)


def test_checks_are_one_clip_twice_and_true_pictures_with_other_sound(study: Path, folders: Path) -> None:
    checks = [trial for trial in read_key(study).trials if trial.check]
    assert sorted(trial.check for trial in checks) == ["same"] * 3 + ["shuffled"] * 3
    for trial in checks:
        one, other = (read_natural(study / "page/clips" / f"{name}.mp4")[0] for name in trial.clips)
        if trial.check == "same":
            assert trial.clips[0] == trial.clips[1]
            continue
        assert np.array_equal(one.video, other.video) and one.sample_rate == other.sample_rate
        right, wrong = (one, other) if trial.sides[0] == "true" else (other, one)
        true = [read_natural(folders / "truefolder" / f"row{n}.mp4")[0] for n in range(4)]
        sounds = [resample(clip.audio, clip.sample_rate, one.sample_rate) for clip in true]

        def nearest(clip, sounds=sounds) -> str:
            like = [np.corrcoef(clip.audio[:15_000], sound[:15_000])[0, 1] for sound in sounds]
            return f"row{int(np.argmax(like))}"

        assert nearest(right) == trial.row
        assert nearest(wrong) == next(side for side in trial.sides if side != "true") != trial.row


def test_the_same_command_makes_the_same_bytes_and_goes_on_where_it_stopped(folders: Path, tmp_path: Path) -> None:
    assert cli.main(command(folders, tmp_path / "one")) == 0
    whole = bytes_of(tmp_path / "one")
    (tmp_path / "one/page/index.html").unlink()
    (tmp_path / "one/key.json").unlink()
    clips = sorted((tmp_path / "one/page/clips").iterdir())
    clips[0].unlink()
    (clips[1].parent / ".partial-x-1-ab-y.mp4").write_bytes(b"half")
    kept = clips[2].stat().st_mtime_ns
    assert cli.main(command(folders, tmp_path / "one")) == 0
    assert bytes_of(tmp_path / "one") == whole and clips[2].stat().st_mtime_ns == kept


def test_another_study_is_never_written_over(folders: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(command(folders, tmp_path / "one")) == 0
    whole = bytes_of(tmp_path / "one")
    for more in (("--seed", "1"), ("--pairs", "3"), ("--no-prompts",)):
        assert cli.main(command(folders, tmp_path / "one", *more)) == 1
        assert "holds another study, whose key would be lost; choose another folder" in capsys.readouterr().err
    assert bytes_of(tmp_path / "one") == whole


def test_a_row_that_some_system_lacks_is_left_out_for_all_and_said(folders: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(folders / "alphasystem", tmp_path / "alphasystem")
    shutil.copytree(folders / "betasystem", tmp_path / "betasystem")
    (tmp_path / "alphasystem/row1.mp4").unlink()
    (tmp_path / "betasystem/row2.mp4").write_bytes(b"no film")
    (tmp_path / "alphasystem/row2.mp4").unlink()
    film(tmp_path / "alphasystem/row2.mkv")  # which is encoded anew, and then shown to nobody
    assert cli.main(command(tmp_path, tmp_path / "s", "--testset", str(folders / "rows.jsonl"))) == 0
    said = capsys.readouterr().out
    assert "row row1 is left out: alphasystem has no clip of it" in said
    assert "row row2 is left out: betasystem's clip is corrupt" in said
    key = read_key(tmp_path / "s")
    assert set(key.left_out) == {"row1", "row2"} and {trial.row for trial in key.trials} == {"row0", "row3"}
    assert key.converted == [] and "encoded anew" not in said


def test_without_a_test_set_every_file_is_found_by_its_own_name_and_one_that_is_alone_is_told(
    folders: Path, tmp_path: Path, capsys
) -> None:
    files = {
        "alphasystem": ("a b.mp4", 'it\'s "c".mp4', "\u00e9 d.MP4", "alone.mp4"),
        "betasystem": ("a b.mp4", 'it\'s "c".mp4', "\u00e9 d.mp4"),
    }
    for name, own in files.items():
        (tmp_path / name).mkdir()
        for number, file in enumerate(own):
            shutil.copy(folders / name / f"row{number}.mp4", tmp_path / name / file)
    assert cli.main(command(tmp_path, tmp_path / "s")) == 0
    assert "row alone is left out: betasystem has no clip of it" in capsys.readouterr().out
    key = read_key(tmp_path / "s")
    assert len([trial for trial in key.trials if not trial.check]) == 3 and set(key.left_out) == {"alone"}


def test_what_cannot_be_is_told_in_a_sentence(folders: Path, tmp_path: Path, capsys) -> None:
    def said(argv: list[str]) -> str:
        assert cli.main(argv) in (1, 2) and not (tmp_path / "s/key.json").exists()
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    assert "names one system; a study compares two or more" in said(command(folders, tmp_path / "s", systems=NAMES[:1]))
    assert "there are 4 comparisons, 1 of systems on 4 rows, not 5" in said(
        command(folders, tmp_path / "s", "--pairs", "5")
    )
    assert "a rater cannot get 5 of 4" in said(command(folders, tmp_path / "s", "--per-rater", "5"))
    assert "there is no question 'taste'" in said(command(folders, tmp_path / "s", "--question", "taste"))
    assert "there is no folder of clips" in said(command(folders, tmp_path / "s", systems=("alphasystem", "nobody")))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/other.mp4").write_bytes(b"")
    argv = ["study", "make", "--methods", f"a={folders / 'alphasystem'}", f"b={tmp_path / 'empty'}"]
    assert "no row has a clip of every system; of row0, b has no clip of it" in said([*argv, "-o", str(tmp_path / "s")])
