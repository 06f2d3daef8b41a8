"""Folders of clips to scores: a row for each clip and column, failures included, kept on disk as they come.

A film is decoded once for all metrics, gives each what it needs and is dropped; a metric's network runs when a batch is
full. Batches are cut by position in the test set, so that a run that was killed and goes on forms the very same ones
and ends with the very same numbers. OUT/scores.jsonl grows by whole batches; OUT/state.json says what the rows follow
from: a row stands only while its clip's bytes, what the test set says of it, and its metric's protocol are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccl.evaluation import weights
from ccl.evaluation.film import Film
from ccl.evaluation.metrics.base import Failed, Measured, Metric, Result, failed
from ccl.evaluation.results import Results
from ccl.files import replacing, write_whole
from ccl.media import MediaError
from ccl.rows import Row, file_names, write_rows

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".wav", ".flac")
SCORING_FIELDS = ("prompt", "speech", "lang", "reference", "meta")  # of a row: what a score may depend on
Progress = Callable[[int, int, str], None]  # (done, of how many, what is being done)
Key = tuple[str, str, str]  # method, id, column


@dataclass(frozen=True)
class Item:
    """A clip to be scored: of which method, what the test set says, and where it should lie."""

    method: str
    row: Row
    path: Path | None
    missing: str = ""


def score(
    methods: Mapping[str, str | Path],
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    out: str | Path,
    *,
    reference: str | None = None,
    progress: Progress | None = None,
) -> Results:
    """Score the clips <id>.mp4 of each method's folder against the rows of a test set.

    Args:
        methods: folder of clips by the method's name.
        rows: the test set.
        metrics: what to measure.
        out: folder of scores.jsonl, state.json and features; what is there and still true is not computed again.
        reference: the method whose clips are the true ones, for measures against a reference set (FVD).
        progress: called with (pieces done, of how many, what is being done); a piece is a clip and a metric.

    Returns:
        Everything that a table or a report says.

    Raises:
        ValueError: a folder is not there; two ids become one file name.
    """
    out = Path(out)
    for name, folder in methods.items():
        if not Path(folder).is_dir():
            raise ValueError(f"there is no folder of clips {folder} ({name})")
    items = {name: list(find(name, Path(folder), rows)) for name, folder in methods.items()}
    protocol = {metric.name: protocol_of(metric) for metric in metrics}
    store = Store(out, [item for group in items.values() for item in group], protocol, metrics)
    run = [metric for metric in metrics if "missing" not in protocol[metric.name]]
    for metric in metrics:
        if "missing" in protocol[metric.name]:
            lacking = Failed(protocol[metric.name]["missing"])
            for item in (item for group in items.values() for item in group):
                store.add(metric, [(item, lacking)], only_new=True)

    total = len(run) * sum(map(len, items.values()))
    done = 0

    def tick(count: int, text: str) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, text)

    for group in items.values():
        score_group(group, run, store, tick)
    store.finish([item for group in items.values() for item in group])
    return Results(
        rows=store.rows_of([item for group in items.values() for item in group]),
        test=list(rows),
        columns=[column for metric in metrics for column in metric.columns],
        pooled=pooled(items, run, store, reference),
        protocol=protocol,
        clips={(i.method, i.row.id): i.path for group in items.values() for i in group if i.path is not None},
        causes={name: causes(Path(folder)) for name, folder in methods.items()},
    )


def score_group(
    items: Sequence[Item], metrics: Sequence[Metric], store: Store, tick: Callable[[int, str], None]
) -> None:
    """Run through one method's clips once, decoding only what a metric still lacks."""
    todo: dict[str, set[int]] = {}  # by metric: positions whose batch is not whole on disk
    for metric in metrics:
        wanted = todo.setdefault(metric.name, set())
        for start in range(0, len(items), metric.batch_size):
            batch = range(start, min(start + metric.batch_size, len(items)))
            if all(store.has(metric, items[i]) for i in batch):
                tick(len(batch), metric.name)
            else:
                wanted.update(batch)
    needed = sorted(set().union(*todo.values()) if todo else set())
    waiting: dict[str, list[tuple[Item, Any]]] = {metric.name: [] for metric in metrics}
    for position, film in films(items, needed):
        item = items[position]
        for metric in metrics:
            if position not in todo[metric.name]:
                continue
            tick(0, f"{item.row.id}: {metric.name}")
            waiting[metric.name].append((item, prepared(metric, film)))
            last = max(todo[metric.name]) == position or (position + 1) % metric.batch_size == 0
            if last:
                store.add(metric, measured(metric, waiting[metric.name]))
                tick(len(waiting[metric.name]), f"{item.row.id}: {metric.name}")
                waiting[metric.name] = []


def films(items: Sequence[Item], needed: Sequence[int]) -> Iterator[tuple[int, Film | Failed]]:
    """The films of these positions in turn; the next one is decoded while the last is measured."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, items[needed[0]]) if needed else None
        for number, position in enumerate(needed):
            assert coming is not None
            film = coming.result()
            coming = reader.submit(read, items[needed[number + 1]]) if number + 1 < len(needed) else None
            yield position, film
            del film  # before the next one is waited for


def read(item: Item) -> Film | Failed:
    """Decode a clip; a file that is missing or broken is a reason."""
    if item.path is None:
        return Failed(item.missing)
    try:
        return Film.read(item.path, item.row)
    except MediaError as error:
        return Failed(error.reason)
    except Exception as error:  # whatever a decoder stumbles over, the other clips go on
        return failed(error)


def prepared(metric: Metric, film: Film | Failed) -> Any:
    """What the metric takes from the film, or the reason why there is nothing."""
    if isinstance(film, Failed):
        return film
    try:
        return metric.prepare(film)
    except Exception as error:  # one clip's trouble is a row, not a crash
        return failed(error)


def measured(metric: Metric, batch: Sequence[tuple[Item, Any]]) -> list[tuple[Item, Result]]:
    """Run the network on those of a batch that have inputs; results in the order of the batch."""
    results = iter(metric.measured([inputs for _, inputs in batch if not isinstance(inputs, Failed)]))
    return [(item, inputs if isinstance(inputs, Failed) else next(results)) for item, inputs in batch]


# What there is to score ----------------------------------------------------------------------------------------------


def find(method: str, folder: Path, rows: Sequence[Row]) -> Iterator[Item]:
    """A clip for each row, <id> with any suffix of a film."""
    for row, name in zip(rows, file_names(rows), strict=True):
        found = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
        yield Item(method, row, found[0]) if found else Item(method, row, None, f"{name}.mp4 is missing")


def fingerprint(item: Item) -> str:
    """Of what a clip's scores follow from: its bytes, and those of its reference, and what the test set says of it."""
    said: list[Any] = [getattr(item.row, field) for field in SCORING_FIELDS]
    for path in (item.path, item.row.reference):
        said.append(weights.sha256(path) if path is not None and Path(path).is_file() else None)
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:24]


def protocol_of(metric: Metric) -> dict[str, Any]:
    """The metric's conventions, as JSON reads them back; or what it lacks."""
    if reason := metric.missing():
        return {"missing": reason}
    return json.loads(json.dumps(metric.protocol(), default=str))


def causes(folder: Path) -> list[str]:
    """Weights and guidance from the records beside the clips, where there are any; every different one is named."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(record, dict) and isinstance(record.get("guidance"), dict):
            given = [key for key in ("image", "audio", "video") if record.get(key)]
            how = f"{record['guidance'].get('rule')}, {record.get('steps')} steps of {record.get('solver')}"
            cause = f"weights {str(record.get('weights'))[:12]}, {how}, from {' + '.join(['text', *given])}"
            found[cause] = found.get(cause, 0) + 1
    return [f"{count} clips: {cause}" for cause, count in found.items()]


def pooled(
    items: Mapping[str, Sequence[Item]], metrics: Sequence[Metric], store: Store, reference: str | None
) -> list[dict[str, Any]]:
    """Numbers of whole sets: {"method", "subset", "name", "value"}, for each subset and for "all"."""
    lines = []
    for metric in metrics:
        for method, group in items.items():
            for subset in subsets(group):
                members = [item for item in group if subset in ("all", item.row.subset)]
                truth = [i for i in items.get(reference or "", ()) if subset in ("all", i.row.subset)]
                features = store.features(metric, members)
                if not features:
                    continue
                known = store.features(metric, truth) if truth and method != reference else None
                own = {column.name for column in metric.columns}
                for key, value in metric.pool(features, known).items():
                    name = key if key in own else f"{metric.columns[0].name}.{key}"
                    lines.append({"method": method, "subset": subset, "name": name, "value": value})
    return lines


def subsets(items: Sequence[Item]) -> list[str]:
    """Subsets in order of first appearance, then "all"."""
    return [*dict.fromkeys(item.row.subset for item in items if item.row.subset), "all"]


# What is kept --------------------------------------------------------------------------------------------------------


class Store:
    """The rows on disk, of which only those still true are taken over.

    Args:
        out: folder of scores.jsonl, state.json and features/.
        items: the clips of this run.
        protocol: by metric, what its rows follow from.
        metrics: of this run.
    """

    def __init__(
        self, out: Path, items: Sequence[Item], protocol: Mapping[str, dict[str, Any]], metrics: Sequence[Metric]
    ) -> None:
        self.out = out
        self.file, self.state_file = out / "scores.jsonl", out / "state.json"
        self.rows: dict[Key, dict[str, Any]] = {}
        old = self._state()
        owner = {column.name: metric.name for metric in metrics for column in metric.columns}
        clips: dict[str, dict[str, str]] = {name: dict(prints) for name, prints in old["clips"].items()}
        changed: set[tuple[str, str]] = set()
        for item in items:
            mark, before = fingerprint(item), clips.setdefault(item.method, {})
            if before.get(item.row.id) not in (None, mark):
                changed.add((item.method, item.row.id))
            before[item.row.id] = mark
        stale = {name for name, how in protocol.items() if old["metrics"].get(name) != how}
        known = {(method, id) for method, prints in old["clips"].items() for id in prints}
        for row in self._read():
            clip = (row["method"], row["id"])
            if clip in known and clip not in changed and owner.get(row["metric"]) not in stale:
                self.rows[*clip, row["metric"]] = row
        out.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, write_rows(list(self.rows.values())))
        state = {"metrics": {**old["metrics"], **protocol}, "clips": clips}
        write_whole(self.state_file, json.dumps(state, indent=1, ensure_ascii=False))

    def has(self, metric: Metric, item: Item) -> bool:
        """Whether all of a clip's rows of a metric are there, and its feature where one goes with them."""
        rows = [
            self.rows.get((item.method, item.row.id, column.name)) for column in metric.columns if not column.pooled
        ]
        if not rows:  # a measure of the whole set alone: its mark is the feature
            return self._feature(metric, item).is_file() or (item.method, item.row.id, metric.name) in self.rows
        if None in rows:
            return False
        keeps = type(metric).pool is not Metric.pool and any(row and row["value"] is not None for row in rows)
        return not keeps or self._feature(metric, item).is_file()

    def add(self, metric: Metric, results: Sequence[tuple[Item, Result]], *, only_new: bool = False) -> None:
        """Keep a batch: features first, then all rows in one write."""
        lines = []
        for item, result in results:
            if only_new and self.has(metric, item):
                continue
            feature = self._feature(metric, item)
            if isinstance(result, Measured) and type(metric).pool is not Metric.pool:
                with replacing(feature) as file:  # an empty one says that it was measured and there is none
                    np.save(file, np.empty(0) if result.feature is None else result.feature, allow_pickle=False)
            else:
                feature.unlink(missing_ok=True)
            for row in rows_of(metric, item, result):
                self.rows[row["method"], row["id"], row["metric"]] = row
                lines.append(row)
        with self.file.open("ab") as file:
            file.write(write_rows(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def features(self, metric: Metric, items: Sequence[Item]) -> list[np.ndarray]:
        """Those there are, in the order of the clips."""
        paths = [self._feature(metric, item) for item in items]
        there = [np.load(path, allow_pickle=False) for path in paths if path.is_file()]
        return [feature for feature in there if feature.size]

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

    def _feature(self, metric: Metric, item: Item) -> Path:
        name, method = file_names([item.row])[0], file_names([Row(item.method)])[0]
        return self.out / "features" / metric.name / method / f"{name}.npy"

    def _state(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"metrics": {}, "clips": {}}
        try:
            state = json.loads(self.state_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return empty
        return state if isinstance(state, dict) and state.keys() == empty.keys() else empty

    def _read(self) -> Iterator[dict[str, Any]]:
        """Whole rows; what a kill left of a last line is passed over, and measured again."""
        if not self.file.is_file():
            return
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and {"method", "id", "metric", "value", "reason"} <= row.keys():
                yield row


def rows_of(metric: Metric, item: Item, result: Result) -> Iterator[dict[str, Any]]:
    """A row for each column; a value or a reason, never neither."""
    head = {"method": item.method, "id": item.row.id}
    columns = [column.name for column in metric.columns if not column.pooled]
    if isinstance(result, Failed):
        for name in columns or [metric.name]:
            yield {**head, "metric": name, "value": None, "reason": result.reason}
        return
    for name in columns:
        value = result.values.get(name)
        known = value is not None and bool(np.isfinite(value))
        said = {"text": result.text} if result.text and name == columns[0] else {}
        yield {
            **head,
            "metric": name,
            "value": float(value) if known and value is not None else None,
            "reason": None if known else "this clip has no such value",
            **said,
        }
