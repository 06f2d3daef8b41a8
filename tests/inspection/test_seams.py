"""Seams of clips, planted and absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ccl import cli
from ccl.inspection.seams import cut, middle, seams_figure, steps_of
from ccl.media import Clip
from ccl.storage.model_folder import save_model
from helpers.tiny import tiny_config, tiny_state

SEAMS = [30, 70]


def clip_of(planted: str = "") -> Clip:
    """4 s of a drifting picture and of noise that swells; at the seams what is planted."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=(100, 8, 8, 3)), 0) * 3 + 120
    sound = rng.normal(size=64_000) * (0.05 + 0.03 * np.sin(np.arange(64_000) / 3000))
    for seam in SEAMS:
        if planted == "jump":
            drift[seam:] += 20
        if planted == "click":
            sound[seam * 640 - 800] += 1.0
        if planted == "voice":
            sound[seam * 640 : seam * 640 + 6400] = np.convolve(
                sound[seam * 640 : seam * 640 + 6400], np.ones(8), "same"
            )
    return Clip(drift.clip(0, 255).astype(np.uint8), sound.astype(np.float32), id="x")


def test_a_seam_that_is_none_is_like_any_other_place() -> None:
    for steps in steps_of([(clip_of(), list(range(5, 95, 15)))]).values():
        assert steps.ranks.mean() < 0.75
        assert steps.seams.mean() == pytest.approx(steps.others.mean(), rel=0.3)


@pytest.mark.parametrize(("planted", "seen"), [("jump", "pictures"), ("click", "bend"), ("voice", "spectrum")])
def test_what_is_planted_is_found_by_its_measure(planted: str, seen: str) -> None:
    steps = steps_of([(clip_of(planted), SEAMS)])[seen]
    assert steps.ranks.min() > 0.9 and steps.seams.mean() > 1.15 * steps.others.mean()
    assert f"rank {steps.ranks.mean():.2f}" in str(steps)


def test_the_drawing_has_a_row_for_each_seam() -> None:
    assert len(seams_figure(clip_of(), SEAMS).subfigs) == 2


def test_the_command_reads_the_record_or_asks_for_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip_of("jump").save(tmp_path / "a.mp4")
    assert cli.main(["inspect", "seams", str(tmp_path / "a.mp4")]) == 1
    assert "a.mp4 has no record beside it that tells its seams; give them with --at" in capsys.readouterr().err
    (tmp_path / "a.json").write_text('{"seams": [30, 70]}')
    assert cli.main(["inspect", "seams", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "a.png")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 seams of 1 clip\npictures (step from one picture to the next, of 255): ")
    assert (tmp_path / "a.png").is_file()
    assert cli.main(["inspect", "seams", str(tmp_path / "a.mp4"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == {"clips": [str(tmp_path / "a.mp4")]}
    assert [(one["of"], one["seams"]) for one in told["figures"]] == [("the given clips", [[30, 70]])]
    assert cli.main(["inspect", "seams", str(tmp_path / "a.mp4"), "--at", "100"]) == 1
    assert "there is no picture 100 at which windows could meet; it has 100" in capsys.readouterr().err


def test_a_clip_is_cut_in_the_middle_of_what_is_heard() -> None:
    clip = clip_of()
    sound = np.zeros_like(clip.audio)
    sound[16_000:48_000] = 0.3
    sound[:100] = 0.01  # too soft to be heard beside it
    spoken = Clip(clip.video, sound, id="x")
    assert middle(spoken) == 50
    before = cut(spoken, 50)
    assert len(before.video) == 50 and len(before.audio) == 32_000
    with pytest.raises(ValueError, match="x: nothing is heard, in the middle of which it could be cut"):
        middle(Clip(clip.video, np.zeros_like(sound), id="x"))


def test_a_model_goes_on_from_clips_of_the_world_beside_the_true_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config()
    config["grid"] |= {"frames": 77}  # room for a sentence
    save_model(tmp_path / "model", config, tiny_state())
    assert cli.main(["inspect", "seams", "--world", "2", "--ckpt", str(tmp_path / "model"), "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("gone on from: 2 seams of 2 clips\npictures (")
    assert "\nthe true clips: 2 seams of 2 clips\npictures (" in said


@pytest.mark.parametrize("argv", [[], ["a.mp4", "--world", "2"]])
def test_clips_or_the_world_are_asked_for(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "seams", *argv]) == 2
    assert "give clips to look at, or --world" in capsys.readouterr().err


def test_what_goes_with_the_world_alone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "seams", "a.mp4", "--ckpt", "runs/x"]) == 2
    assert "--ckpt goes with --world; clips are looked at as they are" in capsys.readouterr().err
