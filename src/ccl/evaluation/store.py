"""The scores on disk: which rows of earlier runs still stand, and how new ones get there.

OUT/scores.jsonl grows by whole batches. OUT/state.json says what the rows follow from; a row stands only while its
clip's bytes, what the test set says of it, and its metric's protocol are the same. OUT/features holds arrays of clips
for numbers of whole sets. What is damaged is measured again, and the file that held it kept aside, as scores.old.jsonl.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ccl.evaluation.metrics.base import Failed, Measured, Metric, Result
from ccl.files import machine_trouble, sweep, write_whole
from ccl.rows import Row, file_names, write_rows
from ccl.weights import catalogue as weights

SCORING_FIELDS = ("prompt", "speech", "lang", "reference", "meta")  # of a row: what a score may depend on
Key = tuple[str, str, str]  # method, id, column


@dataclass(frozen=True)
class Item:
    """A clip to be scored: of which method, what the test set says, where it should lie; and the clip whose sound it
    gets in place of its own, where it does.
    """

    method: str
    row: Row
    path: Path | None
    missing: str = ""
    sound: Path | None = None

    def against(self, reference: str | None) -> Item:
        """The same with this true clip, where there is one."""
        return self if reference is None else replace(self, row=replace(self.row, reference=reference))


class Store:
    """The rows on disk, of which only those still true are taken over.

    A metric that cannot run now (weights are not here) keeps what it said of clips that are still the same.

    Args:
        out: folder of scores.jsonl, state.json and features/.
        items: the clips of this run.
        protocol: by metric, what its rows follow from, or {"missing": sentence}.
        metrics: of this run.
        apart: why a metric has nothing to measure in a row, "" where it has; rows that say otherwise do not stand.
    """

    def __init__(
        self,
        out: Path,
        items: Sequence[Item],
        protocol: Mapping[str, dict[str, Any]],
        metrics: Sequence[Metric],
        apart: Callable[[Metric, Row], str] = lambda metric, row: "",
    ) -> None:
        self.out = out
        self.file, self.state_file = out / "scores.jsonl", out / "state.json"
        self.rows: dict[Key, dict[str, Any]] = {}
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, *(out / "features").glob("*/*")):
            sweep(folder)
        old, found = read_state(self.state_file), list(read(self.file))
        if old is None or None in found:
            self._put_aside()
        if old is None:  # rows of which nothing says what they follow from are no scores any more
            old, found = {"metrics": {}, "clips": {}, "lacking": {}}, []
        by_column = {column.name: metric for metric in metrics for column in metric.columns}
        by_clip = {(item.method, item.row.id): item.row for item in items}
        clips: dict[str, dict[str, str]] = {name: dict(prints) for name, prints in old["clips"].items()}
        changed: set[tuple[str, str]] = set()
        for item in items:
            mark, before = fingerprint(item), clips.setdefault(item.method, {})
            if before.get(item.row.id) != mark:
                changed.add((item.method, item.row.id))
            before[item.row.id] = mark
        lacking = {name: how["missing"] for name, how in protocol.items() if "missing" in how}
        runs = {name: how for name, how in protocol.items() if name not in lacking}
        stale = {name for name, how in runs.items() if old["metrics"].get(name) != how}
        known = {(method, id) for method, prints in old["clips"].items() for id in prints}
        unmeasured = set(old["lacking"].values())
        for row in filter(None, found):
            clip, metric = (row["method"], row["id"]), by_column.get(row["metric"])
            by = metric.name if metric else row["metric"]
            if clip not in known or clip in changed or by in stale or row["reason"] in unmeasured:
                continue
            nothing = "" if row.get("applicable", True) else row["reason"]
            if metric is None or clip not in by_clip or apart(metric, by_clip[clip]) == nothing:
                self.rows[*clip, row["metric"]] = row
        self._forget(changed, stale)
        write_whole(self.file, write_rows(list(self.rows.values())))
        # What is lacking is no protocol: what was measured before under a real one goes on standing.
        others = {name: said for name, said in old["lacking"].items() if name not in protocol}
        self.state = {"metrics": {**old["metrics"], **runs}, "clips": clips, "lacking": {**others, **lacking}}
        self._write_state()

    def has(self, metric: Metric, item: Item) -> bool:
        """Whether all of a clip's rows of a metric are there, and its feature where one goes with them."""
        rows = [
            self.rows.get((item.method, item.row.id, column.name)) for column in metric.columns if not column.pooled
        ]
        if not rows:  # a measure of the whole set alone: its mark is the feature
            return self._feature(metric, item) is not None or (item.method, item.row.id, metric.name) in self.rows
        if None in rows:
            return False
        keeps = type(metric).pool is not Metric.pool and any(row and row["value"] is not None for row in rows)
        return not keeps or self._feature(metric, item) is not None

    def lack(self, metric: Metric, reason: str, items: Sequence[Item]) -> None:
        """Say of the clips without rows that the metric cannot run; they are scored as soon as it can."""
        if self.state["lacking"].get(metric.name) != reason:
            self.state["lacking"][metric.name] = reason
            self._write_state()
        self.add(metric, [(item, Failed(reason)) for item in items], only_new=True)

    def add(self, metric: Metric, results: Sequence[tuple[Item, Result]], *, only_new: bool = False) -> None:
        """Keep a batch: features first, then all rows in one write."""
        lines = []
        for item, result in results:
            if only_new and self.has(metric, item):
                continue
            path = self._path(metric.name, item.method, item.row.id)
            if isinstance(result, Measured) and type(metric).pool is not Metric.pool:
                # An empty one says that it was measured and there is none.
                write_whole(path, packed(np.empty(0) if result.feature is None else result.feature))
            else:
                path.unlink(missing_ok=True)
            for row in rows_of(metric, item, result):
                self.rows[row["method"], row["id"], row["metric"]] = row
                lines.append(row)
        if not lines:
            return
        try:
            with self.file.open("ab") as file:
                file.write(write_rows(lines).encode(errors="backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # a full disk does not say where
            error.filename = error.filename or str(self.file)
            raise

    def features(self, metric: Metric, items: Sequence[Item]) -> dict[str, np.ndarray]:
        """Those there are by id, in the order of the clips."""
        found = {item.row.id: self._feature(metric, item) for item in items}
        return {id: feature for id, feature in found.items() if feature is not None and feature.size}

    def finish(self, items: Sequence[Item]) -> None:
        """All rows in the order of the test set, whole, with those of other runs after them."""
        mine = self.rows_of(items)
        keys = {(row["method"], row["id"], row["metric"]) for row in mine}
        others = [row for key, row in self.rows.items() if key not in keys]
        write_whole(self.file, write_rows([*mine, *others]))

    def rows_of(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """The rows of these clips, clip by clip."""
        by_clip: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for (method, id, _), row in sorted(self.rows.items()):
            by_clip.setdefault((method, id), []).append(row)
        return [row for item in items for row in by_clip.get((item.method, item.row.id), ())]

    def _path(self, metric: str, method: str, id: str) -> Path:
        return feature_path(self.out, metric, method, id)

    def _feature(self, metric: Metric, item: Item) -> np.ndarray | None:
        """As it was kept; one that cannot be read is as good as none."""
        return feature_of(self.out, metric.name, item.method, item.row.id)

    def _forget(self, changed: set[tuple[str, str]], stale: set[str]) -> None:
        """Remove the features of clips and of metrics that are no longer what they were."""
        folder = self.out / "features"
        for path in (path for name in stale for path in (folder / name).glob("*/*.npy")):
            path.unlink()
        for name in {path.name for path in folder.glob("*")} - stale:
            for method, id in changed:
                self._path(name, method, id).unlink(missing_ok=True)

    def _write_state(self) -> None:
        write_whole(self.state_file, json.dumps(self.state, indent=1, ensure_ascii=False))

    def _put_aside(self) -> None:
        """Keep a copy of the rows as they are, for they took time; none that was kept before is replaced."""
        if not self.file.is_file() or not self.file.stat().st_size:
            return
        names = (f"scores.old{f'-{number}' if number > 1 else ''}.jsonl" for number in count(1))
        write_whole(next(path for name in names if not (path := self.out / name).exists()), self.file.read_bytes())


def read(file: Path) -> Iterator[dict[str, Any] | None]:
    """Whole rows of a scores.jsonl, None for a line that is none; what a kill left of a last line is passed over."""
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if is_row(row):
                yield row
            elif line.endswith(b"\n"):
                yield None


def read_state(file: Path) -> dict[str, Any] | None:
    """What the rows beside a state.json follow from; None where nothing says so."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(state, dict):
        return None
    state.setdefault("lacking", {})
    inner = {"metrics": dict, "clips": dict, "lacking": str}
    for key, kind in inner.items():
        part = state.get(key)
        if not isinstance(part, dict) or not all(isinstance(value, kind) for value in part.values()):
            return None
    return state


def feature_path(out: Path, metric: str, method: str, id: str) -> Path:
    """Where what a metric keeps of a clip lies."""
    return out / "features" / metric / file_of(method) / f"{file_of(id)}.npy"


def feature_of(out: Path, metric: str, method: str, id: str) -> np.ndarray | None:
    """What a metric keeps of a clip; None where there is nothing, or nothing that can be read."""
    try:
        return unpacked(feature_path(out, metric, method, id).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def packed(feature: np.ndarray) -> bytes:
    """An array as a .npy file, with the sum of its bytes after it."""
    file = io.BytesIO()
    np.save(file, feature, allow_pickle=False)
    return file.getvalue() + crc32(file.getvalue()).to_bytes(4, "big")


def unpacked(data: bytes) -> np.ndarray:
    """What `packed` was given. ValueError where the sum is another: no byte of a damaged file is looked at."""
    if len(data) < 4 or crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
        raise ValueError("the sum of its bytes is another")
    return np.load(io.BytesIO(data[:-4]), allow_pickle=False)


def is_row(row: Any) -> bool:
    """Whether this is a row of scores: a finite value or a reason."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("method", "id", "metric")):
        return False
    if not {"value", "reason"} <= row.keys():
        return False
    value, reason = row["value"], row["reason"]
    if not isinstance(row.get("text", ""), str) or not isinstance(row.get("applicable", True), bool):
        return False
    if value is None:
        return isinstance(reason, str)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return number and reason is None


def rows_of(metric: Metric, item: Item, result: Result) -> Iterator[dict[str, Any]]:
    """A row for each column; a value or a reason, never neither."""
    head = {"method": item.method, "id": item.row.id}
    columns = [column.name for column in metric.columns if not column.pooled]
    if isinstance(result, Failed):
        for name in columns or [metric.name]:
            apart = {} if result.applicable else {"applicable": False}
            yield {**head, "metric": name, "value": None, "reason": result.reason, **apart}
        return
    for name in columns:
        value = result.values.get(name)
        known = value is not None and bool(np.isfinite(value))
        said = {"text": result.text} if result.text and name == columns[0] else {}
        lacking = f"{metric.name} finds no '{name}' in it" if value is None else f"its '{name}' is {value}"
        yield {
            **head,
            "metric": name,
            "value": float(value) if known and value is not None else None,
            "reason": None if known else lacking,
            **said,
        }


def asked(row: Row) -> str:
    """sha256 of what a row of a test set asks for, wherever its true clip lies."""
    said = [getattr(row, field) for field in SCORING_FIELDS if field != "reference"]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(item: Item) -> str:
    """Of what a clip's scores follow from: its bytes, those of its reference and voice, and what the test set says."""
    said: list[Any] = [getattr(item.row, field) for field in SCORING_FIELDS]
    voice = () if item.row.voice is None else (item.row.voice,)
    for path in (item.path, item.row.reference, *voice):
        said.append(digest(path))
    if item.sound is not None:
        said.append(digest(item.sound))
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:24]


def digest(path: str | Path | None) -> str | None:
    """Of a file's bytes; None where none can be read, which whoever decodes it says in words."""
    try:
        return weights.sha256(path) if path is not None and Path(path).is_file() else None
    except OSError as error:
        if machine_trouble(error):
            raise
        return None


def file_of(name: str) -> str:
    """A file name for any text, different for each."""
    safe = file_names([Row(name)])[0]
    if safe == name and len(safe.encode()) <= 120:
        return safe
    return f"{safe[:30]}-{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:10]}"
