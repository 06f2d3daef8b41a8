"""Folders of clips to scores: a row for each clip and column, failures included, kept on disk as they come.

A film is decoded once for all metrics, gives each what it needs and is dropped; a metric's network runs when a batch is
full. Batches are cut by position in the test set, so that a run that was killed and goes on forms the very same ones
and ends with the very same numbers.

What can go wrong is of three kinds. A clip's fault is a row with the reason, and stays. A metric's (weights, a package)
is told once, and its clips are scored when it can run. The machine's (disk, memory, open files) ends the run in a
sentence, and nothing is kept of the clip it was met at.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ccl import arguments
from ccl.evaluation.film import Film, Looked
from ccl.evaluation.metrics.base import Failed, Metric, Result, failed
from ccl.evaluation.speech import spoken
from ccl.evaluation.store import Item, Store, asked, digest
from ccl.evaluation.tables.results import ALL, MEAN, Results
from ccl.files import machine_trouble, naming, one_writer, sha256
from ccl.rows import SUFFIXES, Row, check_rows, file_names, same_name
from ccl.spelling import counted

MISSING = "there is no such clip"  # the same words for all, so that tables can count them
ELSEWHERE = "wait for it, or give another folder with -o"
Progress = Callable[[int, int, str], None]  # (done, of how many, what is being done)


def score(
    methods: Mapping[str, str | Path],
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    out: str | Path,
    *,
    reference: str | None = None,
    about: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    looked: Looked | None = None,
) -> Results:
    """Score the clips <id>.mp4 of each method's folder against the rows of a test set.

    Args:
        methods: folder of clips by the method's name.
        rows: the test set.
        metrics: what to measure.
        out: folder of scores.jsonl, state.json and features; what is there and still true is not computed again.
        reference: the method whose clips are the true ones, for measures against a reference: of the whole set (FVD),
            or clip by clip (onsets), where they take the place of the rows' own.
        about: what tables are to say of the scoring: name and hash of the test set, device, date.
        progress: called with (pieces done, of how many, what is being done); a piece is a clip and a metric.
        looked: what was found in pictures of these files by other scorings, whose next ones are given it too.

    Returns:
        Everything that a table or a report says.

    Raises:
        ValueError: there are no methods, rows or metrics, or what is given for them is none; `reference` is none of the
            methods; a folder is not there; two ids become one file name; a subset has the name of the whole; another
            process writes into `out`.
    """
    arguments.instance("methods", methods, Mapping, "a dict: folders of clips by the names of their systems")
    check_rows(rows)
    arguments.instance("metrics", metrics, (list, tuple), "a list of metrics, as [WER()]")
    for place, metric in enumerate(metrics):
        arguments.instance(f"metrics[{place}]", metric, Metric, "a metric, as WER()")
    for name, folder in methods.items():
        arguments.instance(f"methods[{name!r}]", folder, (str, Path), "the path of a folder")
    if reference is not None and reference not in methods:
        raise ValueError(f"reference is {reference!r}; it must be one of the methods: {', '.join(methods)}")
    if taken := {row.subset for row in rows} & {ALL, MEAN}:
        raise ValueError(f"a subset of the test set is called '{min(taken)}', which tables call the whole; rename it")
    columns = [column.name for metric in metrics for column in metric.columns]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"two metrics have a column '{twice[0]}'; a column has one name in all tables")
    for name, folder in methods.items():
        if not Path(folder).is_dir():
            raise ValueError(f"there is no folder of clips {folder} ({name})")
    for name, some in (("methods", methods), ("rows", rows), ("metrics", metrics)):
        if not some:
            raise ValueError(f"{name} is empty: there is nothing to score")
    items = {name: list(find(name, Path(folder), rows)) for name, folder in methods.items()}
    if reference in items:
        true = {item.row.id: str(item.path) for item in items[reference] if item.path is not None}
        items = {name: [item.against(true.get(item.row.id)) for item in group] for name, group in items.items()}
    every = [item for group in items.values() for item in group]
    speech = any(spoken(row.speech, row.prompt) for row in rows)

    def apart(metric: Metric, row: Row) -> str:
        return metric.inapplicable(row, speech=speech)

    protocol = {metric.name: protocol_of(metric) for metric in metrics}
    run = [metric for metric in metrics if "missing" not in protocol[metric.name]]
    total, done = len(run) * len(every), 0

    def tick(count: int, text: str) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, text)

    with one_writer(Path(out), ELSEWHERE):
        store = Store(Path(out), every, protocol, metrics, apart)
        for metric in metrics:
            if reason := protocol[metric.name].get("missing"):
                store.lack(metric, reason, every)
        for group in items.values():
            score_group(group, run, store, apart, tick, partial(read, looked=looked))
        for metric in run:
            if metric.fault:  # met on the way
                store.lack(metric, metric.fault, every)
                protocol[metric.name] = {"missing": metric.fault}
        store.finish(every)
        return Results(
            rows=store.rows_of(every),
            test=list(rows),
            columns=[column for metric in metrics for column in metric.columns],
            pooled=pooled(items, metrics, store, reference),
            protocol=protocol,
            clips={(i.method, i.row.id): i.path for i in every if i.path is not None},
            causes={name: causes(group) for name, group in items.items()},
            about=about or {},
            origin={column.name: metric.name for metric in metrics for column in metric.columns},
            asks={row.id: asked(row) for row in rows},
            true={item.row.id: sum for item in every if (sum := digest(item.row.reference))},
        )


def score_group(
    items: Sequence[Item],
    metrics: Sequence[Metric],
    store: Store,
    apart: Callable[[Metric, Row], str],
    tick: Callable[[int, str], None],
    reader: Callable[[Item], Film | Failed],
) -> None:
    """Run through one method's clips once, decoding by `reader` only what a metric still lacks."""
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
    for position, film in films(items, needed, reader):
        item = items[position]
        for metric in metrics:
            if position not in todo[metric.name]:
                continue
            at = f"{item.row.id}: {metric.name}"
            tick(0, at)
            with naming(at, "a smaller --batch-size"):
                nothing = apart(metric, item.row)
                inputs = Failed(nothing, applicable=False) if nothing else prepared(metric, film)
                waiting[metric.name].append((item, inputs))
                last = max(todo[metric.name]) == position or (position + 1) % metric.batch_size == 0
                results = measured(metric, waiting[metric.name]) if last else []
            if last:
                if not metric.fault:
                    store.add(metric, results)
                tick(len(results), at)
                waiting[metric.name] = []


def films(
    items: Sequence[Item], needed: Sequence[int], read: Callable[[Item], Film | Failed]
) -> Iterator[tuple[int, Film | Failed]]:
    """The films of these positions in turn; the next one is decoded while the last is measured."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, items[needed[0]]) if needed else None
        for number, position in enumerate(needed):
            assert coming is not None
            film = coming.result()
            coming = reader.submit(read, items[needed[number + 1]]) if number + 1 < len(needed) else None
            yield position, film
            del film  # before the next one is waited for


def read(item: Item, looked: Looked | None = None) -> Film | Failed:
    """Decode a clip; a file that is missing or broken is a reason."""
    if item.path is None:
        return Failed(item.missing)
    try:
        with naming(f"{item.path}", "a smaller --batch-size"):
            return Film.read(item.path, item.row, looked)
    except Exception as error:  # whatever a decoder stumbles over, the other clips go on
        return failed(error)


def prepared(metric: Metric, film: Film | Failed) -> Any:
    """What the metric takes from the film, or the reason why there is nothing."""
    if isinstance(film, Failed):
        return film
    if metric.fault:
        return Failed(metric.fault)
    try:
        return metric.prepare(film)
    except Exception as error:  # one clip's trouble is a row, not a crash
        return metric.failed(error)


def measured(metric: Metric, batch: Sequence[tuple[Item, Any]]) -> list[tuple[Item, Result]]:
    """Run the network on those of a batch that have inputs; results in the order of the batch."""
    results = iter(metric.measured([inputs for _, inputs in batch if not isinstance(inputs, Failed)]))
    return [(item, inputs if isinstance(inputs, Failed) else next(results)) for item, inputs in batch]


# What there is to score ----------------------------------------------------------------------------------------------


def find(method: str, folder: Path, rows: Sequence[Row]) -> Iterator[Item]:
    """A clip for each row, with any suffix of a film: named by its very id, else by the file name made from it."""
    there: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            there.setdefault(same_name(path.stem), []).append(path)
    order = {suffix: place for place, suffix in enumerate(SUFFIXES)}
    own = [same_name(row.id) for row in rows]
    if twice := [row.id for row, name in zip(rows, own, strict=True) if own.count(name) > 1]:
        raise ValueError(f"the test set names the clip '{twice[0]}' twice, letters and their parts being the same")
    others = [row for row, name in zip(rows, own, strict=True) if name not in there]
    made = {row.id: name for row, name in zip(others, file_names(others), strict=True)}
    for row, name in zip(rows, own, strict=True):
        file = made.get(row.id, name)
        found = sorted(there.get(file, ()), key=lambda path: (order[path.suffix.lower()], path.name))
        found = [path for path in found if path.is_file()] if file == name or file not in own else []
        yield Item(method, row, found[0]) if found else Item(method, row, None, MISSING)


def protocol_of(metric: Metric) -> dict[str, Any]:
    """The metric's conventions, as JSON reads them back; or what it lacks."""
    try:
        if reason := metric.missing():
            return {"missing": reason}
        return json.loads(json.dumps(metric.protocol() | code_of(metric), default=str))
    except Exception as error:  # weights that are none of its own, and the other metrics go on
        if machine_trouble(error):
            raise
        return {"missing": f"{metric.name} cannot run: {failed(error).reason}"}


def code_of(metric: Metric) -> dict[str, Any]:
    """The file of a metric that is not of ccl: it may be edited between two runs, and its rows follow from it."""
    cls = type(metric)
    file = (
        None
        if cls.__module__.partition(".")[0] == "ccl"
        else getattr(sys.modules.get(cls.__module__), "__file__", None)
    )
    return {"class": f"{cls.__module__}.{cls.__qualname__}", "code": sha256(file)} if file else {}


def causes(items: Sequence[Item]) -> list[str]:
    """Weights and guidance from the records beside the clips, where there are any; every different one is named."""
    found: dict[str, int] = {}
    for path in (item.path.with_suffix(".json") for item in items if item.path is not None):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # none, or whatever else lies beside a clip
            if machine_trouble(error):
                raise
            continue
        if isinstance(record, dict) and isinstance(record.get("guidance"), dict):
            given = [key for key in ("image", "audio", "video") if record.get(key)]
            how = f"{rule_of(record['guidance'])}, {record.get('steps')} steps of {record.get('solver')}"
            if (shift := record.get("shift")) not in (None, 1):
                how += f", shift {in_words(shift)}"
            weights = [f"weights {str(record.get('weights'))[:12]}"]
            loras = record.get("loras")
            for lora in loras if isinstance(loras, list) else ():
                if isinstance(lora, dict):
                    weights.append(f"LoRA {str(lora.get('sha256'))[:12]} x {lora.get('scale')}")
            cause = f"{' + '.join(weights)}, {how}, from {' + '.join(['text', *given])}"
            found[cause] = found.get(cause, 0) + 1
    return [f"{counted(count, 'clip')}: {cause}" for cause, count in found.items()]


def rule_of(record: Mapping[str, Any]) -> str:
    """A guidance rule with its strengths, as `UCG3 (text 4 3, modal 2 2)`: those of pictures and of sound."""
    own = ", ".join(f"{name} {in_words(value)}" for name, value in record.items() if name != "rule")
    return f"{record.get('rule')} ({own})" if own else str(record.get("rule"))


def in_words(value: Any) -> str:
    """A value of a clip's record, shortly; records may be anybody's."""
    if isinstance(value, dict) and "rule" in value:
        return rule_of(value)
    if isinstance(value, dict) and value.keys() == {"video", "audio"}:
        return f"{in_words(value['video'])} {in_words(value['audio'])}"
    return f"{value:g}" if isinstance(value, float) else str(value)[:80]


def pooled(
    items: Mapping[str, Sequence[Item]], metrics: Sequence[Metric], store: Store, reference: str | None
) -> list[dict[str, Any]]:
    """Numbers of whole sets, as `Results.pooled`, for each subset and for "all": of the clips that all systems have."""
    lines: list[dict[str, Any]] = []
    for metric in metrics:
        for subset in dict.fromkeys(name for group in items.values() for name in subsets(group)):
            features = {
                method: store.features(metric, [i for i in group if subset in ("all", i.row.subset)])
                for method, group in items.items()
            }
            systems = [set(found) for method, found in features.items() if found and method != reference]
            common = set.intersection(*systems) if systems else set()
            truth = list(features.get(reference or "", {}).values())
            for method, found in features.items():
                same = [feature for id, feature in found.items() if id in common]
                known = truth if truth and method != reference else None
                own = pool(metric, list(found.values()), known, store)
                numbers = pool(metric, same, known, store) if 0 < len(same) < len(found) else own
                for name, value in numbers.items():
                    line = {"method": method, "subset": subset, "name": name, "value": value}
                    line |= {"clips": len(same) or len(found), "scored": len(found)}
                    line |= {} if common else {"common": False}
                    lines.append(line | ({"own": own[name]} if 0 < len(same) < len(found) and name in own else {}))
    return lines


def pool(
    metric: Metric, features: Sequence[np.ndarray], reference: Sequence[np.ndarray] | None, store: Store
) -> dict[str, float]:
    """Numbers of a whole set by the names of `Results.pooled`.

    Raises:
        ValueError: the features do not fit each other; names their folder.
    """
    if not features:
        return {}
    own = {column.name for column in metric.columns}
    try:
        numbers = metric.pool(features, reference)
    except ValueError as error:
        folder = store.out / "features" / metric.name
        raise ValueError(f"{metric.name} of the whole set: {error}; remove {folder} to start anew") from error
    known = {name: name if name.partition(".")[0] in own else f"{metric.columns[0].name}.{name}" for name in numbers}
    return {known[name]: value for name, value in numbers.items()}


def subsets(items: Sequence[Item]) -> list[str]:
    """Subsets in order of first appearance, then "all"."""
    return [*dict.fromkeys(item.row.subset for item in items if item.row.subset), "all"]
