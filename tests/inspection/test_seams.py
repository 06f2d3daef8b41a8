"""Seams of clips, planted and absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccl import cli
from ccl.inspection.seams import seams_figure, steps_of
from ccl.media import Clip

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
    assert cli.main(["inspect", "seams", str(tmp_path / "a.mp4"), "--at", "100"]) == 1
    assert "there is no picture 100 at which windows could meet; it has 100" in capsys.readouterr().err
