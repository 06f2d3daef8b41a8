"""Results that go from lab to lab: read as they were written, merged into what one lab would have had, or refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ccl.cli import main
from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables import exchange, table
from ccl.evaluation.tables.merge import merge
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.summary import summarise
from ccl.files.errors import FileError
from helpers import scored
from helpers.metrics import Loudness, Spread, Weightless, run

ORIGIN = {"cu": "audiobox", "sync_c": "sync", "ib_score": "imagebind", "mouth": "mouth"} | dict.fromkeys(
    ("wer", "wer_errors", "wer_words"), "wer"
)
PROTOCOL: dict[str, dict[str, Any]] = {
    "audiobox": {"precision": "bf16", "weights": "a" * 64},
    "wer": {"model": "large-v3", "weights": {"whisper": "b" * 64}},
    "sync": {"min_track": 50, "faces": {"detector": "s3fd", "shots": None}, "legacy_avi": False},
    "imagebind": {"missing": scored.LACKING},
    "mouth": {"envelope": "rms"},
}


def made(methods: tuple[str, ...] = ("ours", "ovi"), **more: Any) -> Results:
    asks = {f"r{i}": f"{i:064x}" for i in range(4)}
    return replace(scored.scored(methods), origin=ORIGIN, protocol=PROTOCOL, asks=asks, **more)


def of(results: Results, method: str, **more: Any) -> Results:
    """One system's part of a scoring."""
    rows = [row for row in results.rows if row["method"] == method]
    own = [line for line in results.pooled if line["method"] == method]
    return replace(results, rows=rows, pooled=own, causes={}, **more)


def with_protocol(results: Results, metric: str, **more: Any) -> Results:
    return replace(results, protocol={**results.protocol, metric: {**results.protocol[metric], **more}})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (path := tmp_path / exchange.NAME).write_text(exchange.dumped(made()))
    return path


def test_what_was_scored_is_read_as_it_was_written(folder, tmp_path):
    results = run(folder, [Loudness(), Spread(), Weightless()], tmp_path / "out", about={"date": "today"})
    table.write(results, tmp_path / "out")
    read = exchange.read(tmp_path / "out")
    for part in ("columns", "pooled", "protocol", "about", "origin", "asks", "true", "rows"):
        assert getattr(read, part) == getattr(results, part), part
    assert [(row.id, row.subset) for row in read.test] == [(row.id, row.subset) for row in results.test]
    assert repr(summarise(read)) == repr(summarise(results)), "the same numbers to the last digit"
    assert set(read.asks) == {f"c{i}" for i in range(6)} and all(len(sum) == 64 for sum in read.asks.values())


def test_everything_that_is_said_of_a_column_is_kept(tmp_path):
    every = Column("fad", "FAD", "lower", 3, True, None, False, True, "VGGish", True, 128)
    usual = Column("", "")
    assert all(getattr(every, f.name) != getattr(usual, f.name) or f.name == "over" for f in fields(Column))
    some = made()
    some = replace(some, columns=[*some.columns, every], origin=some.origin | {"fad": "audiobox"})
    (path := tmp_path / exchange.NAME).write_text(exchange.dumped(some))
    assert exchange.read(path).columns == some.columns


def test_what_a_suite_has_and_we_have_not_goes_with_its_numbers(tmp_path):
    both = made(lacks={"wer": "SenseVoice, its recogniser; Whisper hears instead"})
    (path := tmp_path / exchange.NAME).write_text(exchange.dumped(both))
    assert exchange.read(path).lacks == both.lacks
    merged = merge({"a": of(both, "ours"), "b": of(exchange.read(path), "ovi")})
    assert merged.lacks == both.lacks
    table.write(merged, tmp_path)
    assert "wer: SenseVoice, its recogniser" in (tmp_path / "table.md").read_text()


def test_sums_of_protocols_follow_from_the_protocols(written):
    metrics = json.loads(written.read_text())["metrics"]
    assert metrics["sync"]["sha256"] == exchange.digest(PROTOCOL["sync"])
    assert len({one["sha256"] for one in metrics.values()}) == len(PROTOCOL)
    assert metrics["wer"]["protocol"]["weights"] == {"whisper": "b" * 64}


def test_two_labs_merge_into_the_table_that_one_would_have_had():
    both = made()
    merged = merge({"a": of(both, "ours"), "b": of(both, "ovi")})
    one, other = summarise(both), summarise(merged)
    assert repr(one) == repr(other) and other.pairs
    assert merged.missing == {"imagebind": f"not in a: {scored.LACKING}; not in b: {scored.LACKING}"}


def test_a_merged_table_merges_on(tmp_path):
    three = made(("a", "b", "c"))
    table.write(merge({"1": of(three, "a"), "2": of(three, "b")}), tmp_path)
    merged = merge({"12": exchange.read(tmp_path), "3": of(three, "c")})
    assert repr(summarise(merged)) == repr(summarise(three))


def test_only_rows_that_all_have_are_compared_and_numbers_of_other_sets_are_left_out():
    both = made()
    some = of(both, "ovi", test=[row for row in both.test if row.id != "r3"])
    merged = merge({"a": of(both, "ours"), "b": some})
    assert [row.id for row in merged.test] == ["r0", "r1", "r2"] and not merged.pooled
    assert {row["id"] for row in merged.rows} == {"r0", "r1", "r2"}
    assert merged.about["merged"].startswith("3 rows that all have, of 4 rows of a and 3 rows of b; numbers of whole")
    assert summarise(merged).cells["ours", "hard", "cu"].value == pytest.approx(5.2)


@pytest.mark.parametrize(("theirs", "same"), [("r1", False), ("r0", True)])
def test_sets_of_as_many_clips_compete_only_where_they_are_the_same_clips(theirs, same):
    """Each lab has a distance of three clips of four."""
    column = Column("fvd", "FVD", "lower", 0, pooled=True)

    def lab(method: str, failed: str, value: float) -> Results:
        one = made((method,))
        row = {"method": method, "id": failed, "metric": "fvd", "value": None, "reason": "16 pictures are needed"}
        rows = [*one.rows, row]
        numbers = [
            {"method": method, "subset": s, "name": "fvd", "value": value, "clips": n, "scored": n}
            for s, n in (("easy", 1), ("hard", 2), ("all", 3))
        ]
        return replace(
            one,
            rows=rows,
            pooled=numbers,
            columns=[*one.columns, column],
            origin={**ORIGIN, "fvd": "fvd"},
            protocol={**PROTOCOL, "fvd": {"frames": 16}},
        )

    merged = merge({"a": lab("ours", "r0", 100.0), "b": lab("ovi", theirs, 200.0)})
    cells = summarise(merged).cells
    assert cells["ours", "mean", "fvd"].value == 100 and cells["ours", "mean", "fvd"].best == same
    assert [line.get("common", True) for line in merged.pooled] == [same, True, same] * 2, "all have both hard clips"


def test_systems_of_one_name_get_their_files_name_and_true_clips_stand_once():
    one, other = made(("ours", "ceiling")), made(("ours", "ceiling"))
    merged = merge({"a": one, "b": other})
    assert merged.methods == ["ours (a)", "ours (b)", "ceiling"]
    assert merged.causes.keys() == {"ours (a)", "ours (b)"}


@pytest.mark.parametrize(
    ("metric", "more", "said"),
    [
        ("sync", {"min_track": 20}, "sync was measured by two protocols: its min_track is 50 in a and 20 in b"),
        ("sync", {"faces": {"detector": "yunet", "shots": None}}, "its faces.detector is s3fd in a and yunet in b"),
        ("wer", {"weights": {"whisper": "c" * 64}}, "its weights.whisper is sha256 bbbbbbbbbbbb in a and sha256 ccccc"),
        ("audiobox", {"chunk": 2}, "audiobox was measured by two protocols: its chunk is not told in a and 2 in b"),
        ("sync", {"legacy_avi": 0}, ""),  # false and 0 are one to JSON's readers, not to us, who compare values
    ],
)
def test_mixed_protocols_are_refused_by_the_first_argument_that_differs(metric, more, said):
    both = made()
    files = {"a": of(both, "ours"), "b": with_protocol(of(both, "ovi"), metric, **more)}
    if not said:
        assert merge(files)
        return
    with pytest.raises(ValueError, match=r"measured by two protocols") as error:
        merge(files)
    assert said in str(error.value)


def test_what_one_lab_has_not_measured_is_told_and_not_shown():
    both = made()
    lacks = replace(both, protocol={**PROTOCOL, "wer": {"missing": "whisper is not here"}})
    without = {name: how for name, how in PROTOCOL.items() if name != "mouth"}
    merged = merge({"a": of(both, "ours"), "b": of(replace(lacks, protocol=lacks.protocol), "ovi")})
    assert merged.missing["wer"] == "not in b: whisper is not here"
    assert {column.name for column in merged.shown} == {"cu", "sync_c", "mouth"}
    merged = merge({"a": of(both, "ours"), "b": of(replace(both, protocol=without), "ovi")})
    assert merged.missing["mouth"] == "not in b: it was not asked for"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"asks": {"r1": "f" * 64}}, "the row 'r1' asks for something else in b than in a"),
        ({"test": [replace(row, subset="easy") for row in made().test]}, "the row 'r2' is of another subset in b"),
        ({"test": [replace(row, id=f"x{row.id}") for row in made().test]}, "have no row in common"),
        ({"true": {"r0": "0" * 64}}, "the row 'r0' has another true clip in b than in a"),
        ({"columns": [Column("cu", "CU", "lower"), *scored.COLUMNS[1:]]}, "the column 'cu' is not the same in a"),
        ({"protocol": {"other": {"x": 1}}}, "no metric was measured in all of a, b"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(change, said):
    both = made(true={"r0": "1" * 64})
    with pytest.raises(ValueError, match=said):
        merge({"a": of(both, "ours"), "b": of(both, "ovi", **change)})


def bad(path: list[Any], value: Any) -> Callable[[dict], None]:
    def change(tree: dict) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


BAD = [
    (["format"], "ccl results 9", "format is 'ccl results 9'; it must be 'ccl results 1'"),
    (["rows"], {}, "rows is {}; it must be a list"),
    (["rows", 3, "value"], "7", "rows[3].value is '7'; it must be a finite number or null"),
    (["rows", 3, "value"], True, "rows[3].value is True"),
    (["rows", 3, "value"], 10**400, "rows[3].value is 1000"),
    (["rows", 3, "value"], None, "rows[3].reason is not there; it must be text"),
    (["rows", 3, "reason"], "why not", "rows[3].reason is 'why not'; it must be null beside a value"),
    (["rows", 3, "method"], "nobody", "rows[3].method is 'nobody'; it must be one of its methods"),
    (["rows", 3, "id"], "elsewhere", "rows[3].id is 'elsewhere'; it must be an id of its test set"),
    (["rows", 3, "metric"], "fame", "rows[3].metric is 'fame'; it must be one of its columns"),
    (["rows", 1, "metric"], "cu", "rows[1] has the method, id and metric"),
    (["test", 1, "id"], "r0", "test[1] has the id 'r0', which stands there before"),
    (["test", 1, "asks"], "0x12", "test[1].asks is '0x12'; it must be a sha256"),
    (["test", 1, "subset"], "mean", "test[1].subset is 'mean'"),
    (["columns", 0, "digits"], 99, "columns[0].digits is 99; it must be a whole number from 0 to 12"),
    (["columns", 0, "better"], "more", "columns[0].better is 'more'; it must be higher, lower or empty"),
    (["columns", 0, "metric"], "no", "columns[0].metric is 'no'; it must be one of its metrics"),
    (["columns", 1, "over"], ["cu", "no"], "columns[1].over is ['cu', 'no']; it must be two of its columns"),
    (["metrics", "sync", "protocol", "min_track"], 20, "metrics.sync.sha256 is "),
    (["pooled", 0, "value"], [], "pooled[0].value is []"),
    (["pooled", 0, "name"], "x.y", "pooled[0].name is 'x.y'"),
    (["methods", "ours"], "text", "methods.ours is 'text'; it must be a list"),
    (["about"], None, "about is not there; it must be an object"),
]


@pytest.mark.parametrize(
    ("path", "value", "said"), BAD, ids=lambda x: ".".join(map(str, x)) if isinstance(x, list) else ""
)
def test_what_is_wrong_in_a_file_is_told_with_the_file_and_the_key(path, value, said, written):
    tree = json.loads(written.read_text())
    bad(path, value)(tree)
    written.write_text(json.dumps(tree))
    with pytest.raises(FileError) as error:
        exchange.read(written)
    assert str(error.value).startswith(f"{written}: {said}"), error.value


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 10**5, "\0"])
def test_what_is_no_such_file_is_refused_by_its_name(text, written):
    written.write_text(text)
    with pytest.raises(FileError, match=str(written)):
        exchange.read(written)


# On the command line -------------------------------------------------------------------------------------------------


def lab(folder: Path, results: Results) -> Path:
    folder.mkdir()
    table.write(results, folder)
    return folder


def test_two_labs_folders_become_one_table(tmp_path, capsys):
    both = made(about={"device": "cpu"})
    mine, theirs = lab(tmp_path / "lab1", of(both, "ours")), lab(tmp_path / "lab2", of(both, "ovi"))
    assert main(["evaluate", "merge", str(mine), str(theirs / "results.json"), "-o", str(tmp_path / "out")]) == 0
    assert "lab1, device: cpu" in capsys.readouterr().out
    with (tmp_path / "out/pairs.csv").open() as file:
        assert {(row["a"], row["b"]) for row in csv.DictReader(file)} == {("ours", "ovi")}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "table.md",
        "table.tex",
        "summary.csv",
        "results.json",
    }


def test_what_is_merged_is_not_written_over(tmp_path, capsys, monkeypatch):
    both = made()
    mine, theirs = lab(tmp_path / "merged", of(both, "ours")), lab(tmp_path / "lab2", of(both, "ovi"))
    before = (mine / "results.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    for argv in ([str(theirs), "merged"], ["merged/results.json", str(theirs), "-o", str(mine)]):
        assert main(["evaluate", "merge", *argv]) == 2
        assert "holds results that are to be merged; give another folder with -o" in capsys.readouterr().err
    assert (mine / "results.json").read_bytes() == before


def test_a_refusal_is_a_sentence_and_leaves_nothing(tmp_path, capsys):
    both = made()
    mine = lab(tmp_path / "lab1", of(both, "ours"))
    theirs = lab(tmp_path / "lab2", with_protocol(of(both, "ovi"), "sync", min_track=20))
    assert main(["evaluate", "merge", str(mine), str(theirs), "-o", str(tmp_path / "out")]) == 1
    assert "sync was measured by two protocols: its min_track is 50 in lab1 and 20 in lab2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["evaluate", "merge", str(mine)]) == 2 and "name two or more" in capsys.readouterr().err
    assert main(["evaluate", "merge", str(mine), str(mine)]) == 2 and "is named twice" in capsys.readouterr().err
    assert (
        main(["evaluate", "merge", str(mine), str(tmp_path / "no.json")]) == 1 and "no.json" in capsys.readouterr().err
    )
