"""Answers read rightly or refused with file and line, and what they say: a known bias comes back."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from ccl import cli
from ccl.files import FileError
from ccl.study import found, read_answers, read_key
from ccl.study.agreement import alpha, both_ways, same_answer
from ccl.study.answers import Answer
from ccl.study.design import SAME, SHUFFLED, TRUE, Trial, compared, parts
from ccl.study.findings import taken
from ccl.study.key import Key
from ccl.study.questions import questions_of, right_answer
from ccl.study.strengths import strengths
from ccl.study.tables import markdown

SYSTEMS = ("ours", "ovi", "mova")


def key_of(methods=SYSTEMS[:2], rows: int = 4, questions=("sync", "picture")) -> Key:
    trials = [
        Trial(t.row, t.sides, (f"{t.row}{t.sides[0]}", f"{t.row}{t.sides[1]}"))
        for t in compared(methods, [f"r{number}" for number in range(rows)], None, 0)
    ]
    trials.append(Trial("r0", (methods[0],) * 2, ("c", "c"), SAME))
    trials.append(Trial("r1", ("r2", TRUE), ("wrong", "right"), SHUFFLED))
    return Key("0123456789ab", 0, list(methods), questions_of(questions), trials, 3)


def line(key: Key, rater: str, trial: int, question: str, side: str | None, turned: bool = False, **other) -> dict:
    """An answer as the page writes it, with the trial shown as it stands or turned."""
    shown = key.trials[trial].turned() if turned else key.trials[trial]
    word = "broken" if side is None else "tie" if side == "" else ("left", "right")[shown.sides.index(side)]
    names = dict(zip(("left", "right"), shown.clips, strict=True))
    return {"study": key.study, "rater": rater, "trial": trial, "question": question, "answer": word} | names | other


def saved(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def whole(key: Key, rater: str, better: str, checks: bool = True) -> list[dict]:
    """All answers of a rater who always takes one system, and gets the checks right or wrong."""
    made = []
    for place, (trial, question) in product(range(len(key.trials)), [(None, q) for q in key.questions]):
        trial = key.trials[place]
        right = right_answer(trial.check, question) if trial.check else None
        side = better if not trial.check else right if checks else trial.sides[0]
        made.append(line(key, rater, place, question, side or "", turned=place % 2 == 1))
    return made


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_side_is_what_stood_there_whichever_way_round(tmp_path: Path) -> None:
    key = key_of()
    lines = [line(key, "ann", 0, "sync", "ovi", turned=False), line(key, "bob", 0, "sync", "ovi", turned=True)]
    assert lines[0]["answer"] != lines[1]["answer"]
    assert [a.side for a in read_answers(key, [saved(tmp_path / "a.jsonl", lines)])] == ["ovi", "ovi"]


def test_the_key_comes_back_as_it_was(tmp_path: Path) -> None:
    key_of().write(tmp_path)
    assert read_key(tmp_path) == key_of()


GOOD = line(key_of(), "ann", 0, "sync", "ours")
BAD = {
    "no JSON": '{"study": "0123456789ab", "rat',
    "is no JSON object": "[1, 2]",
    "is of the study 'other', and the key is of '0123456789ab'": {**GOOD, "study": "other"},
    "'study' is missing; it must be text": {k: v for k, v in GOOD.items() if k != "study"},
    "'trial' is 99; this study has 0 to 5": {**GOOD, "trial": 99},
    "'trial' is -1;": {**GOOD, "trial": -1},
    "'trial' is True;": {**GOOD, "trial": True},
    "'trial' is 1.0;": {**GOOD, "trial": 1.0},
    "'question' is 'taste'; this study asks sync, picture": {**GOOD, "question": "taste"},
    "'answer' is 'yes'; it must be one of left, right, tie, broken": {**GOOD, "answer": "yes"},
    "'left' and 'right' are not the clips of trial 0": {**GOOD, "left": "../../etc/passwd"},
    "'rater' has no letter": {**GOOD, "rater": "  "},
    "'rater' is 7; it must be text": {**GOOD, "rater": 7},
    "more than 200": {**GOOD, "rater": "x" * 201},
    "half a character": {**GOOD, "rater": "\ud800"},
    "'ann' has answered trial 0 for sync already": GOOD,
}


@pytest.mark.parametrize("said", list(BAD))
def test_a_bad_line_is_one_sentence_with_file_and_line(said: str, tmp_path: Path, capsys) -> None:
    key_of().write(tmp_path)
    bad = BAD[said] if isinstance(BAD[said], str) else json.dumps(BAD[said])
    (tmp_path / "answers.jsonl").write_text(f"{json.dumps(GOOD)}\n{bad}")
    assert cli.main(["study", "read", str(tmp_path), str(tmp_path / "answers.jsonl")]) == 1
    told = capsys.readouterr().err
    assert f"answers.jsonl, line 2: {said}" in told.replace("is not JSON", "no JSON") or said in told
    assert "answers.jsonl, line 2:" in told and told.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_answers_that_are_not_there_are_told(tmp_path: Path) -> None:
    key_of().write(tmp_path)
    with pytest.raises(FileError, match=r"none\.jsonl is no file, nor a folder with"):
        read_answers(key_of(), [tmp_path / "none.jsonl"])
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(FileError, match=r"empty\.jsonl holds no answers"):
        read_answers(key_of(), [tmp_path / "empty.jsonl"])


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (path := tmp_path / "answers/ann.jsonl").write_text(json.dumps(GOOD))
    assert len(read_answers(key_of(), [path.parent, path, tmp_path / "answers/../answers/ann.jsonl"])) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}', '{"version": 1, "trials": 3}', "[]", '{"version": 2}'])
def test_a_bad_key_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(FileError, match=r"key\.json"):
        read_key(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("methods", ["ours"]),
        ("methods", "ours"),
        ("questions", []),
        ("seed", "0"),
        ("trials", [{"row": "r"}]),
        ("trials", [{"row": "r", "sides": ["ours", "ours"], "clips": ["c", "c"], "check": "taste"}]),
    ],
)
def test_a_key_with_hostile_values_is_told(name: str, value: object, tmp_path: Path) -> None:
    key_of().write(tmp_path)
    values = json.loads((tmp_path / "key.json").read_text()) | {name: value}
    (tmp_path / "key.json").write_text(json.dumps(values))
    with pytest.raises(FileError, match=r"key\.json"):
        read_key(tmp_path)


def test_questions_are_known_ones_or_texts_of_ones_own() -> None:
    assert questions_of(["sync", "music=Which music fits?"])["music"] == "Which music fits?"
    for bad in (["taste"], ["sync", "sync"], ["a b=What?"], ["x="], ["=What?"]):
        with pytest.raises(ValueError, match="question"):
            questions_of(bad)


# What they say -------------------------------------------------------------------------------------------------------


def pool(key: Key, raters: int, each: int | None, bias: float, seed: int) -> list[Answer]:
    """Raters who prefer the first system by `bias`, each with a leaning of its own, on rows that have theirs."""
    rng = np.random.default_rng(seed)
    plain = [trial for trial in key.trials if not trial.check]
    leaning = rng.normal(0, 0.5, raters)
    row = {name: rng.normal(0, 1.0) for name in sorted({trial.row for trial in plain})}
    made = []
    for number, part in enumerate(parts(plain, raters, each, seed)):
        for showing in part:
            trial = plain[showing.trial]
            felt = bias + leaning[number] + row[trial.row] + rng.logistic()
            side = "" if abs(felt) < 0.25 else trial.sides[0] if felt > 0 else trial.sides[1]
            made.append(Answer(f"rater{number:02d}", trial, "sync", side))
    return made


def true_rate(bias: float) -> float:
    rng = np.random.default_rng(0)
    felt = bias + rng.normal(0, 1.25**0.5, 10**6) + rng.logistic(size=10**6)
    return float(np.mean((felt > 0.25) + 0.5 * (np.abs(felt) <= 0.25)))


@pytest.mark.parametrize(("raters", "each"), [(12, None), (30, 10)])
def test_a_known_bias_is_recovered_within_its_interval(raters: int, each: int | None) -> None:
    key, held, apart = key_of(rows=30, questions=("sync",)), 0, 0
    for seed in range(40):
        (pair,) = found(key, pool(key, raters, each, 0.8, seed)).pairs
        held += pair.low <= true_rate(0.8) <= pair.high
        apart += pair.told_apart
    assert held >= 35, "of 40, where 38 are to be expected and fewer than 35 come once in 50 times"
    assert apart >= 25


def test_without_a_bias_systems_are_not_told_apart() -> None:
    key = key_of(rows=30, questions=("sync",))
    told = sum(found(key, pool(key, 12, None, 0.0, seed)).pairs[0].told_apart for seed in range(40))
    assert told <= 5


def test_a_resample_takes_an_answer_as_often_as_its_rater_and_its_row() -> None:
    rng = np.random.default_rng(0)
    values, by_rater, by_row = rng.random((3, 4)), rng.integers(0, 3, (5, 3)), rng.integers(0, 3, (5, 4))
    naive = [
        sum(values[i, j] for i, j in product(range(3), range(4)) for _ in range(by_rater[r, i] * by_row[r, j]))
        for r in range(5)
    ]
    assert np.allclose(taken(values, (by_rater.astype(float), by_row.astype(float))), naive)


def test_ties_are_half_wins_and_stand_beside(tmp_path: Path) -> None:
    key = key_of(rows=8, questions=("sync",))
    sides = ["ours", "ours", "", "ovi"] * 2
    lines = [line(key, "ann", place, "sync", side) for place, side in enumerate(sides)]
    (pair,) = found(key, read_answers(key, [saved(tmp_path / "a.jsonl", lines)])).pairs
    assert (pair.wins, pair.ties, pair.losses, pair.value) == (4, 2, 2, 0.625)
    assert pair.low < 0.625 < pair.high and (pair.raters, pair.rows) == (1, 8)


@pytest.mark.parametrize(("raters", "rows", "enough"), [(1, 2, False), (5, 5, False), (1, 6, True), (6, 1, True)])
def test_fewer_than_six_raters_and_rows_tell_nothing_apart(raters: int, rows: int, enough: bool) -> None:
    """All answers are for one system; a sign test of five that all go one way says p = 2 / 2**5 = 0.06."""
    key = key_of(SYSTEMS, rows=rows, questions=("sync",))
    plain = [trial for trial in key.trials if not trial.check]
    findings = found(key, [Answer(f"{n}", trial, "sync", min(trial.sides)) for n in range(raters) for trial in plain])
    assert {pair.told_apart for pair in findings.pairs} == {enough}
    assert {np.isnan([one.low, one.high]).any() for one in (*findings.pairs, *findings.places)} == {not enough}


def test_strengths_are_those_of_greatest_likelihood() -> None:
    wins = np.array([[0, 7.5, 9], [2.5, 0, 6], [1, 4, 0]])

    def lost(log_p: np.ndarray) -> float:
        p = np.exp(log_p)
        pairs = -sum(wins[i, j] * np.log(p[i] / (p[i] + p[j])) for i, j in product(range(3), range(3)) if i != j)
        return pairs - sum(0.5 * np.log(one / (one + 1)) + 0.5 * np.log(1 / (one + 1)) for one in p)

    p = np.exp(minimize(lost, np.zeros(3), tol=1e-12).x)
    assert np.allclose(strengths(wins), p / (1 + p), atol=1e-5)
    assert np.allclose(strengths(np.stack([wins, wins.T]))[0], strengths(wins))


def test_a_system_that_always_wins_has_an_end() -> None:
    chances = strengths(np.array([[0.0, 10.0], [0.0, 0.0]]))
    assert 0.5 < chances[0] < 1 and np.allclose(chances.sum(), 1)
    assert np.allclose(strengths(np.zeros((2, 2))), 0.5)


def test_three_systems_come_in_their_order(tmp_path: Path) -> None:
    key = key_of(SYSTEMS, rows=20, questions=("sync",))
    rng, worth = np.random.default_rng(1), dict(zip(SYSTEMS, (0.0, 2.0, 1.0), strict=True))
    answers = []
    for rater, trial in product(("ann", "bob", "cid"), key.trials):
        if not trial.check:
            first = worth[trial.sides[0]] - worth[trial.sides[1]] + rng.logistic() > 0
            answers.append(Answer(rater, trial, "sync", trial.sides[0 if first else 1]))
    places = found(key, answers).places
    assert [place.system for place in places] == ["ovi", "mova", "ours"]
    assert all(place.low < place.value < place.high for place in places)
    assert all(a.value > b.value for a, b in pairwise(places))
    assert "Bradley" in markdown(key, found(key, answers))


def test_alpha_of_a_case_by_hand() -> None:
    """Three units, (1, 1), (1, 0), (-1, -1): observed 2 / 6; of the values 1 1 1 0 -1 -1 the squared distances of
    ordered pairs add up to 2 (6 * 5 - 1) = 58, expected 58 / 30. Both ways round there are 5 of each sign and two 0:
    2 (12 * 10 - 0) = 240, expected 240 / 132, observed 4 / 12.
    """
    values = np.array([[1.0, 1], [1, 0], [-1, -1], [1, np.nan]])
    assert alpha(values) == pytest.approx(1 - (2 / 6) / (58 / 30))
    assert alpha(both_ways(values)) == pytest.approx(1 - (4 / 12) / (240 / 132))
    assert same_answer(values) == pytest.approx(2 / 3)


def test_alpha_is_that_of_a_loop_over_its_definition() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1, 2, (9, 5)).astype(float)
    values[rng.random((9, 5)) < 0.4] = np.nan
    units = [unit[~np.isnan(unit)] for unit in values]
    units = [unit for unit in units if len(unit) > 1]
    total = sum(map(len, units))
    observed = sum(
        (v - w) ** 2 / (len(unit) - 1)
        for unit in units
        for i, v in enumerate(unit)
        for j, w in enumerate(unit)
        if i != j
    )
    every = np.concatenate(units)
    expected = sum((v - w) ** 2 for i, v in enumerate(every) for j, w in enumerate(every) if i != j) / (total - 1)
    assert alpha(values) == pytest.approx(1 - observed / expected)


def test_alpha_knows_agreement_chance_and_nothing() -> None:
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.integers(-1, 2, (50, 1)), 4, 1).astype(float)
    assert alpha(alike) == 1 and abs(alpha(rng.integers(-1, 2, (4000, 4)).astype(float))) < 0.03
    assert np.isnan(alpha(np.array([[1.0, np.nan], [np.nan, 0.0]])))
    # All prefer the first system: of one way round no chance can be said.
    assert np.isnan(alpha(np.ones((5, 3)))) and alpha(both_ways(np.ones((5, 3)))) == 1


def test_who_fails_the_checks_is_named_and_left_out_unless_all_are_kept(tmp_path: Path, capsys) -> None:
    key = key_of(rows=8)
    key.write(tmp_path)
    saved(tmp_path / "ann.jsonl", whole(key, "ann", "ours"))
    saved(tmp_path / "bob.jsonl", whole(key, "bob", "ovi", checks=False))
    files = [str(tmp_path / "ann.jsonl"), str(tmp_path / "bob.jsonl")]
    assert cli.main(["study", "read", str(tmp_path), *files]) == 0
    said = capsys.readouterr().out
    assert "bob fails the checks (one clip twice 0 of 2, another clip's sound 0 of 1), and is left out." in said
    assert "ours over ovi | 100.0%" in said and "1 raters, 16 answers" in said
    assert cli.main(["study", "read", str(tmp_path), *files, "--keep-all", "-o", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out
    assert "and is counted all the same" in said and "ours over ovi | 50.0%" in said
    rows = (tmp_path / "all/table.csv").read_text().splitlines()
    assert rows[0].startswith("kind,question,a,b,value,low,high,wins,ties,losses") and len(rows) == 7
    assert (tmp_path / "results/table.md").read_text().count("not distinguishable") == 0
    assert cli.main(["study", "read", str(tmp_path), *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["left_out"]) == (key.study, ["bob"])
    assert [one["value"] for one in told["figures"] if one["kind"] == "win rate"] == [1.0, 1.0]


def test_nobody_who_counts_is_told(tmp_path: Path) -> None:
    key = key_of()
    answers = read_answers(key, [saved(tmp_path / "b.jsonl", whole(key, "bob", "ovi", checks=False))])
    with pytest.raises(ValueError, match="none of 1 raters' answers count, all fail the checks"):
        found(key, answers)


def test_what_did_not_play_is_no_answer_and_is_told(tmp_path: Path) -> None:
    key = key_of(questions=("sync",))
    lines = [line(key, "ann", 0, "sync", "ours"), line(key, "ann", 1, "sync", None)]
    findings = found(key, read_answers(key, [saved(tmp_path / "a.jsonl", lines)]))
    assert findings.pairs[0].wins == 1 and sum(findings.broken.values()) == 1
    assert f"on {key.trials[1].row}" in markdown(key, findings)
    assert "- 1 raters, 1 answers.\n" in markdown(key, findings)


def test_names_of_raters_and_systems_are_no_markup(tmp_path: Path) -> None:
    key = key_of(("<b>|x", "=1+1"), questions=("sync",))
    lines = whole(key, "<script>|ann", "=1+1", checks=False)
    findings = found(key, read_answers(key, [saved(tmp_path / "a.jsonl", lines)]), keep_all=True)
    assert "<script>" not in markdown(key, findings) and "<b>" not in markdown(key, findings)
