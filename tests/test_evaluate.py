"""Scores of folders: failures are rows, chance and ceiling stand beside, what cannot run says so."""

import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ccl.evaluation import evaluate, score_folder
from ccl.evaluation.metrics import Colours, Metric, Mouth, Speech
from ccl.evaluation.metrics.colours import PAINTS, SHIRTS, WALLS, pale
from ccl.rows import Row
from ccl.types import Clip

PROMPT = 'A man with black hair and a green shirt in front of a blue wall says "hello"'
ROWS = [Row(id=f"c{i}", prompt=PROMPT, subset="easy" if i < 3 else "hard") for i in range(6)]

WHISPER_LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class Loudness(Metric):
    """Counts the clips it sees; stumbles over silence."""

    name = "loudness"
    columns = ("peak", "mean")
    worst = -1.0

    def score(self, clip: Clip) -> dict[str, float]:
        if not clip.audio.any():
            raise RuntimeError("only silence")
        return {"peak": float(np.abs(clip.audio).max()), "mean": float(np.abs(clip.audio).mean())}

    def chance(self, clips):
        return {"shuffled": 0.5, "p": float(len(clips))}


class Weightless(Metric):
    name = "weightless"
    columns = ("nothing",)

    def missing(self) -> str:
        return "it needs weights.pt"

    def score(self, clip: Clip) -> dict[str, float]:
        raise AssertionError("must not be called")


def clip(i: int = 0) -> Clip:
    """A room with a shirt in it, and a tone."""
    video = np.empty((5, 48, 48, 3), np.uint8)
    video[:] = pale("blue").astype(np.uint8)
    video[:, 36:, 8:40] = PAINTS["green"]
    return Clip(video, (0.1 * (i + 1) * np.sin(np.arange(3200) / 5)).astype(np.float32), prompt=PROMPT, id=f"c{i}")


@pytest.fixture
def folder(tmp_path) -> Path:
    """c0 to c2 are fine, c3 is silent, c4 is broken, c5 is missing."""
    folder = tmp_path / "clips"
    for i in range(4):
        (clip(i) if i < 3 else replace(clip(i), audio=np.zeros(3200, np.float32))).save(folder / f"c{i}.mp4")
    (folder / "c4.mp4").write_bytes(b"no film")
    return folder


def test_every_clip_and_metric_is_a_row(folder):
    scores = score_folder(folder, ROWS, [Loudness(), Colours()]).rows
    assert [(row["id"], row["metric"]) for row in scores] == [(r.id, m) for r in ROWS for m in ("loudness", "colours")]


def test_failures_say_why_and_count_as_worst(folder):
    rows = {row["id"]: row for row in score_folder(folder, ROWS, [Loudness()]).rows}
    assert "failed" not in rows["c0"] and rows["c0"]["peak"] > 0.05
    assert rows["c3"]["failed"] == "only silence" and rows["c3"]["peak"] == -1.0
    assert "corrupt" in rows["c4"]["failed"] and rows["c5"]["failed"] == "c5.mp4 is missing"
    assert rows["c5"]["mean"] == -1.0


def test_one_metric_s_failure_leaves_the_others(folder):
    rows = score_folder(folder, [ROWS[3]], [Loudness(), Colours()]).rows
    assert "failed" in rows[0] and rows[1]["colours"] == 1.0


def test_a_clip_without_sound_is_scored_where_pictures_suffice(tmp_path):
    replace(clip(), audio=None).save(tmp_path / "c0.mp4")
    mouth, colours = score_folder(tmp_path, ROWS[:1], [Mouth(), Colours()]).rows
    assert "has no sound" in mouth["failed"] and mouth["mouth"] == 0.0
    assert colours["colours"] == 1.0


def test_files_are_found_by_sanitised_ids(tmp_path):
    clip().save(tmp_path / "a_b.mp4")
    assert "failed" not in score_folder(tmp_path, [Row(id="a/b", prompt=PROMPT)], [Colours()]).rows[0]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no folder of clips"):
        score_folder(tmp_path / "gone", ROWS, [Colours()])


def results(folder: Path, out: Path, **kwargs):
    text = StringIO()
    metrics = [Loudness(), Weightless()]
    lines = evaluate(folder, ROWS, metrics, out, console=Console(file=text, width=120), **kwargs)
    return lines, text.getvalue()


def test_table_has_means_over_all_rows_by_subset(folder, tmp_path):
    lines, _ = results(folder, tmp_path / "out")
    by = {(line["subset"], line["measure"]): line for line in lines}
    assert list(by) == [(s, m) for s in ("easy", "hard", "all") for m in ("peak", "mean")]
    assert (by["easy", "peak"]["scored"], by["easy", "peak"]["failed"]) == (3, 0)
    assert (by["hard", "peak"]["scored"], by["hard", "peak"]["failed"], by["hard", "peak"]["value"]) == (0, 3, -1.0)
    assert by["all", "peak"]["value"] == pytest.approx((by["easy", "peak"]["value"] - 1) / 2)


def test_chance_stands_beside_the_first_column(folder, tmp_path):
    lines, _ = results(folder, tmp_path / "out")
    assert [line["p"] for line in lines] == [3.0, None, 1.0, None, 4.0, None]


def test_ceiling_comes_from_reference_clips(folder, tmp_path):
    for i in range(6):
        clip(5).save(tmp_path / "true" / f"c{i}.mp4")
    lines, _ = results(folder, tmp_path / "out", reference=tmp_path / "true")
    assert lines[0]["ceiling"] > lines[0]["value"]


def test_a_metric_that_cannot_run_says_why_and_gives_no_number(folder, tmp_path):
    lines, printed = results(folder, tmp_path / "out")
    assert "weightless: not measured; it needs weights.pt" in printed
    assert not any(line["measure"] == "nothing" for line in lines)


def test_results_are_files_that_name_failures_and_causes(folder, tmp_path):
    record = {"guidance": {"rule": "UCG2"}, "weights": "abcdef", "steps": 9, "solver": "euler", "audio": "a.wav"}
    (folder / "c0.json").write_text(json.dumps(record))
    results(folder, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and rows[5]["failed"] == "c5.mp4 is missing"
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.startswith("| subset | measure | value |") and "failed (1): c5.mp4 is missing" in table
    assert "1 clips: weights abcdef, UCG2, 9 steps of euler, from text + audio" in table


def test_colours_are_those_of_the_world():
    scene = pytest.importorskip("ccl.data.world.scene")
    script = pytest.importorskip("ccl.data.world.script")
    assert all(scene.COLOURS[name] == paint for name, paint in PAINTS.items())
    assert set(SHIRTS) == set(script.SHIRT) and set(WALLS) == set(script.WALL)
    assert all(np.allclose(scene.wall(name), pale(name), atol=0.01) for name in WALLS)


def test_wrong_colours_are_seen():
    asked = replace(clip(), prompt="a woman with white hair and a yellow shirt in front of a blue wall")
    assert Colours().score(asked) == {"colours": 0.5}


def test_long_hair_is_not_taken_for_the_shirt():
    video = clip().video.copy()
    video[:, 24:36, 4:44] = PAINTS["white"]
    asked = "A woman with white hair and a green shirt in front of a blue wall"
    assert Colours().score(replace(clip(), video=video, prompt=asked)) == {"colours": 1.0}


def test_a_prompt_without_colours_is_a_failure():
    with pytest.raises(ValueError, match="asks for no colour"):
        Colours().score(replace(clip(), prompt="a drum"))


def test_missing_whisper_weights_are_told_with_the_remedy(tmp_path):
    assert "load_model" in Speech(str(tmp_path / "tiny.en.pt")).missing()


@WHISPER_LEAVES_FILES_OPEN
def test_word_error_rate_counts_words_after_normalising():
    speech = Speech()
    assert speech.error_rate("I'll see two houses", "I will see 2 houses.") == 0.0
    assert speech.error_rate("we like red apples", "we like apples") == 0.25


def test_speech_needs_a_sentence_and_sound():
    with pytest.raises(ValueError, match="no sentence"):
        Speech().score(replace(clip(), prompt="a drum"))
    with pytest.raises(ValueError, match="has no sound"):
        Speech().score(replace(clip(), audio=None))


@WHISPER_LEAVES_FILES_OPEN
def test_whisper_hears_real_speech():
    data = os.environ.get("CCL_TEST_DATA")
    if not data:
        pytest.skip("needs CCL_TEST_DATA with weights/whisper-tiny.en.pt and clips/jfk.flac")
    from ccl.media import read_audio

    speech = Speech(str(Path(data) / "weights" / "whisper-tiny.en.pt"))
    assert not speech.missing()
    sentence = (
        "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    spoken = Clip(None, read_audio(Path(data) / "clips" / "jfk.flac"), meta={"sentence": sentence})
    assert speech.score(spoken)["wer"] <= 0.1
