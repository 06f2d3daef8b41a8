"""Tables in all their forms: the same numbers, in the paper's order, with everything that a reader has to know."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables import layout, notes, table, typeset
from ccl.evaluation.tables.results import Results
from ccl.evaluation.tables.summary import summarise
from helpers.scored import LACKING, NO_FACE, PUBLISHED, scored, without


def markdown(results: Results, published=None) -> str:
    return typeset.markdown(results, summarise(results), published)


def cells(text: str) -> list[list[str]]:
    """Rows of the first table of Markdown."""
    lines = text.split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def shown(results: Results, published=None, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    table.show(results, console, published)
    return console.file.getvalue()


def test_the_wide_table_is_in_the_order_of_the_paper():
    head, _, values, intervals, counts, *_ = cells(markdown(scored()))
    assert head == ["method", "CU ↑ mean", "WER ↓ mean", "Sync-C ↑ easy", "Sync-C ↑ hard"]
    assert values == ["ours", "**5.15**", "**0.00%**", "**7.00**‡", "**7.00**"]
    assert intervals[0] == "95 %" and re.fullmatch(r"\[5\.\d\d, 5\.\d\d\]", intervals[1])
    assert counts == ["n", "4/0", "4/0", "2/0", "2/0"]


def test_failed_clips_are_counted_beside_the_value():
    rows = cells(markdown(scored()))
    assert [row for row in rows if row[0] == "n"][1] == ["n", "4/0", "4/0", "1/1", "2/0"]


def test_what_is_not_of_all_clips_says_so():
    text = markdown(scored())
    rows = cells(text)
    assert [row for row in rows if row[0] == "all its own"] == [["all its own", "", "", "7.00 of 2, 1 common", ""]]
    assert "‡ is of fewer clips than the method has" in text


def test_a_subset_without_a_value_is_shown_and_the_mean_says_of_which_it_is():
    lost = without(scored(), "ovi", "cu", {"r2", "r3"}, NO_FACE)
    head, _, ours, *rows = cells(markdown(lost))
    assert head[1:4] == ["CU ↑ easy", "CU ↑ hard", "CU ↑ mean"]
    assert ours[1:4] == ["**5.05**", "5.25", "**5.05**‡§"]  # (5.0 + 5.1) / 2; ours has (5.05 + 5.25) / 2 = 5.15
    assert [row[3] for row in rows if row[0] in ("all its own", "mean of")] == ["5.15 of 4, 2 common", "easy", "easy"]
    assert next(row for row in rows if row[0] == "ovi")[1:4] == ["4.05", "—", "4.05§"]
    text = markdown(lost)
    assert "| CU ↑ easy | ours | ovi | +1.00 |" in text and "| CU ↑§ | ours | ovi | +1.00 |" in text
    assert "§ is the mean of the subsets that have a value" in text and "§" not in markdown(scored())
    assert r"\S{}" in typeset.tex(lost, summarise(lost)) and "§" not in typeset.tex(lost, summarise(lost)).split("%")[1]


def test_nothing_to_measure_stands_apart_from_failures():
    apart = without(scored(("ours",)), "ours", "wer", {"r0"}, "nothing was to be spoken", applicable=False)
    head, _, *rows = cells(markdown(apart))
    assert head[-3:] == ["scored", "failed", "n/a"]
    assert next(row for row in rows if row[:2] == ["WER ↓", "easy"])[-3:] == ["1", "0", "1"]
    found = notes.notes(apart, summarise(apart))
    assert found["Not applicable"] == ["1 clip: nothing was to be spoken (WER); ours/r0"]
    assert "Clips without a value" not in found
    two = without(scored(), "ours", "wer", {"r0"}, "nothing was to be spoken", applicable=False)
    assert "3/0, 1 n/a" in markdown(two)


def test_a_value_that_is_not_there_is_named_even_where_no_table_has_it():
    results = scored(("ours",))
    row = {"method": "ours", "id": "r1", "metric": "lag", "value": None, "reason": "mouth finds no 'lag' in it"}
    some = replace(
        results, rows=[*results.rows, row], columns=(*results.columns, Column("lag", "lag, frames", shown=False))
    )
    assert notes.failures(some) == ["1 clip: mouth finds no 'lag' in it (lag, frames); ours/r1"]


def test_no_dagger_without_a_row():
    wanting = {"Ovi": {"fvd": {"mean": 1.0}}}
    assert "†" not in markdown(scored(), wanting) and "†" in markdown(scored(), PUBLISHED)


def test_what_was_scored_with_what_stands_below():
    about = {"test set": "mine, 4 rows, sha256 0123", "ccl": "0.1.0", "device": "cpu", "date": "2026-11-27"}
    text = markdown(replace(scored(), about=about))
    assert "- test set: mine, 4 rows, sha256 0123\n- ccl: 0.1.0\n- device: cpu\n- date: 2026-11-27\n" in text


def test_reasons_are_counted_with_columns_and_examples():
    assert f"1 clip: {NO_FACE} (Sync-C); ovi/r0" in notes.failures(scored())
    many = scored(count=20)
    rows = [dict(row, value=None, reason="too dark") if row["metric"] == "cu" else row for row in many.rows]
    assert notes.failures(replace(many, rows=rows))[0] == "40 clips: too dark (CU); ours/r0, ours/r1, ours/r2, ..."


def test_a_metric_that_cannot_run_says_why_once_and_has_no_column():
    text = markdown(scored())
    assert f"- imagebind: {LACKING}" in text and text.count(LACKING) == 1 and "IB-Score" not in text


def test_a_column_that_failed_for_all_clips_stays_with_its_counts():
    results = scored(("ours",))
    rows = [
        dict(row, value=None, reason="4.0 s is too short") if row["metric"] == "cu" else row for row in results.rows
    ]
    line = cells(markdown(replace(results, rows=rows)))[2]
    assert line[:4] == ["CU ↑", "easy", "—", ""] and line[-2:] == ["0", "2"]


def test_the_protocol_stands_below_with_short_sums_and_chance():
    text = markdown(scored())
    assert "- sync: min track 50, legacy avi no, weights (syncnet sha256 0123456789ab)" in text
    assert "- desync: chance 1.048" in text
    assert "- ours: 4 clips: weights c754fe, UCG2, 20 steps of euler, from text" in text


def test_of_one_method_each_measure_is_a_row_with_chance_and_ceiling():
    head, _, *rows = cells(markdown(scored(("joint", "ceiling"))))
    assert head == ["measure", "subset", "value", "95 %", "shuffled", "p", "ceiling", "scored", "failed"]
    by = {tuple(row[:2]): row for row in rows}
    mouth = by["Mouth ↑", "easy"]
    assert [mouth[i] for i in (2, 4, 5, 6, 7, 8)] == ["0.800", "0.250", "&lt; 0.001", "0.800", "2", "0"]
    assert by["CU ↑", "mean"][2] == "5.15" and by["CU ↑", "mean"][6] == "4.15"
    assert by["Sync-C ↑", "easy"][7:] == ["2", "0"]  # the ceiling's missing face is not the method's
    assert by["Sync-C ↑", "easy"][6] == "6.00 (n 1)" and by["Sync-C ↑", "hard"][6] == "6.00"  # but it is told


def test_published_numbers_stand_apart():
    results = scored()
    text = markdown(results, PUBLISHED)
    rows = {row[0]: row for row in cells(text)}
    assert "IB-Score ↑ easy" in rows["method"]  # not measured, but printed
    assert rows["Ovi†"][1:4] == ["**5.88**", "17.51%", "**8.47**"] and rows["CCL†"][2] == "**4.62%**"
    assert rows["ours"][1] == "**5.15**"  # the best that was measured, though a printed one is higher
    assert "not fully known" in text and "Ovi" not in text.partition("Comparison")[2].partition("How to read")[0]


def test_a_published_mean_is_taken_from_subsets_where_only_they_are_printed():
    place = layout.Place("", "mean", Column("desync", "DeSync", "lower"))
    assert layout.printed_value({"desync": {"easy": 1.0, "hard": 2.0}}, place) == 1.5
    assert layout.printed_value({}, place) != layout.printed_value({}, place)


def test_a_comparison_names_both_systems_and_the_same_clips():
    text = markdown(scored())
    assert "| CU ↑ | ours | ovi | +1.00 | [+1.00, +1.00] | 0.125 | 0.500 | 4 | 6 |" in text  # 2 of 16 exchanges
    assert "| Sync-C ↑ | ours | ovi | +1.00 |" in text and "| 3 |" in text


def test_csv_holds_numbers_as_they_are(tmp_path):
    lines = table.write(scored(), tmp_path, PUBLISHED)
    with (tmp_path / "summary.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(lines) == 2 * 3 * 4
    sync = next(r for r in read if (r["method"], r["subset"], r["column"]) == ("ovi", "easy", "sync_c"))
    assert (sync["value"], sync["low"], sync["scored"], sync["failed"]) == ("6.0", "", "1", "1")
    with (tmp_path / "table.csv").open() as file:
        wide = {row["method"]: row for row in csv.DictReader(file)}
    assert (
        wide["Ovi"]["kind"] == "published"
        and wide["Ovi"]["wer.mean"] == "0.1751"
        and wide["Ovi"]["cu.mean.scored"] == ""
    )
    assert wide["ours"]["sync_c.easy"] == "7.0" and wide["ovi"]["sync_c.easy.failed"] == "1"
    assert (
        (tmp_path / "pairs.csv")
        .read_text()
        .startswith("a,b,subset,column,difference,low,high,p,clips,subsets,adjusted,needed\nours,ovi,easy,cu,")
    )


def test_all_files_are_written(tmp_path):
    table.write(scored(("one",)), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pairs.csv",
        "results.json",
        "summary.csv",
        "table.csv",
        "table.md",
        "table.tex",
    ]


def test_pairs_of_one_system_are_a_head_without_rows(tmp_path):
    for name, methods in (("one", ("one",)), ("two", ("ours", "ovi"))):
        table.write(scored(methods), tmp_path / name)
    one, two = ((tmp_path / name / "pairs.csv").read_text().splitlines() for name in ("one", "two"))
    assert one == two[:1]


def test_what_stands_below_a_table_is_of_columns_that_it_has():
    alone, several = shown(scored(("joint", "ceiling"))), shown(scored(("ours", "ovi")))
    assert "n is clips" not in alone and "n is clips scored/failed" in " ".join(several.split())
    assert "Shuffled is each picture beside another clip's sound" in " ".join(alone.split())
    assert "The ceiling is true clips" in alone and "The ceiling" not in several


def test_other_names_are_told_of_columns_that_are_shown():
    results = scored(("one",))
    columns = [replace(column, also=f"O-{column.name}") for column in results.columns]
    text = " ".join(shown(replace(results, columns=columns)).split())
    assert "the O-sync_c" in text and "O-ib_score" not in text  # whose weights are not here


def test_names_cannot_break_a_table():
    results = scored(("a|b*[x](y)<i>", "50%_&\\#{$~^"))
    rows = cells(markdown(results))
    assert {len(row) for row in rows} == {5} and rows[2][0] == "a\\|b\\*[x]\\(y)&lt;i&gt;"
    tex = typeset.tex(results, summarise(results))
    assert r"50\%\_\&\textbackslash{}\#\{\$\textasciitilde{}\textasciicircum{}" in tex


def test_latex_has_as_many_cells_in_every_row_as_columns():
    results = scored(("[x] & y", "ovi"))
    line = {"subset": "mean", "column": "mouth", "true": 0.8, "p": 0.01, "clips": 4}
    values = {"shuffled": 0.2, "still": 0.9}
    results = replace(
        results,
        controls=[line | {"method": m, "control": c, "value": v} for m in results.methods for c, v in values.items()],
    )
    tex = typeset.tex(results, summarise(results), PUBLISHED)
    for tabular in re.findall(r"\\begin\{tabular\}\{(l c*|lc*)\}(.*?)\\end\{tabular\}", tex, re.S):
        columns, body = len(tabular[0]), tabular[1]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + 1 + spans == columns
            assert not row.startswith("[")  # it would be read as an argument of the line break before
    code = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}%&$#_]", "", code)
    assert bare.count("{") == bare.count("}") and not re.search(r"[↑↓†—%]", bare)
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3
    assert r"{Mouth $\uparrow$} & {ovi} & {0.800} & {0.200*} & {0.900} & {4} \\" in tex, (
        "controls, as in the other forms"
    )


@pytest.mark.parametrize(
    "methods", [("joint", "ceiling"), ("ours", "ovi"), tuple(f"system number {i}" for i in range(6))]
)
def test_the_console_is_not_wider_than_100_columns_and_cuts_nothing(methods):
    text = shown(scored(methods), PUBLISHED)
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert "imagebind: imagebind is not here" in text and NO_FACE in text


def test_the_console_shows_what_stands_beside_a_single_method():
    text = shown(scored(("joint", "ceiling")))
    for word in ("measure", "shuffled", "ceiling", "scored", "failed", "Mouth ↑", "< 0.001", "WER ↓"):
        assert word in text


def test_markup_in_names_is_text_on_the_console():
    assert "[bold]x[/bold]" in shown(scored(("[bold]x[/bold]", "ovi")))


def test_numbers_are_written_as_their_columns_say():
    wer = Column("wer", "WER", "lower", percent=True)
    assert [layout.number(wer, v) for v in (0.0462, 1.5, float("nan"), None)] == ["4.62%", "150.00%", "—", "—"]
    assert layout.number(wer, 0.01, sign=True) == "+1.00%"
    assert [layout.probability(p) for p in (0.0001, 0.0005, 0.0006, 0.05, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.001",
        "0.050",
        "1.000",
    ]


def test_nothing_scored_still_makes_files(tmp_path):
    table.write(Results([], [], ()), tmp_path)
    assert (tmp_path / "table.md").is_file()


@pytest.mark.parametrize("name", ['=HYPERLINK("x")', "+1", "-a", "@sum", "\tx", "\n=1", " =1+1", "＝1"])  # noqa: RUF001
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    lines = list(csv.DictReader(io.StringIO(table.csv_text([{"method": name, "value": -1.5}]), newline="")))
    assert lines == [{"method": f"'{name}", "value": "-1.5"}]  # numbers stay numbers


def test_a_name_ends_no_row() -> None:
    text = table.csv_text([{"method": "a\r=1\x1b[2J", "value": 1}])
    assert text == "method,value\na\\r=1\\x1b[2J,1\n"


def test_a_name_moves_no_terminal() -> None:
    assert table.shown("a\x1b[2J[b]") == "a\\x1b[2J\\[b]"
