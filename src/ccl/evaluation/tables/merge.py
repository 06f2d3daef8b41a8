"""Results of several labs as one table: the rows that all have, and nothing that was measured by two protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ccl.evaluation.tables.notes import said
from ccl.evaluation.tables.results import ALL, CEILING, Results
from ccl.spelling import counted

UNTOLD = object()  # an argument of which a protocol says nothing


def merge(files: Mapping[str, Results]) -> Results:
    """One table of what several scorings say of the same rows by the same protocols.

    Args:
        files: what each says, by a name for it. Systems of one name in two of them get it behind their own. True clips
            (CEILING) are those of the first that has them.

    Raises:
        ValueError: two of them measure a metric by other protocols (names the metric, and the first argument that
            differs), mean other rows by one id or other true clips, or have no metric or no row in common.
    """
    check_protocols(files)
    metrics = {name: dict(how) for name, how in first(files).protocol.items() if not lacking(files, name)}
    if not metrics:
        raise ValueError(f"no metric was measured in all of {', '.join(files)}; there is nothing to compare")
    ids = common_rows(files)
    names = named(files)
    kept = {column for column, metric in first(files).origin.items() if metric in metrics}
    check_columns(files, kept)
    whole = all(len(one.test) == len(ids) for one in files.values())
    rows = [
        dict(row, method=names[file, row["method"]])
        for file, one in files.items()
        for row in one.rows
        if row["id"] in ids and (row["metric"] in kept or row["metric"] in metrics) and (file, row["method"]) in names
    ]
    absent = dict.fromkeys(name for one in files.values() for name in one.protocol if name not in metrics)
    about = {f"{file}, {key}": text for file, one in files.items() for key, text in one.about.items()}
    counts = " and ".join(f"{counted(len(one.test), 'row')} of {file}" for file, one in files.items())
    about["merged"] = f"{len(ids)} rows that all have, of {counts}" + (
        "" if whole else "; numbers of whole sets are left out, for they are of other rows"
    )
    return Results(
        rows=rows,
        test=[row for row in first(files).test if row.id in ids],
        columns=[column for column in first(files).columns if column.name in kept],
        pooled=list(pooled(files, names, kept)) if whole else [],
        protocol=metrics | {name: {"missing": lacking(files, name)} for name in absent},
        causes={names[file, m]: c for file, one in files.items() for m, c in one.causes.items() if (file, m) in names},
        about=about,
        controls=[
            dict(line, method=names[file, line["method"]])
            for file, one in files.items()
            for line in (one.controls if whole else ())
            if (file, line["method"]) in names and line["column"] in kept
        ],
        origin={column: metric for column, metric in first(files).origin.items() if column in kept},
        asks={id: asks for id, asks in first(files).asks.items() if id in ids},
        true={id: true for one in files.values() for id, true in one.true.items() if id in ids},
        lacks={name: what for one in files.values() for name, what in one.lacks.items() if name in metrics},
    )


def first(files: Mapping[str, Results]) -> Results:
    return next(iter(files.values()))


def check_protocols(files: Mapping[str, Results]) -> None:
    """ValueError where a metric was measured in two ways."""
    known: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for file, one in files.items():
        for metric, how in one.protocol.items():
            if "missing" in how:
                continue
            other, before = known.setdefault(metric, (file, how))
            if found := next(differences(before, how), None):
                key, *values = found
                mine, its = ("not told" if value is UNTOLD else said(value) for value in values)
                raise ValueError(
                    f"{metric} was measured by two protocols: its {key} is {mine} in {other} and {its} in {file}; "
                    "score both by one and merge again"
                )


def differences(a: Any, b: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Arguments in which two protocols differ, by their dotted names, with both values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key, UNTOLD), b.get(key, UNTOLD), f"{where}.{key}".lstrip("."))
    elif a is UNTOLD or b is UNTOLD or a != b:
        yield where or "protocol", a, b


def lacking(files: Mapping[str, Results], metric: str) -> str:
    """Which of them have not measured a metric, and why; "" where all have."""
    why = {
        file: str(one.protocol[metric].get("missing", "")) if metric in one.protocol else "it was not asked for"
        for file, one in files.items()
    }
    return "; ".join(f"not in {file}: {reason}" for file, reason in why.items() if reason)


def common_rows(files: Mapping[str, Results]) -> set[str]:
    """Ids of the rows that all have. ValueError where they mean others by them, or there are none."""
    ids = set.intersection(*({row.id for row in one.test} for one in files.values()))
    if not ids:
        raise ValueError(f"{' and '.join(files)} have no row in common; they are of other test sets")
    head = next(iter(files))
    subsets = {file: {row.id: row.subset for row in one.test} for file, one in files.items()}
    for file, one in files.items():
        for row in (row for row in first(files).test if row.id in ids):
            for what, mine, its in (
                ("asks for something else", first(files).asks, one.asks),
                ("is of another subset", subsets[head], subsets[file]),
                ("has another true clip", first(files).true, one.true),
            ):
                if row.id in mine and row.id in its and mine[row.id] != its[row.id]:
                    raise ValueError(f"the row '{row.id}' {what} in {file} than in {head}; they are of other test sets")
    return ids


def check_columns(files: Mapping[str, Results], kept: set[str]) -> None:
    """ValueError where a column of one name is another one elsewhere."""
    known = {column.name: column for column in first(files).columns}
    for file, one in files.items():
        theirs = {column.name: column for column in one.columns}
        for name in (name for name in known if name in kept):
            if theirs.get(name) != known[name]:
                raise ValueError(f"the column '{name}' is not the same in {next(iter(files))} and in {file}")


def named(files: Mapping[str, Results]) -> dict[tuple[str, str], str]:
    """What a system of a file is called in the merged table."""
    every = [method for one in files.values() for method in one.methods if method != CEILING]
    names = {
        (file, method): f"{method} ({file})" if every.count(method) > 1 else method
        for file, one in files.items()
        for method in one.methods
        if method != CEILING
    }
    if twice := [name for name in names.values() if list(names.values()).count(name) > 1]:
        raise ValueError(f"two systems would be called '{twice[0]}'; rename one of the files")
    having = next((file for file, one in files.items() if CEILING in one.methods), None)
    return names | ({(having, CEILING): CEILING} if having else {})


def pooled(
    files: Mapping[str, Results], names: Mapping[tuple[str, str], str], kept: set[str]
) -> Iterator[dict[str, Any]]:
    """Numbers of whole sets; those of which no one can say that they are of the same clips compete with nothing."""
    every: list[dict[str, Any]] = []
    sets: dict[tuple[str, str], set[tuple[int | None, frozenset[str]]]] = {}
    lacking = cache(lambda file, column, subset: left_out(files[file], column, subset))
    for file, one in files.items():
        for line in one.pooled:
            column, subset = line["name"].partition(".")[0], line["subset"]
            if (file, line["method"]) in names and column in kept:
                every.append(dict(line, method=names[file, line["method"]]))
                if line["method"] != CEILING:
                    of = line.get("clips"), lacking(file, column, subset)
                    sets.setdefault((line["name"], subset), set()).add(of)
    for line in every:
        same = len(sets.get((line["name"], line["subset"]), ())) < 2
        yield line if same else {**line, "common": False}


def left_out(one: Results, column: str, subset: str) -> frozenset[str]:
    """Ids of the rows that a file's numbers of a whole set are not of: some system of it has nothing of the column's
    metric there. A system that has nothing anywhere takes no part.
    """
    metric = one.origin.get(column)
    ids = {row.id for row in one.test if subset in (ALL, row.subset)}
    failed: dict[str, set[str]] = {}
    scored: dict[str, set[str]] = {}
    for row in one.rows:
        if row["method"] != CEILING and row["id"] in ids and metric in (row["metric"], one.origin.get(row["metric"])):
            (failed if row["value"] is None else scored).setdefault(row["method"], set()).add(row["id"])
    lacking = (some - scored.get(method, set()) for method, some in failed.items())
    return frozenset[str]().union(*(some for some in lacking if some != ids))
