"""Controls: films that are put together as they say, scores of them that are kept, and what tables say of a measure.

Measures whose weights can be had are tried on clips of the world; the others' verdicts on planted scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ccl.cli import main
from ccl.data.world import World
from ccl.evaluation import METRICS, AVAlign, DeSync, IBScore, IBText, Javis, Mouth, Onset, SyncNet
from ccl.evaluation.controls import CONTROLS, SHIFTS, altered, controlled, cost, derangement, moved, told
from ccl.evaluation.film import Film, Unscorable
from ccl.evaluation.metrics import av_align
from ccl.evaluation.metrics.base import Column, Measured, Metric
from ccl.evaluation.metrics.desync import features
from ccl.evaluation.nets.synchformer import Synchformer
from ccl.evaluation.score import score
from ccl.evaluation.tables import exchange, layout, notes
from ccl.evaluation.tables.merge import merge
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.statistics import exchange_p
from ccl.evaluation.tables.summary import strata_of, summarise
from ccl.evaluation.tables.typeset import markdown
from ccl.media import Clip
from ccl.rows import Row

COUNT, RATE, FPS = 12, 16_000, 25


class InSync(Metric):
    """Correlation of how bright and how loud it is, frame by frame; no weights."""

    name = "in_sync"
    columns = (Column("in_sync", "In sync", sync=True), Column("bright", "Bright", better=""))

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []
        self.asked: list[str] = []

    def prepare(self, film: Film) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(film.row.id)
        bright = film.once("bright", lambda: self.look(film))
        loud = np.abs(film.audio[: len(bright) * (RATE // FPS)]).reshape(len(bright), -1).mean(1)
        return bright, loud

    def look(self, film: Film) -> np.ndarray:
        self.looked.append(film.row.id)
        return film.video.mean((1, 2, 3))

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Measured]:
        found = []
        for bright, loud in inputs:
            r = np.corrcoef(bright, loud)[0, 1] if bright.std() > 1 and loud.std() > 1e-4 else 0.0
            found.append(Measured({"in_sync": float(r), "bright": float(bright.mean())}))
        return found


class Deaf(InSync):
    """Says the same whatever the sound."""

    name = "deaf"
    columns = (Column("deaf", "Deaf", "lower", sync=True),)

    def measure(self, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Measured]:
        return [Measured({"deaf": float(bright.mean())}) for bright, _ in inputs]


def flashing(i: int, *, sound_of: int | None = None) -> Clip:
    """Pictures as bright as their sound is loud, or as that of another clip."""

    def curve(number: int) -> np.ndarray:
        return np.random.default_rng(number).random(FPS)

    bright = np.repeat(curve(i) * 200, 16 * 16 * 3).reshape(FPS, 16, 16, 3).astype(np.uint8)
    loud = np.repeat(curve(i if sound_of is None else sound_of), RATE // FPS)
    return Clip(bright, (0.5 * loud * np.sin(np.arange(RATE))).astype(np.float32), float(FPS), RATE, id=f"f{i}")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    for i in range(COUNT):
        flashing(i).save(folder / "true" / f"f{i}.mp4")
        flashing(i, sound_of=(i + 1) % COUNT).save(folder / "wrong" / f"f{i}.mp4")
    return folder


TEST = [Row(f"f{i}", subset="easy" if i < COUNT // 2 else "hard") for i in range(COUNT)]


def tried(folder: Path, out: Path, *metrics: Metric, **settings: Any) -> Results:
    some = list(metrics) or [InSync()]
    return controlled(score({"mine": folder}, TEST, some, out), some, out, **settings)


def by_control(results: Results, column: str, subset: str = "mean") -> dict[str, dict]:
    return {line["control"]: line for line in results.controls if (line["column"], line["subset"]) == (column, subset)}


# Films ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [-7, -3, 0, 2, 5, 9])
def test_moved_sound_is_that_of_a_naive_loop(late):
    sound = np.arange(1, 7, dtype=np.float32)
    naive = [sound[t - late] if 0 <= t - late < len(sound) else 0 for t in range(len(sound))]
    assert moved(sound, late).tolist() == naive


def test_films_are_put_together_as_their_controls_say():
    film, other = Film.of(flashing(0)), Film.of(replace(flashing(1), audio=flashing(1).audio[:5000], sample_rate=8000))
    shuffled = altered(film, "shuffled", other)
    assert np.array_equal(shuffled.video, film.video) and shuffled.clip.sample_rate == 8000
    assert np.array_equal(shuffled.audio, np.tile(other.audio, 2)[:8000]), (
        "as long as the own, from its beginning again"
    )
    for control, seconds in SHIFTS.items():
        assert np.array_equal(altered(film, control).audio, moved(film.audio, round(seconds * RATE)))
    assert altered(film, "0.2 s late").audio[:3200].any() == False  # noqa: E712
    still, silent = altered(film, "still"), altered(film, "silent")
    assert still.video.shape == film.video.shape and (still.video == film.video[12]).all()
    assert np.array_equal(still.audio, film.audio) and not silent.audio.any() and len(silent.audio) == RATE
    assert film.audio.any() and film.video.std() > 0, "the true film is as it was"


def test_a_film_without_sound_cannot_be_altered():
    with pytest.raises(Unscorable, match="no audio stream"):
        altered(Film(Clip(flashing(0).video, None)), "silent")


def test_what_was_found_in_pictures_goes_with_them_and_what_was_heard_does_not():
    film, asked = Film.of(flashing(0)), []

    def find(film: Film, what: str) -> float:
        asked.append(what)
        return float(film.video.mean() if what == "seen" else np.abs(film.audio).mean())

    other = film.with_sound(np.zeros(RATE, np.float32), RATE)
    found = [f.once(w, lambda f=f, w=w: find(f, w)) for f in (film, other) for w in ("seen", "heard", "seen")]
    assert asked == ["seen", "heard", "heard"] and found[1] > 0 == found[4] and found[0] == found[3]
    # What is made of something heard is heard itself, whether that was there before or not.
    for one in (film, other):
        one.once("twice", lambda one=one: 2 * one.once("heard", lambda: 1.0))
    assert film.once("twice", lambda: None) > 0 == other.once("twice", lambda: None)


def test_a_film_with_another_sound_looks_itself_whether_that_is_finite():
    film = Film.of(flashing(0))
    assert len(film.audio)
    with pytest.raises(Unscorable, match="NaN or infinity"):
        _ = film.with_sound(np.full(RATE, np.nan, np.float32), RATE).audio


def five_seconds() -> Film:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (5 * FPS, 16, 16, 3), dtype=np.uint8)
    return Film(Clip(video, rng.normal(0, 0.1, 5 * RATE).astype(np.float32), float(FPS), RATE), Row("f", "a prompt"))


@pytest.mark.parametrize("metric", [IBScore(), IBScore(convention="official"), Javis()])
def test_pictures_go_through_imagebind_once_for_all_controls_but_the_still_one(metric, monkeypatch):
    film, asked = five_seconds(), []

    def embed(kind: str, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        asked.extend([kind] * sum(map(len, clips)))
        return torch.stack([torch.full((4,), float(clip.mean())) for clip in clips])

    monkeypatch.setattr(metric, "embed", embed)
    inputs = [metric.prepare(altered(film, control)) for control in ("0.2 s late", "silent", "still")]
    metric.measure(inputs[:1])
    first = asked.count("vision")
    metric.measure(inputs)
    assert first and asked.count("vision") == 2 * first and asked.count("audio") > 2


def test_pictures_go_through_synchformer_once_for_all_controls_but_the_still_one(monkeypatch):
    film, net, seen = five_seconds(), Synchformer(32, 1, 4), []

    def see(pictures: torch.Tensor) -> torch.Tensor:
        seen.extend(pictures)
        return torch.zeros(len(pictures), 8, 32)

    monkeypatch.setattr(net, "see", see)
    inputs = [DeSync().prepare(altered(film, control)) for control in ("0.2 s late", "silent", "still")]
    for some in (inputs[:1], inputs):
        found = features(net, some, torch.device("cpu"))
        assert [len(part) for part in found] == [len(some)] * 2
    assert len(seen) == 2 * len(inputs[0].index) == 28


def test_metrics_of_one_network_share_what_it_makes_of_a_film():
    film = five_seconds()
    ib, text = IBScore(convention="official").prepare(film), IBText().prepare(film).film
    assert ib.seen is text.seen and ib.heard is text.heard
    other = IBScore().prepare(film)
    assert other.seen is not text.seen and other.heard is text.heard, "cut otherwise, heard alike"
    assert IBScore(precision="bf16").prepare(film).heard is not ib.heard


# Scores --------------------------------------------------------------------------------------------------------------


def test_true_clips_are_told_from_every_control(clips, tmp_path):
    found = by_control(tried(clips / "true", tmp_path), "in_sync")
    assert list(found) == list(CONTROLS) and all(line["clips"] == COUNT for line in found.values())
    assert found["shuffled"]["true"] > 0.9 and abs(found["shuffled"]["value"]) < 0.3
    assert all(line["p"] < 0.01 for line in found.values())
    assert found["silent"]["value"] == 0 == found["still"]["value"]


def test_values_and_p_are_those_of_films_made_by_hand(clips, tmp_path):
    results, metric = tried(clips / "true", tmp_path), InSync()
    films = [Film.read(clips / "true" / f"f{i}.mp4") for i in range(COUNT)]
    half = COUNT // 2
    partner = [*derangement(half), *(half + derangement(half))]
    naive = [metric.score([films[i].with_sound(films[partner[i]].audio, RATE)])[0] for i in range(COUNT)]
    values = np.array([one.values["in_sync"] for one in naive])
    line = by_control(results, "in_sync")["shuffled"]
    assert line["value"] == pytest.approx(values.mean()) and all(partner[i] != i for i in range(COUNT))
    strata = strata_of(results, "mine", "mean", metric.columns[0])
    pairs = [(s, type(s)(values[i : i + half], np.ones(half))) for s, i in zip(strata.values(), (0, half), strict=True)]
    assert line["p"] == exchange_p(pairs, "mean")


def test_pictures_are_looked_at_once_for_all_controls_but_the_still_one(clips, tmp_path):
    metric = InSync()
    results = score({"mine": clips / "true"}, TEST, [metric], tmp_path)
    metric.looked.clear(), metric.asked.clear()
    controlled(results, [metric], tmp_path)
    assert len(metric.asked) == len(CONTROLS) * COUNT and len(metric.looked) == 2 * COUNT


def test_protocols_and_controls_look_for_motion_in_a_files_pictures_once(clips, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(av_align, "flow", lambda video, **how: looked.append(len(video)) or np.ones(len(video)))
    command = ["evaluate", "--videos", str(clips / "true"), "--metrics", "av_align", "-o", str(tmp_path), "--controls"]
    assert main([*command, "--protocol", "mova", "--protocol", "javisbench"]) == 0
    assert len(looked) == 3 * COUNT, "of each clip, and for each protocol of the picture that stands still"


def test_controls_by_several_protocols_have_the_true_clips_that_those_by_one_have(clips, tmp_path):
    files = [tmp_path / f"{name}.yaml" for name in ("wide", "narrow")]
    for file, tolerance in zip(files, (0.1, 0.05), strict=True):
        file.write_text(f"onset:\n  init_args: {{tolerance: {tolerance}}}\n")
    command = ["evaluate", "--videos", str(clips / "wrong"), "--reference", str(clips / "true"), "--controls"]
    command += ["--metrics", "onset", "--limit", "4", "-o"]
    for out, protocols in (("one", files[:1]), ("both", files)):
        assert main([*command, str(tmp_path / out), "--protocol", *map(str, protocols)]) == 0
    one = exchange.read(tmp_path / "one").controls
    both = exchange.read(tmp_path / "both/protocols/wide").controls
    assert one and both == [{**line, "method": f"{line['method']} / wide"} for line in one]
    assert "The ceiling is true clips" in (tmp_path / "both/table.md").read_text()


def test_only_columns_of_sync_are_tried(clips, tmp_path):
    assert {line["column"] for line in tried(clips / "true", tmp_path).controls} == {"in_sync"}
    every = {c.name for m in METRICS.values() for c in m.columns if c.sync}
    assert every == {
        *("sync_c", "sync_d", "desync", "ib_score", "av_align", "mouth"),
        *("onset_acc", "onset_ap", "javis_score", "avh_score"),
    }


def test_what_is_kept_is_not_computed_again_and_the_clips_folder_stays_as_it_was(clips, tmp_path):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (clips / "true").iterdir())
    first, again = tried(clips / "true", tmp_path), InSync()
    assert tried(clips / "true", tmp_path, again).controls == first.controls and again.asked == []
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (clips / "true").iterdir()) == before


def test_a_clip_that_changed_is_tried_again_and_so_is_the_one_that_has_its_sound(clips, tmp_path):
    folder, metric = tmp_path / "mine", InSync()
    folder.mkdir()
    for path in (clips / "true").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tried(folder, tmp_path / "out")
    flashing(40).save(folder / "f0.mp4")
    tried(folder, tmp_path / "out", metric)
    assert metric.asked.count("f0") == 1 + len(CONTROLS)
    other = next(i for i, partner in enumerate(derangement(COUNT // 2)) if partner == 0)
    assert metric.asked.count(f"f{other}") == 1 and len(metric.asked) == 2 + len(CONTROLS)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(clips, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    tried(clips / "true", tmp_path / "whole")
    kept = {}
    for moment in (1, 9, 40, 80):

        def stop(done: int, of: int, now: str, moment: int = moment) -> None:
            if done >= moment:
                raise Stop

        with pytest.raises(Stop):
            tried(clips / "true", tmp_path / "killed", progress=stop)
        kept[moment] = len((tmp_path / "killed/controls/scores.jsonl").read_text().splitlines())
    assert 0 < kept[9] < kept[40] < kept[80] < 2 * len(CONTROLS) * COUNT
    tried(clips / "true", tmp_path / "killed")
    for name in ("scores.jsonl", "state.json"):
        assert (tmp_path / "killed/controls" / name).read_bytes() == (tmp_path / "whole/controls" / name).read_bytes()


def test_the_cost_is_told_in_scores(clips, tmp_path):
    metric = InSync()
    results = score({"mine": clips / "true"}, TEST, [metric], tmp_path)
    assert f"{COUNT} clips x 7 ways x 1 metric (in_sync), {7 * COUNT} scores" in cost(results, [metric])
    assert "nothing to try" in cost(results, [])


# The world -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path]:
    """Portraits that speak, and the same with each other's sound."""
    folder, made = tmp_path_factory.mktemp("world"), World(split="test")
    some = [made.clip(i) for i in range(24)]
    for i, clip in enumerate(some):
        clip.save(folder / "true" / f"w{i}.mp4")
        if i < 12:
            replace(clip, audio=some[i - 1].audio).save(folder / "wrong" / f"w{i}.mp4")
    return [Row(f"w{i}") for i in range(24)], folder


def test_measures_whose_weights_are_here_tell_the_worlds_true_clips_from_shuffled_ones(world, tmp_path):
    rows, folder = world
    metrics: list[Metric] = [Mouth(), AVAlign()]
    results = controlled(score({"mine": folder / "true"}, rows, metrics, tmp_path), metrics, tmp_path)
    for name in ("mouth", "av_align"):
        line = by_control(results, name, "all")["shuffled"]
        assert line["p"] < 0.01 and line["true"] > line["value"], line
    late = by_control(results, "mouth", "all")
    assert late["0.4 s late"]["value"] < late["0.4 s late"]["true"] - 0.2 and late["0.2 s early"]["p"] < 0.01
    assert layout.BLIND not in markdown(results, summarise(results))
    summary = summarise(results).cells["mine", "all", "mouth"]
    assert dict(summary.extras)["shuffled"] == late["shuffled"]["value"], "mouth re-pairs what it keeps of the clips"


def test_on_shuffled_clips_they_say_that_they_cannot(world, tmp_path):
    rows, folder = world[0][:12], world[1]
    metrics: list[Metric] = [Mouth(), AVAlign()]
    results = controlled(score({"mine": folder / "wrong"}, rows, metrics, tmp_path), metrics, tmp_path)
    text = markdown(results, summarise(results))
    for title in ("Mouth", "AV-Align"):
        assert f"{title} of mine {layout.BLIND} on these 12 clips" in text
        assert any(line.startswith(f"| {title} ↑ |") and layout.BLIND in line for line in text.splitlines())


def test_onsets_are_told_from_shuffled_ones_and_do_not_look_at_pictures(tmp_path):
    rows = []
    for i in range(COUNT):
        sound = np.zeros(2 * RATE, np.float32)
        for at in np.random.default_rng(i).choice(np.arange(2000, 30_000, 4000), 3, replace=False):
            sound[at : at + 800] = 0.8 * np.sin(np.arange(800)) * np.linspace(1, 0, 800)
        Clip(np.zeros((50, 16, 16, 3), np.uint8), sound).save(tmp_path / "clips" / f"o{i}.mp4")
        rows.append(Row(f"o{i}", reference=str(tmp_path / "clips" / f"o{i}.mp4")))
    metrics = [Onset()]
    results = controlled(score({"mine": tmp_path / "clips"}, rows, metrics, tmp_path), metrics, tmp_path)
    found = by_control(results, "onset_acc", "all")
    assert found["shuffled"]["p"] < 0.01 and found["shuffled"]["true"] == 1 > found["shuffled"]["value"] + 0.2
    assert found["still"]["value"] == 1 and found["silent"]["value"] == 0


def test_what_no_clip_has_a_value_of_is_not_tried(clips, tmp_path):
    metrics = [Onset()]  # there are no true clips to compare with
    results = score({"mine": clips / "true"}, TEST, metrics, tmp_path)
    assert "nothing to try" in cost(results, metrics)
    assert not controlled(results, metrics, tmp_path).controls and not (tmp_path / "controls").exists()


def test_the_command_tells_its_cost_first_and_shows_what_came_out(clips, tmp_path, capsys):
    command = ["evaluate", "--videos", str(clips / "true"), "--metrics", "av_align", "--controls", "-o", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"controls: {COUNT} clips x 7 ways x 1 metric (av_align), {7 * COUNT} scores less those")
    assert "### Controls" in (tmp_path / "table.md").read_text() and (tmp_path / "controls/scores.jsonl").is_file()
    assert main([*command[:4], "audiobox", *command[5:]]) == 0, "a metric that is none of sync, or cannot run"
    assert "nothing to try" in capsys.readouterr().out


# Planted scores of measures whose weights cannot be had here ----------------------------------------------------------


def planted(metric: type[Metric], gain: float, count: int = 40) -> Results:
    """Scores of a metric's columns of sync: shuffled clips are worse by `gain` of the noise's deviation."""
    rng, columns = np.random.default_rng(5), [column for column in metric.columns if column.sync]
    test = [Row(f"p{i}") for i in range(count)]

    def rows(method: str, worse: float) -> list[dict]:
        return [
            {"method": method, "id": row.id, "metric": c.name, "reason": None}
            | {"value": 5 + rng.normal() + worse * (1 if c.better == "lower" else -1)}
            for c in columns
            for row in test
        ]

    true = Results(rows("mine", 0), test, metric.columns, protocol={metric.name: {}})
    return told(true, [metric()], [row for control in CONTROLS for row in rows(f"{control}: mine", gain)])


@pytest.mark.parametrize("metric", [SyncNet, DeSync, IBScore, Javis])
def test_a_difference_that_is_planted_is_seen_and_none_is_told_as_none(metric):
    columns = [column for column in metric.columns if column.sync]
    sees, blind = planted(metric, 2.0), planted(metric, 0.0)
    for column in columns:
        for results, seen in ((sees, True), (blind, False)):
            line = by_control(results, column.name, "all")["shuffled"]
            assert (line["p"] < 0.01) == seen == layout.seen(column, line)
            cell = summarise(results).cells["mine", "all", column.name]
            assert layout.blind(column, cell) != seen
            assert (layout.BLIND in layout.extra(column, cell, "p")) != seen
            [sentence] = [s for s in notes.tried(results) if s.startswith(column.title) or f", {column.title}" in s]
            assert ("here it says nothing of sync" in sentence) != seen


def test_a_control_that_fewer_clips_have_says_so_and_a_few_clips_tell_nothing():
    column = DeSync.columns[0]
    head = {"method": "mine", "subset": "all", "column": "desync"}
    few = head | {"control": "shuffled", "true": 0.5, "value": 0.9, "p": 1.0, "clips": 1}
    late = head | {"control": "0.2 s late", "true": 0.25, "value": 0.75, "p": 0.01, "clips": 8}
    results = Results([], [Row("a")], [column], controls=[few, late])
    assert layout.controls(results)[1] == [["DeSync ↓", "mine", "0.25", "0.90 (0.50 true, n 1)", "0.75*", "8"]]
    assert notes.tried(results)[0].endswith(
        "on this one clip (0.50 against 0.90, p = 1.000): fewer than 6 tell nothing."
    )


def test_what_is_better_shuffled_than_true_is_not_seen_however_sure():
    results = planted(DeSync, -2.0)
    line = by_control(results, "desync", "all")["shuffled"]
    assert line["p"] < 0.001 and not layout.seen(DeSync.columns[0], line)
    assert layout.blind(DeSync.columns[0], summarise(results).cells["mine", "all", "desync"])


def test_whether_a_measure_sees_sync_is_of_the_clips_that_have_a_value_shuffled():
    """Of 20 clips 8 have one, and there the true ones are better; the others' values are the lowest of all."""
    column, test = Column("in_sync", "In sync", sync=True), [Row(f"p{i}") for i in range(20)]

    def rows(method: str, values: list[float | None]) -> list[dict]:
        head = {"method": method, "metric": "in_sync"}
        why = [None if value is not None else "no sound" for value in values]
        return [head | {"id": r.id, "value": v, "reason": w} for r, v, w in zip(test, values, why, strict=True)]

    true: list[float | None] = [1 + 0.01 * i if i < 8 else -5.0 for i in range(20)]
    results = Results(rows("mine", true), test, [column], protocol={"in_sync": {}})
    shuffled: list[float | None] = [0.5 if i < 8 else None for i in range(20)]
    results = told(results, [InSync()], rows("shuffled: mine", shuffled))
    cell = summarise(results).cells["mine", "all", "in_sync"]
    assert cell.value < dict(cell.extras)["shuffled"] and layout.seen(column, results.controls[0])
    assert not layout.blind(column, cell) and layout.BLIND not in markdown(results, summarise(results))


def test_a_deaf_measure_is_told_in_every_form_of_the_table(clips, tmp_path):
    metrics: list[Metric] = [InSync(), Deaf()]
    methods = {"mine": clips / "true", "other": clips / "wrong"}
    one = controlled(score({"mine": clips / "true"}, TEST, metrics, tmp_path / "1"), metrics, tmp_path / "1")
    two = controlled(score(methods, TEST, metrics, tmp_path / "2"), metrics, tmp_path / "2")
    for results in (one, two):
        text = markdown(results, summarise(results))
        assert f": {layout.BLIND}" in text.split("###")[0], "beneath or beside the value itself"
        assert "### Controls: what measures of sync say" in text and "| Deaf ↓ | mine |" in text
        assert "Deaf of mine cannot tell true from shuffled on these 12 clips" in text
    assert "In sync of other cannot tell" in markdown(two, summarise(two)), "whose clips were shuffled"


def test_controls_go_with_results_to_other_labs(clips, tmp_path):
    results = tried(clips / "true", tmp_path)
    (path := tmp_path / "results.json").write_text(exchange.dumped(results))
    read = exchange.read(path)
    assert read.controls == results.controls and read.pooled == results.pooled
    merged = merge({"a": read, "b": read})
    assert {line["method"] for line in merged.controls} == {"mine (a)", "mine (b)"}
    assert layout.controls(merged)[1][0][3] == layout.controls(results)[1][0][3]
