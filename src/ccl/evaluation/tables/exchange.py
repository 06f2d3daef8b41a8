"""results.json: all that a table says of a scoring in one file, which another lab can read and merge with its own.

Of each metric it has the whole protocol, sums of weights among it, the protocol's sha256, and what its suite has and we
have not; of each row of the test set the sha256 of what it asks for, and of its true clip. Nothing in a file from
elsewhere is believed beyond its format: what is no finite number, no name or no sum of what stands beside it is told
with the file and the key.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ccl.evaluation.metrics.base import Column
from ccl.evaluation.tables.results import ALL, MEAN, Results
from ccl.files.errors import FileError, reading
from ccl.files.plaintext import one_json, read_text
from ccl.rows import Row

NAME, FORMAT = "results.json", "ccl results 1"
MOST = 2**28  # bytes; a thousand clips of ten systems in a hundred columns are half of it
WIDEST = 1_000_000  # features of a clip
SET_KEYS = ("clips", "scored")  # of a number of a whole set, how many clips it is of


def dumped(results: Results) -> str:
    """The text of a results.json."""
    columns = [asdict(c) | {"metric": results.origin.get(c.name, "")} for c in results.columns]
    test = [
        {"id": row.id, "subset": row.subset, "asks": results.asks.get(row.id), "true": results.true.get(row.id)}
        for row in results.test
    ]
    tree = {
        "format": FORMAT,
        "about": dict(results.about),
        "metrics": {
            name: {"sha256": digest(how), "protocol": how, "lacks": results.lacks.get(name)}
            for name, how in results.protocol.items()
        },
        "columns": columns,
        "methods": {name: list(results.causes.get(name, ())) for name in results.methods},
        "test": test,
        "pooled": list(results.pooled),
        "controls": list(results.controls),
        "rows": list(results.rows),
    }
    return json.dumps(tree, indent=0) + "\n"


def digest(protocol: Mapping[str, Any]) -> str:
    """The sha256 of a metric's protocol."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()


def read(path: str | Path) -> Results:
    """What `dumped` wrote, checked; a folder is that of its results.json.

    Raises:
        FileError: it is no such file; names it and the key.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    with reading(path, "results of ccl evaluate"):
        if path.stat().st_size > MOST:
            raise FileError(f"{path} is larger than {MOST >> 20} MB, which no results are")
        tree = Node(path, "", one_json(read_text(path)))
    if tree.get("format").value != FORMAT:
        raise tree.get("format").wrong(f"'{FORMAT}', as `ccl evaluate` writes into {NAME}")
    test = [tested(node) for node in tree.get("test").parts()]
    ids = set(unique("test", "id", [row.id for row, _, _ in test], path))
    protocol = {name: protocol_in(node) for name, node in tree.get("metrics").fields()}
    columns = [column_in(node, protocol) for node in tree.get("columns").parts()]
    names = set(unique("columns", "name", [column.name for column, _ in columns], path))
    for place, (column, _) in enumerate(columns):
        if column.over and not names.issuperset(column.over):
            raise tree.get("columns").at(place).get("over").wrong("two of its columns")
    methods = {name: [node.text() for node in said.parts()] for name, said in tree.get("methods").fields()}
    rows = [row_in(node, methods, ids, names | protocol.keys()) for node in tree.get("rows").parts()]
    unique("rows", "method, id and metric", [(row["method"], row["id"], row["metric"]) for row in rows], path)
    return Results(
        rows=rows,
        test=[row for row, _, _ in test],
        columns=[column for column, _ in columns],
        pooled=[pooled_in(node, methods, names) for node in tree.get("pooled").parts()],
        protocol=protocol,
        causes=methods,
        about={name: node.text() for name, node in tree.get("about").fields()},
        origin={column.name: metric for column, metric in columns},
        asks={row.id: asks for row, asks, _ in test if asks},
        controls=[control_in(node, methods, names) for node in tree.get("controls").parts()],
        lacks={
            name: lacks.text()
            for name, node in tree.get("metrics").fields()
            if (lacks := node.get("lacks")).value is not None
        },
        true={row.id: true for row, _, true in test if true},
    )


# Its parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A value of the file, and where it stands there."""

    file: Path
    where: str
    value: Any

    def wrong(self, wanted: str) -> FileError:
        """What is wrong with it, in words."""
        found = "not there" if self.value is None else repr(self.value)
        short = found if len(found) <= 60 else f"{found[:60]}..."
        return FileError(f"{self.file}: {self.where or 'the whole'} is {short}; it must be {wanted}")

    def get(self, key: str) -> Node:
        """A part by its key; None where there is none."""
        value = self._is(dict, "an object").get(key)
        return Node(self.file, f"{self.where}.{key}".lstrip("."), value)

    def at(self, place: int) -> Node:
        return Node(self.file, f"{self.where}[{place}]", self.value[place])

    def parts(self) -> Iterator[Node]:
        """Of a list."""
        return (self.at(place) for place in range(len(self._is(list, "a list"))))

    def fields(self) -> list[tuple[str, Node]]:
        """Of an object whose keys are names."""
        return [(name, self.get(name)) for name in self._is(dict, "an object")]

    def text(self) -> str:
        return self._is(str, "text")

    def sum(self) -> str:
        """A sha256, "" where there is none."""
        if self.value is None:
            return ""
        if len(text := self.text()) != 64 or set(text) - set("0123456789abcdef"):
            raise self.wrong("a sha256, 64 digits of 0-9a-f")
        return text

    def one_of(self, known: Any, what: str) -> str:
        if (text := self.text()) not in known:
            raise self.wrong(what)
        return text

    def flag(self) -> bool:
        return self._is(bool, "true or false")

    def whole(self, most: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not 0 <= self.value <= most:
            raise self.wrong(f"a whole number from 0 to {most}")
        return self.value

    def number(self) -> float | None:
        """Finite, or None where there is none."""
        if self.value is None:
            return None
        real = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not real or not abs(self.value) <= sys.float_info.max:
            raise self.wrong("a finite number or null")
        return float(self.value)

    def _is(self, kind: type, words: str) -> Any:
        if not isinstance(self.value, kind):
            raise self.wrong(words)
        return self.value


def tested(node: Node) -> tuple[Row, str, str]:
    """A row of the test set, the sums of what it asks for and of its true clip."""
    subset = node.get("subset").text()
    if subset in (ALL, MEAN):
        raise node.get("subset").wrong("no name that tables call the whole by")
    return Row(node.get("id").text(), subset=subset), node.get("asks").sum(), node.get("true").sum()


def protocol_in(node: Node) -> dict[str, Any]:
    """A metric's protocol, held against its sum."""
    protocol = {name: part.value for name, part in node.get("protocol").fields()}
    if "missing" in protocol:
        node.get("protocol").get("missing").text()
    if node.get("sha256").sum() != digest(protocol):
        raise node.get("sha256").wrong(f"the sum of its protocol, {digest(protocol)[:12]}...")
    return protocol


def column_in(node: Node, metrics: Mapping[str, Any]) -> tuple[Column, str]:
    """A column, and the metric that it is of."""
    over = [part.text() for part in node.get("over").parts()] if node.get("over").value is not None else None
    if over is not None and len(over) != 2:
        raise node.get("over").wrong("two of its columns")
    column = Column(
        node.get("name").text(),
        node.get("title").text(),
        node.get("better").one_of(("higher", "lower", ""), "higher, lower or empty"),  # type: ignore[arg-type]
        node.get("digits").whole(12),
        node.get("percent").flag(),
        (over[0], over[1]) if over else None,
        node.get("shown").flag(),
        node.get("pooled").flag(),
        node.get("also").text(),
        node.get("sync").flag(),
        node.get("width").whole(WIDEST),
    )
    return column, node.get("metric").one_of(metrics, "one of its metrics")


def row_in(node: Node, methods: Any, ids: Any, names: Any) -> dict[str, Any]:
    """A row of scores: a finite value or a reason."""
    row: dict[str, Any] = {
        "method": node.get("method").one_of(methods, "one of its methods"),
        "id": node.get("id").one_of(ids, "an id of its test set"),
        "metric": node.get("metric").one_of(names, "one of its columns"),
        "value": node.get("value").number(),
        "reason": None,
    }
    if row["value"] is None:
        row["reason"] = node.get("reason").text()
    elif node.get("reason").value is not None:
        raise node.get("reason").wrong("null beside a value")
    for key, read in (("applicable", Node.flag), ("text", Node.text)):
        if node.get(key).value is not None:
            row[key] = read(node.get(key))
    return row


def pooled_in(node: Node, methods: Any, columns: Any) -> dict[str, Any]:
    """A number of a whole set."""
    name = node.get("name").text()
    if name not in columns and name.partition(".")[0] not in columns:
        raise node.get("name").wrong("one of its columns, or what stands beside one")
    line: dict[str, Any] = {
        "method": node.get("method").one_of(methods, "one of its methods"),
        "subset": node.get("subset").text(),
        "name": name,
        "value": node.get("value").number(),
    }
    line |= {key: node.get(key).whole(10**9) for key in SET_KEYS if node.get(key).value is not None}
    line |= {"own": node.get("own").number()} if node.get("own").value is not None else {}
    return line | ({"common": node.get("common").flag()} if node.get("common").value is not None else {})


def control_in(node: Node, methods: Any, columns: Any) -> dict[str, Any]:
    """What a control says of a column."""
    line: dict[str, Any] = {
        "method": node.get("method").one_of(methods, "one of its methods"),
        "subset": node.get("subset").text(),
        "column": node.get("column").one_of(columns, "one of its columns"),
        "control": node.get("control").text(),
        "clips": node.get("clips").whole(10**9),
    }
    for key in ("true", "value", "p"):
        if (number := node.get(key).number()) is None:
            raise node.get(key).wrong("a finite number")
        line[key] = number
    return line


def unique(where: str, key: str, names: list[Any], path: Path) -> list[Any]:
    """The names. FileError where one stands there twice."""
    seen: set[Any] = set()
    for place, name in enumerate(names):
        if name in seen:
            raise FileError(f"{path}: {where}[{place}] has the {key} {name!r}, which stands there before")
        seen.add(name)
    return names
