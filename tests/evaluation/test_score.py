"""Scores of folders: a row for every clip and column, with its value or a reason; numbers of whole sets; any names."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ccl.evaluation import WER, AVAlign, Colours, Onset, SyncNet
from ccl.evaluation.film import Film, constant_rate
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.score import rule_of, score
from ccl.media import Clip
from ccl.rows import Row
from helpers.metrics import ROWS, Brittle, Loudness, Spread, Weightless, by, clip, run


def test_every_clip_and_column_is_a_row_with_a_value_or_a_reason(folder, tmp_path):
    rows = by(run(folder, [Loudness(), Weightless()], tmp_path / "out"))
    assert set(rows) == {(r.id, c) for r in ROWS for c in ("peak", "average", "nothing")}
    assert rows["c0", "peak"]["value"] > 0.05 and rows["c0", "peak"]["reason"] is None
    assert rows["c3", "peak"] == {
        "method": "mine",
        "id": "c3",
        "metric": "peak",
        "value": None,
        "reason": "only silence",
    }
    assert "no media file" in rows["c4", "average"]["reason"]
    assert rows["c5", "average"]["reason"] == "there is no such clip"
    assert rows["c0", "nothing"]["reason"] == "it needs weights.pt"
    assert [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()] == list(
        rows.values()
    )


def test_a_clip_that_breaks_a_batch_is_alone_in_its_row(folder, tmp_path):
    rows = by(run(folder, [Brittle()], tmp_path / "out"))
    assert rows["c2", "brittle"]["reason"] == "RuntimeError: too loud"
    assert rows["c0", "brittle"]["value"] == 2.0


def test_numbers_of_whole_sets_come_for_each_subset_and_against_the_reference(folder, tmp_path):
    true = tmp_path / "true"
    for i in range(3):
        replace(clip(i), audio=clip(i).audio / 2).save(true / f"c{i}.mp4")
    results = score({"mine": folder, "true": true}, ROWS, [Spread()], tmp_path / "out", reference="true")
    pooled = {(p["method"], p["subset"], p["name"]): p["value"] for p in results.pooled}
    assert pooled["mine", "easy", "spread"] == pytest.approx(0.2, abs=0.03)
    assert pooled["mine", "easy", "spread.shift"] == pytest.approx(0.1, abs=0.03)
    assert ("true", "easy", "spread.shift") not in pooled


def test_progress_reaches_the_end(folder, tmp_path):
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        run(folder, [Loudness(), Brittle()], tmp_path / "out", progress=lambda n, of, _: seen.append((n, of)))
        assert seen[-1] == (12, 12)
        seen.clear()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of clips .*gone"):
        run(tmp_path / "gone", [], tmp_path / "out")


def test_files_are_found_by_sanitised_ids_and_never_outside(tmp_path):
    clip().save(tmp_path / "clips/a_b.mp4")
    clip().save(tmp_path / "c.mp4")
    rows = [Row("a/b"), Row("../c")]
    found = by(score({"m": tmp_path / "clips"}, rows, [Loudness()], tmp_path / "out"))
    assert found["a/b", "peak"]["value"] is not None
    assert found["../c", "peak"]["reason"] == "there is no such clip"


NAMES = [
    "my clip (1)",
    "[red]x[%2F]",
    "\u00fcn\u00ef \u201cx\u201d \u6f22",
    "new\nline",
    "a' & <b>",
    "-dash",
    "\u6f22" * 80,
]


def test_clips_of_any_name_are_found_by_it(tmp_path):
    for i, name in enumerate([*NAMES, "caps"]):
        (path := tmp_path / "clips" / f"{name}.mp4").parent.mkdir(exist_ok=True)
        clip(i % 3).save(tmp_path / "clip.mp4")
        (tmp_path / "clip.mp4").replace(path if name != "caps" else path.with_suffix(".MP4"))
    metrics: list[Metric] = [Loudness(), Spread()]
    rows = [Row(name) for name in [*NAMES, "caps", "\u6f22" * 300]]
    results = score({"\u6f22" * 300: tmp_path / "clips"}, rows, metrics, tmp_path / "out")
    reasons = {row["id"]: row["reason"] for row in results.rows if row["metric"] == "peak"}
    assert "no such clip" in reasons.pop("\u6f22" * 300)
    assert reasons == dict.fromkeys([*NAMES, "caps"])
    metrics = [Loudness(), Spread()]
    assert score({"\u6f22" * 300: tmp_path / "clips"}, rows, metrics, tmp_path / "out").rows == results.rows
    assert metrics[0].prepared == [] and metrics[1].pool is not None


def test_text_that_is_no_unicode_is_kept(folder, tmp_path):
    rows = [Row("c0", prompt="\udcff"), Row("x\ud800")]
    first = score({"m\udcff": folder}, rows, [Loudness(), Spread()], tmp_path / "out")
    metric = Loudness()
    assert score({"m\udcff": folder}, rows, [metric, Spread()], tmp_path / "out").rows == first.rows
    assert metric.prepared == []


def test_methods_of_like_names_keep_their_own_numbers(folder, tmp_path):
    other = tmp_path / "other"
    clip(2).save(other / "c0.mp4")
    results = score({"a b": folder, "a_b": other, "a/b": other}, ROWS[:2], [Spread()], tmp_path / "out")
    assert len(list((tmp_path / "out/features/spread").iterdir())) == 3
    spread = {p["method"]: p.get("own", p["value"]) for p in results.pooled if p["subset"] == "all"}
    assert spread["a b"] == pytest.approx(0.1, abs=0.02) and spread["a_b"] == 0.0


@pytest.mark.parametrize("name", ["all", "mean"])
def test_no_subset_is_called_as_the_whole(name, folder, tmp_path):
    with pytest.raises(ValueError, match=f"called '{name}'"):
        score({"mine": folder}, [replace(ROWS[0], subset=name)], [Loudness()], tmp_path / "out")


def test_metrics_stand_alone_as_torchmetrics(folder):
    metric = Loudness()
    first = metric([folder / "c0.mp4", clip(1)])
    assert first["scored"] == 2.0 and first["peak"] == pytest.approx(0.15, abs=0.02)
    metric.update([folder / "c3.mp4", Film.read(folder / "c2.mp4")])
    assert metric.compute()["peak"] == pytest.approx(0.2, abs=0.02)
    assert (metric.compute()["scored"], metric.compute()["failed"]) == (3.0, 1.0)
    metric.reset()
    assert metric([clip(0)])["scored"] == 1.0
    with pytest.raises(ValueError, match=r"weights\.pt"):
        Weightless().update([clip()])


def test_corpus_rates_divide_sums():
    rate = Column("wer", "WER", over=("errors", "words"))
    values = {"errors": np.array([1.0, np.nan, 3.0]), "words": np.array([10.0, np.nan, 2.0]), "wer": np.zeros(3)}
    assert rate.aggregate(values) == pytest.approx(4 / 12)


@pytest.mark.parametrize("rate", [15, 16, 24, 25, 29.97, 30, 60])
@pytest.mark.parametrize("to", [25, 16, 0.5])
def test_constant_rates_are_those_of_ffmpegs_filter(rate, to):
    from fractions import Fraction

    import av
    import av.filter

    count, base = 150, Fraction(1, 90_000)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=base)
    chain = [source, graph.add("fps", f"fps={to}"), graph.add("buffersink")]
    for a, b in pairwise(chain):
        a.link_to(b)
    graph.configure()
    times, shown = [], []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), i, np.uint8), format="gray")
        frame.pts, frame.time_base = round(i / rate * 90_000), base
        frame.duration = round(90_000 / rate)
        times.append(frame.pts / 90_000)
        graph.push(frame)
    graph.push(None)
    while True:
        try:
            shown.append(int(graph.pull().to_ndarray()[0, 0]))
        except (av.error.EOFError, av.error.BlockingIOError):
            break
    assert constant_rate(np.array(times), count / rate, to).tolist() == shown


def test_records_are_those_of_the_clips_that_were_scored(folder, tmp_path):
    record = {"guidance": {"rule": "UCG2"}, "steps": 20, "solver": "euler", "weights": "c754fe"}
    for name in ("c0.json", ".partial-host-1-abcd-c1.json", ".c2.json", "elsewhere.json"):
        (folder / name).write_text(json.dumps(record))
    found = run(folder, [Loudness()], tmp_path / "out").causes["mine"]
    assert found == ["1 clip: weights c754fe, UCG2, 20 steps of euler, from text"]


def test_a_rule_is_told_with_its_strengths_for_pictures_and_sound():
    pair = {"video": 4.0, "audio": 3.0}
    assert (
        rule_of({"rule": "UCG3", "text": pair, "modal": {"video": 2.5, "audio": 2}}) == "UCG3 (text 4 3, modal 2.5 2)"
    )
    assert rule_of({"rule": "NoGuidance"}) == "NoGuidance"
    within = {"rule": "Interval", "inside": {"rule": "UCG2", "scale": pair}, "start": 0.9}
    assert rule_of(within) == "Interval (inside UCG2 (scale 4 3), start 0.9)"


def test_a_record_with_loras_names_them_and_a_strangers_record_is_no_error(folder, tmp_path):
    record = {"guidance": {"rule": "UCG2"}, "steps": 20, "solver": "euler", "weights": "c754fe"}
    loras = [{"file": "a.safetensors", "sha256": "ab12cd34ef56ab78", "scale": 0.5}]
    (folder / "c0.json").write_text(json.dumps(record | {"loras": loras}))
    (folder / "c1.json").write_text(json.dumps(record | {"loras": ["style"], "image": "x.png"}))
    found = run(folder, [Loudness()], tmp_path / "out").causes["mine"]
    assert found == [
        "1 clip: weights c754fe + LoRA ab12cd34ef56 x 0.5, UCG2, 20 steps of euler, from text",
        "1 clip: weights c754fe, UCG2, 20 steps of euler, from text + image",
    ]


# Nothing to measure --------------------------------------------------------------------------------------------------


class Spoken(Loudness):
    """Asks for speech where the test set says what is spoken."""

    name = "spoken"
    columns = (Column("spoken", "Spoken"),)

    def inapplicable(self, row: Row, *, speech: bool) -> str:
        return "nothing was to be spoken" if speech and not row.speech else ""

    def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
        return [Measured({"spoken": float(a.max())}) for a in inputs]


def test_what_there_is_nothing_to_measure_in_is_apart_from_what_failed(folder, tmp_path):
    """c1 and c5 (which is not there) have no speech; c3 is silent though it should speak."""
    rows = [replace(row, speech="" if row.id in ("c1", "c5") else "hello") for row in ROWS]

    def scored(rows: list[Row]) -> dict[str, dict]:
        results = score({"mine": folder}, rows, [Spoken()], tmp_path / "out")
        return {row["id"]: row for row in results.rows}

    found = scored(rows)
    assert {id for id, row in found.items() if row.get("applicable") is False} == {"c1", "c5"}
    assert found["c1"]["reason"] == found["c5"]["reason"] == "nothing was to be spoken" and found["c1"]["value"] is None
    assert "applicable" not in found["c3"] and found["c3"]["reason"] == "only silence"
    # What the other rows say decides whether it applies; nothing stays of what was said before.
    assert scored(ROWS)["c1"]["value"] is not None and scored(ROWS)["c5"]["reason"] == "there is no such clip"
    assert scored(rows) == found


def test_the_measures_of_speech_colours_and_references_say_where_they_do_not_apply():
    def reason(metric: Metric, row: Row, speech: bool = True) -> str:
        return metric.inapplicable(row, speech=speech)

    mute, talk = Row("a", prompt="A drum."), Row("a", prompt='A man in a green shirt says "hello"')
    assert reason(WER(), mute) == reason(SyncNet(), mute) == "nothing was to be spoken"
    assert reason(WER(), talk) == reason(SyncNet(), talk) == reason(WER(), Row("a", speech="hello")) == ""
    assert reason(SyncNet(), mute, speech=False) == "", "where no row says what is spoken, a face may be wanted"
    assert "asks for no colour" in reason(Colours(), mute) and reason(Colours(), talk) == ""
    assert reason(Onset(), mute) == "no reference clip to compare its onsets with"
    assert reason(Onset(), replace(mute, reference="x.mp4")) == "" == reason(Loudness(), mute)


def test_values_that_a_measure_leaves_out_are_named(folder, tmp_path):
    class Half(Loudness):
        def measure(self, inputs: Sequence[np.ndarray]) -> list[Measured]:
            return [Measured({"average": float("nan")}) for _ in inputs]

    rows = by(run(folder, [Half()], tmp_path / "out"))
    assert rows["c0", "peak"]["reason"] == "loudness finds no 'peak' in it"
    assert rows["c0", "average"]["reason"] == "its 'average' is nan"


def test_sets_are_compared_on_the_clips_that_all_have(folder, tmp_path):
    other = tmp_path / "other"
    for i in (0, 2):
        clip(i).save(other / f"c{i}.mp4")
    both = score({"mine": folder, "other": other}, ROWS[:3], [Spread()], tmp_path / "out").pooled
    alone = {
        n: score({"m": folder}, [ROWS[i] for i in ids], [Spread()], tmp_path / f"{n}").pooled[-1]["value"]
        for n, ids in (("common", (0, 2)), ("all", (0, 1, 2)), ("two", (0, 1)))
    }
    mine, theirs = ({p["subset"]: p for p in both if p["method"] == m}["easy"] for m in ("mine", "other"))
    assert (mine["value"], mine["own"], mine["clips"], mine["scored"]) == (alone["common"], alone["all"], 2, 3)
    assert (theirs["value"], theirs["clips"]) == (pytest.approx(alone["common"], abs=1e-6), 2) and "own" not in theirs
    (folder / "c2.mp4").unlink()
    (other / "c0.mp4").unlink()
    apart = score({"mine": folder, "other": other}, ROWS[:3], [Spread()], tmp_path / "out").pooled
    assert all(line["common"] is False for line in apart) and apart[0]["value"] == alone["two"]


def test_onsets_are_compared_with_the_true_clips_of_the_reference(tmp_path):
    """Two hits; the clip has the first alone: by hand half of the onsets are met, whatever the row itself names."""
    sound = np.zeros(32_000, np.float32)
    for at in (8_000, 24_000):
        sound[at : at + 800] = 0.8 * np.sin(np.arange(800)) * np.linspace(1, 0, 800)
    first = sound.copy()
    first[16_000:] = 0
    for folder, samples in (("true", sound), ("mine", first)):
        Clip(np.zeros((50, 16, 16, 3), np.uint8), samples).save(tmp_path / folder / "c0.mp4")
    methods = {"mine": tmp_path / "mine", "true": tmp_path / "true"}
    for row in (Row("c0"), Row("c0", reference=str(tmp_path / "mine/c0.mp4"))):
        results = score(methods, [row, Row("c1")], [Onset()], tmp_path / "out", reference="true")
        found = {(r["method"], r["id"]): r for r in results.rows if r["metric"] == "onset_acc"}
        assert (found["mine", "c0"]["value"], found["true", "c0"]["value"]) == (0.5, 1.0)
        assert found["mine", "c1"]["applicable"] is False


def test_one_clip_or_name_is_no_list_of_them() -> None:
    for call in (AVAlign().score, AVAlign()):  # else the name is walked over letter by letter
        with pytest.raises(ValueError, match=r"av_align takes a list of clips, not 'clip.mp4'"):
            call("clip.mp4")


def test_two_forms_of_one_id_are_not_scored_on_one_file(tmp_path: Path) -> None:
    rows = [Row(unicodedata.normalize(form, "é")) for form in ("NFC", "NFD")]
    with pytest.raises(ValueError, match="names the clip 'é' twice"):
        score({"a": tmp_path}, rows, [Colours()], tmp_path / "out")
