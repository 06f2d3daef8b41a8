"""What a matrix tells: numbers worked out by hand, what is missing by its name, and a page that stands alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from ccl.ablation import dots, results, tables
from ccl.ablation.claims import Claim, Test
from ccl.ablation.curves import smooth
from ccl.ablation.drawing import canvas
from ccl.ablation.finished import curve_of, gather
from ccl.ablation.matrix import Matrix, Row, Run
from ccl.ablation.numbers import Number, Numbers, numbers
from ccl.ablation.tables import Told
from ccl.evaluation.metrics.mouth import floor
from ccl.evaluation.store import packed, unpacked
from ccl.media import write_clip
from helpers.matrices import Values, fake, write_matrix
from helpers.tiny_clips import tiny_clip

ROWS = (Row("base", "gate", paper="baseline"), Row("tarp", "gate_tarp", paper="TARP"), Row("ucg", "gate_tarp"))
RUNS = ("gate", "gate_tarp")
NOISE = np.random.default_rng(0).normal(0, 0.05, (20, 3, 40))


def three(**more) -> Matrix:
    return fake(RUNS, ROWS, **more)


def steady(row: int, seed: int, clip: int) -> Values:
    """Row r's mouth is 0.4 + 0.1 r, 0.01 more at each seed; of its 4 words 2 - r are wrong."""
    return Values(0.4 + 0.1 * row + 0.01 * seed + NOISE[0, 0, clip], 2.0 - row, 4.0)


def found(folder: Path, matrix: Matrix) -> Numbers:
    return numbers(matrix, gather(matrix, folder))


def difference(told: Numbers, row: str, measure: str):
    return next(d for d in told.differences if (d.row, d.column.name) == (row, measure))


def test_rows_are_means_over_seeds_with_their_deviation(tmp_path):
    write_matrix(tmp_path, three(), steady)
    one = found(tmp_path, three()).rows["tarp", "mouth"]
    base = NOISE[0, 0, :10]
    mean = (base[::2].mean() + base[1::2].mean()) / 2  # of easy and hard
    assert one.value == pytest.approx(0.51 + mean) and one.sd == pytest.approx(0.01) and one.clips == 10
    assert one.seeds == pytest.approx({0: 0.5 + mean, 1: 0.51 + mean, 2: 0.52 + mean})


def test_a_row_stands_beside_what_its_shuffled_clips_give(tmp_path):
    """Openings that follow their own clip's loudness in one row, and nobody's in the other."""
    matrix = fake(RUNS, ROWS[:2], seeds=(0, 1))
    write_matrix(tmp_path, matrix, steady)
    rng = np.random.default_rng(0)
    for row, follows in (("base", False), ("tarp", True)):
        for seed in matrix.seeds:
            out = tmp_path / "rows" / f"{row}-s{seed}" / "features" / "mouth" / row
            out.mkdir(parents=True)
            for clip in range(10):
                loud, other = rng.random((2, 40))
                (out / f"c{clip}.npy").write_bytes(packed(np.stack([loud if follows else other, loud])))
    (tmp_path / "rows" / "tarp-s1" / "features" / "mouth" / "tarp" / "c3.npy").write_bytes(b"half")  # is passed over
    chance = gather(matrix, tmp_path).chance
    kept = tmp_path / "rows" / "tarp-s0" / "features" / "mouth" / "tarp"
    parts = [[unpacked((kept / f"c{clip}.npy").read_bytes()) for clip in range(start, 10, 2)] for start in (0, 1)]
    subsets = [floor(part) for part in parts]  # easy, hard
    assert chance["tarp", "mouth"][0]["shuffled"] == pytest.approx(np.mean(subsets)), "as the value it stands beside"
    assert set(chance) == {("base", "mouth"), ("tarp", "mouth")} and set(chance["tarp", "mouth"]) == {0, 1}
    assert all(one["p"] < 0.001 and abs(one["shuffled"]) < 0.1 for one in chance["tarp", "mouth"].values())
    assert all(one["p"] > 0.01 for one in chance["base", "mouth"].values())
    results.write(matrix, tmp_path)
    said = (tmp_path / "table.md").read_text()
    line = next(line for line in said.partition("## Chance")[2].splitlines() if "tarp" in line)
    cells = [unescape(cell).strip() for cell in line.strip("|").split("|")]
    assert cells[5] == "< 0.001, < 0.001" and float(cells[2]) - float(cells[3]) == pytest.approx(
        float(cells[4]), abs=0.002
    )
    assert "how often a shuffling" in (tmp_path / "report.html").read_text()


def test_rows_are_compared_as_the_matrix_says(tmp_path):
    write_matrix(tmp_path, three(), steady)
    told = found(tmp_path, three())
    assert {(d.row, d.versus) for d in told.differences} == {("tarp", "base"), ("ucg", "tarp")}
    told = found(tmp_path, three(compare=(("ucg", "base"),)))
    assert {(d.row, d.versus) for d in told.differences} == {("ucg", "base")}
    assert difference(told, "ucg", "mouth").value == pytest.approx(0.2)


def test_a_rate_differs_by_sums_not_by_clips(tmp_path):
    """Two clips of easy, of 2 and 8 words: 1 and 1 wrong against 0 and 4."""
    matrix = fake(RUNS, ROWS[:2], seeds=(0,))
    words = {0: (1.0, 2.0), 1: (0.0, 1.0), 2: (1.0, 8.0), 3: (0.0, 1.0)}
    other = {**words, 0: (0.0, 2.0), 2: (4.0, 8.0)}
    write_matrix(tmp_path, matrix, lambda r, s, c: Values(0.5, *(other if r else words)[c]), clips=4)
    told = found(tmp_path, matrix)
    assert told.rows["base", "wer"].value == pytest.approx((2 / 10 + 0) / 2)
    assert difference(told, "tarp", "wer").value == pytest.approx((4 / 10 - 2 / 10) / 2)  # of clips' ratios it is 0


def test_a_star_needs_seeds_that_agree(tmp_path):
    def values(row: int, seed: int, clip: int) -> Values:
        gain = {1: 0.1, 2: (0.5, 0.0, -0.2)[seed]}.get(row, 0.0)
        return Values(0.3 + gain + NOISE[row, seed, clip] + NOISE[3, 0, clip], 1.0, 4.0)

    matrix = three(compare=(("tarp", "base"), ("ucg", "base")))
    write_matrix(tmp_path, matrix, values, clips=40)
    told = found(tmp_path, matrix)
    same, apart = difference(told, "tarp", "mouth"), difference(told, "ucg", "mouth")
    assert same.starred and not apart.starred
    assert apart.p < 0.05 and apart.low < 0 < apart.high  # these three models differ; three others might not
    assert not difference(told, "tarp", "wer").starred


def test_clips_that_one_row_lacks_at_one_seed_are_none_of_any(tmp_path):
    def values(row: int, seed: int, clip: int) -> Values:
        if (row, seed, clip) == (1, 2, 0):
            return Values("no mouth is found")
        return Values(5.0 if clip == 0 else 1.0 + row)

    write_matrix(tmp_path, three(), values, clips=4)
    told = found(tmp_path, three())
    assert [told.rows[row.name, "mouth"].value for row in ROWS] == pytest.approx([1.0, 2.0, 3.0])
    assert told.rows["base", "mouth"].clips == 3 and told.rows["base", "wer"].clips == 4


def test_a_row_whose_weights_are_absent_says_so_and_the_others_stand(tmp_path):
    lacking = "whisper-large-v3 is not here: ccl weights fetch whisper-large-v3"
    write_matrix(tmp_path, three(), lambda r, s, c: Values(0.5, lacking if r == 1 else 1.0, lacking if r == 1 else 4.0))
    results.write(three(), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert f"row tarp, WER: {lacking}" in text and f"| tarp: {lacking} |" in text
    told = found(tmp_path, three())
    assert told.rows["ucg", "wer"].value == 0.25 and np.isnan(told.rows["tarp", "wer"].value)
    assert "| tarp | 3 of 3 | — | 4.67%" in text  # the paper's number stands where ours is not


def test_half_a_matrix_names_what_is_missing(tmp_path):
    matrix = three(claims=(Claim("UCG helps", (Test("ucg", "tarp", "mouth"),)),))
    write_matrix(tmp_path, matrix, steady, steps=20)
    shutil.rmtree(tmp_path / "rows" / "ucg-s1")
    shutil.rmtree(tmp_path / "rows" / "ucg-s2")
    shutil.rmtree(tmp_path / "runs" / "gate_tarp-s2")
    log = tmp_path / "runs" / "gate-s0" / "losses.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:12]) + '{"batch": 12, "st')  # as a kill leaves it
    scores = tmp_path / "rows" / "base-s0" / "scores.jsonl"
    scores.write_text("".join(scores.read_text().splitlines(keepends=True)[:-6]))
    (tmp_path / "rows" / "base-s2.json").write_text('{"whole": false}')
    (tmp_path / "rows" / "base-s1.json").write_text('{"whole": true}')
    (tmp_path / "runs" / "gate-s1.json").write_text('{"whole": false}')
    results.write(matrix, tmp_path)
    text = (tmp_path / "table.md").read_text()
    for told in (
        "Not finished: 5 of 9 rows at their seeds are there.",
        "- row ucg, seeds 1, 2: not sampled and scored",
        "- row base, seed 0: 9 of 10 clips are scored",
        "- run gate_tarp, seed 2: not trained",
        "- run gate, seed 0: at step 12 of 20",
        "- run gate, seed 1: at step 20, not whole yet",
        "- row base, seed 2: not whole yet",
        "| ucg | 1 of 3 |",
        "| undecided | UCG helps |",  # of one seed
    ):
        assert told in text
    assert "| undecided |" in text and not re.search(r"\| +\| +\| +\| +\| +\|$", text.split("## Results")[1], re.M)
    assert "Missing" in (tmp_path / "report.html").read_text()


def test_nothing_at_all_is_told_as_well(tmp_path):
    results.write(three(), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert (
        "- row base, seeds 0, 1, 2: not sampled and scored" in text and "- run gate, seeds 0, 1, 2: not trained" in text
    )
    assert "| base | missing | 4.52% | 4.53 |" in text
    assert not list(tmp_path.glob("*.png"))


CLAIMS = (
    Claim("TARP helps sync", (Test("tarp", "base", "mouth"),)),
    Claim("TARP hurts sync", (Test("base", "tarp", "mouth"),)),
    Claim("UCG helps sync at no cost of words", (Test("ucg", "tarp", "mouth"), Test("ucg", "tarp", "wer", 0.02))),
    Claim("TARP converges faster", (Test("tarp", "base", "loss"),)),
)


def test_claims_are_decided_by_their_intervals(tmp_path):
    def values(row: int, seed: int, clip: int) -> Values:
        return Values(0.4 + 0.1 * row + NOISE[row, seed, clip] / 9, float(clip % 3 + (row == 2)), 20.0)

    def loss(run: int, seed: int, step: int) -> float:
        return 1 + NOISE[5, seed, step] - 0.01 * run * (1 + NOISE[6, seed, step])

    matrix = three(claims=CLAIMS)
    write_matrix(tmp_path, matrix, values, clips=20, steps=39, loss=loss)
    decided = found(tmp_path, matrix).decided
    assert [one.verdict for one in decided] == ["holds", "does not hold", "does not hold", "holds"]
    (_, sync, _), (_, words, d) = decided[2].tests
    assert (sync, words) == ("holds", "does not hold") and d.gain == pytest.approx((-0.05, -0.05, -0.05))
    text = tables.markdown(Told(matrix, gather(matrix, tmp_path), found(tmp_path, matrix), {}))
    assert "| holds | TARP helps sync | tarp against base: Mouth ↑ | +0.1" in text
    assert "| - does not hold |  | ucg against tarp: WER ↓, no worse than by 2.00% | -5.00% |" in text


def test_losses_are_compared_at_equal_steps_of_the_joint_task(tmp_path):
    matrix = three()
    write_matrix(tmp_path, matrix, steady, steps=39, loss=lambda run, seed, step: 2.0 * step + run * (seed - 4.0))
    d = difference(found(tmp_path, matrix), "gate_tarp", "loss")
    assert d.seeds == pytest.approx({0: -4.0, 1: -3.0, 2: -2.0}) and d.value == pytest.approx(-3.0)
    logs = [(tmp_path / "runs" / f"gate-s{seed}" / "losses.jsonl").read_text().splitlines() for seed in range(3)]
    joint = [{row["step"] for row in map(json.loads, log) if row["task"] == "joint"} for log in logs]
    assert d.clips == len(set.union(*joint)) and joint[0] != joint[1]


def test_of_steps_that_mix_tasks_the_joint_tasks_own_losses_are_compared(tmp_path):
    write_matrix(tmp_path, three(), steady, steps=3, loss=lambda run, seed, step: 1.0)
    log = tmp_path / "runs" / "gate-s0" / "losses.jsonl"
    joint = {"joint/loss": 3.0, "joint/video": 1.0, "joint/audio": 2.0}
    rows = [
        {"batch": 0, "step": 1, "task": "mixed", "loss": 9.0, **joint, "a2v/loss": 12.0, "a2v/video": 12.0},
        {"batch": 1, "step": 2, "task": "mixed", "loss": 9.0, "single/loss": 6.0, "a2v/loss": 12.0},
        {"batch": 2, "step": 3, "task": "joint", "loss": 5.0, "video": 2.0, "audio": 3.0},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = curve_of("gate", 0, tmp_path)
    assert curve.steps.tolist() == [1, 3] and curve.last == 3
    assert {name: x.tolist() for name, x in curve.losses.items()} == {"loss": [3, 5], "video": [1, 2], "audio": [2, 3]}


def test_what_an_interaction_asks_to_lower_beside_the_streams_losses_is_not_compared(tmp_path):
    write_matrix(tmp_path, three(), steady, steps=3, loss=lambda run, seed, step: 4.0)
    log = tmp_path / "runs" / "gate-s0" / "losses.jsonl"
    masked = {"task": "joint", "loss": 4.07, "video": 1.0, "audio": 3.0, "face_mask": 0.7}
    log.write_text("".join(json.dumps({"batch": step - 1, "step": step} | masked) + "\n" for step in (1, 2, 3)))
    assert curve_of("gate", 0, tmp_path).losses["loss"] == pytest.approx(4.0)


def test_a_moving_average_forgets_its_beginning():
    assert smooth(np.array([1.0, 3.0]), 0.5) == pytest.approx([1.0, (0.5 * 1 + 3) / 1.5])
    assert smooth(np.full(50, 2.0)) == pytest.approx(2.0)


def test_the_table_as_numbers(tmp_path):
    write_matrix(tmp_path, three(), steady)
    results.write(three(), tmp_path)
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    one = next(line for line in lines if (line["row"], line["measure"]) == ("tarp", "wer"))
    assert float(one["value"]) == 0.25 and float(one["difference value"]) == -0.25 and one["compared with"] == "base"
    assert float(one["paper"]) == 0.0467 and float(one["sd"]) == 0 and one["seeds"] == "3"
    unmeasured = next(line for line in lines if (line["row"], line["measure"]) == ("tarp", "sync_c"))
    assert float(unmeasured["paper"]) == 5.05 and unmeasured["missing"] == "not measured here"


def test_a_model_that_was_there_is_not_missed_as_a_run(tmp_path):
    matrix = replace(three(), runs=(Run("gate", ckpt=""), Run("gate_tarp")))
    write_matrix(tmp_path, matrix, steady)
    shutil.rmtree(tmp_path / "runs")
    told = tables.markdown(Told(matrix, gather(matrix, tmp_path), found(tmp_path, matrix), {}))
    assert "run gate_tarp, seeds 0, 1, 2: not trained" in told and "run gate," not in told
    assert "Rows of gate are of one model each" in told


def test_a_row_of_another_paper_is_told(tmp_path):
    matrix = fake(RUNS, [Row("a", "gate", paper="no such row")])
    with pytest.raises(ValueError, match="row a is the paper's 'no such row'"):
        results.write(matrix, tmp_path)


def test_the_page_holds_the_clips_that_differ_most_of_the_same_prompt_and_seed(tmp_path):
    def values(row: int, seed: int, clip: int) -> Values:
        special = {(1, 0, 7): 0.9, (1, 2, 8): -0.9}.get((row, seed, clip))
        return Values(0.5 + 0.001 * clip if special is None else special)

    matrix = fake(RUNS, ROWS[:2], claims=(Claim("<b>TARP</b> helps", (Test("tarp", "base", "mouth"),)),))
    write_matrix(tmp_path, matrix, values, clips=30, steps=20)
    write_clip(tiny_clip(1), tmp_path / "rows" / "tarp-s0" / "clips" / "c7.mp4")
    results.write(matrix, tmp_path)
    text = (tmp_path / "report.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    ids = [sample["id"] for sample in data["samples"]]
    assert {"c7, seed 0", "c8, seed 2"} <= set(ids) and len(ids) < 90 and data["order"] == "apart"
    sample = data["samples"][ids.index("c7, seed 0")]
    assert [clip["values"]["mouth"] for clip in sample["clips"]] == [0.507, 0.9] and sample["speech"] == "hello there"
    assert sample["clips"][1]["data"] in text
    assert text.count('src="data:image/png;base64,') == 2  # of the rows, and of the losses
    assert "&lt;b&gt;TARP&lt;/b&gt; helps" in text and "<b>TARP</b>" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text), "the page needs no other file"


def test_a_row_is_drawn_at_its_value_its_interval_and_its_seeds():
    axis = canvas(2.0, 1.0).subplots()
    dots.line(axis, Number(0.5, low=0.4, high=0.7, seeds={0: 0.45, 1: 0.55}), 3, "C0")
    dots.line(axis, Number(missing="not sampled and scored"), 4, "C1")
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]
    assert drawn == [([0.4, 0.7], [3, 3]), ([0.5], [3]), ([0.45, 0.55], [3, 3])]


def test_twenty_rows_of_three_seeds_are_told_in_seconds(tmp_path):
    rows = [Row(f"row {i}", f"run {i % 4}") for i in range(20)]
    matrix = fake([f"run {i}" for i in range(4)], rows)

    def values(row: int, seed: int, clip: int) -> Values:
        return Values(0.4 + 0.01 * row + NOISE[row, seed, clip % 40], float(clip % 4), 5.0)

    write_matrix(tmp_path, matrix, values, clips=100)
    start = time.process_time()
    told = found(tmp_path, matrix)
    assert time.process_time() - start < 8  # 2 to 3 where nothing else runs
    assert len(told.rows) == 20 * 3 and difference(told, "row 19", "mouth").value == pytest.approx(0.01, abs=0.02)
