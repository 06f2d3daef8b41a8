"""What of a matrix is there: scores of rows, losses of runs, and a sentence for whatever is not."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccl.ablation import states
from ccl.ablation.claims import LOSS
from ccl.ablation.matrix import ROWS, RUNS, Matrix, numbered
from ccl.evaluation.metrics import METRICS
from ccl.evaluation.metrics.base import Column, Metric
from ccl.evaluation.score import find
from ccl.evaluation.store import feature_of, read, read_state
from ccl.evaluation.tables.results import CEILING, Results
from ccl.files import reading
from ccl.rows import Row, read_rows
from ccl.storage.run import holds_losses
from ccl.types import STREAMS

LOG = "losses.jsonl"  # of a run
JOINT = "joint"  # the task whose loss curves show, as the paper's Fig. 5


@dataclass(frozen=True)
class Curve:
    """The losses of a run at one seed, a number a step.

    Args:
        run: its name.
        seed: of the training.
        steps: of the joint task, ascending; of a training without it all steps.
        losses: of each step, for each stream there is, "video" and "audio", and "loss", their sum.
        last: step of the run, of whatever task.
    """

    run: str
    seed: int
    steps: np.ndarray
    losses: dict[str, np.ndarray]
    last: int


@dataclass(frozen=True)
class Finished:
    """Everything that tables, curves and page are made of.

    Args:
        results: rows of the matrix as methods, each clip once a seed: the test set of the first seed, then the next.
        test: the test set.
        seeds: of the matrix, in the order in which `results` has them.
        rows: the seeds at which a row is sampled and scored whole, by its name.
        curves: by (run, seed).
        missing: a sentence for each run and row that is not there or not whole.
        chance: by (row, column), what chance gives at each seed: the value of "shuffled" pairs of pictures and sound,
            the mean of the subsets', and "p", how often a shuffling of all clips is as high as the true pairs.
    """

    results: Results
    test: Sequence[Row]
    seeds: Sequence[int]
    rows: dict[str, list[int]]
    curves: dict[tuple[str, int], Curve]
    missing: Sequence[str]
    chance: dict[tuple[str, str], dict[int, dict[str, float]]] = field(default_factory=dict)


class Missing:
    """What is not there, gathered: seeds of which the same is to be said share a sentence."""

    def __init__(self) -> None:
        self._seeds: dict[tuple[str, str], list[int]] = {}

    def add(self, what: str, seed: int, why: str) -> None:
        """Say of a run or row at a seed why it is not there."""
        self._seeds.setdefault((what, why), []).append(seed)

    @property
    def sentences(self) -> list[str]:
        """Runs before rows, as these follow from them."""
        ordered = sorted(self._seeds.items(), key=lambda one: one[0][0].startswith("row "))
        return [
            f"{what}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {why}"
            for (what, why), seeds in ordered
        ]


def gather(matrix: Matrix, folder: Path) -> Finished:
    """Read what is finished in a matrix's folder.

    Raises:
        FileError: a file that is there is none of its kind.
        ValueError: the test set's file is none.
    """
    test = read_rows(folder / "test.jsonl", give=()) if (folder / "test.jsonl").is_file() else []
    missing = Missing()
    scores: list[dict[str, Any]] = []
    protocol: dict[str, dict[str, Any]] = {}
    clips: dict[tuple[str, str], Path] = {}
    chance: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    seeds: dict[str, list[int]] = {row.name: [] for row in matrix.rows}
    for row in matrix.rows:
        for seed in matrix.seeds:
            place = folder / ROWS / numbered(row.name, seed)
            found = [one for one in read(place / "scores.jsonl") if one and one["method"] != CEILING]
            if lacks := unscored(found, test, columns_of(matrix.scores)) or "not whole yet" * under_way(place):
                missing.add(f"row {row.name}", seed, lacks)
                continue
            seeds[row.name].append(seed)
            scores += [one | {"method": row.name, "id": at_seed(one["id"], seed)} for one in found]
            for column, beside in chance_in(place, row.name, matrix.scores, test).items():
                chance.setdefault((row.name, column), {})[seed] = beside
            said = protocol_of(place)
            if any(protocol.get(name, how) != how for name, how in said.items()):
                missing.add(f"row {row.name}", seed, "was scored by another protocol than the rows before it")
            protocol = said | protocol
            if (place / "clips").is_dir():
                there = find(row.name, place / "clips", test)
                clips |= {(row.name, at_seed(i.row.id, seed)): i.path for i in there if i.path is not None}
    curves = curves_of(matrix, folder, missing)
    every = [replace(row, id=at_seed(row.id, seed)) for seed in matrix.seeds for row in test]
    results = Results(scores, every, columns_there(matrix.scores, scores), protocol=protocol, clips=clips)
    return Finished(results, test, list(matrix.seeds), seeds, curves, missing.sentences, chance)


def at_seed(id: str, seed: int) -> str:
    """The name of a clip at one seed."""
    return f"{id}, seed {seed}"


def under_way(place: Path) -> bool:
    """Whether the file beside a run's or row's folder says that it is not whole."""
    return not states.read_state(place).get("whole", True)


def unscored(rows: Sequence[dict[str, Any]], test: Sequence[Row], columns: Sequence[Column]) -> str:
    """What a row's scores lack to be whole; "" where they are."""
    if not rows:
        return "not sampled and scored"
    names = [column.name for column in columns if not column.pooled] or list(dict.fromkeys(r["metric"] for r in rows))
    have = {name: {row["id"] for row in rows if row["metric"] == name} for name in names}
    name, ids = min(have.items(), key=lambda one: len(one[1] & {row.id for row in test}))
    count = len(ids & {row.id for row in test})
    return "" if count == len(test) else f"{count} of {len(test)} clips are scored ({name})"


def protocol_of(place: Path) -> dict[str, dict[str, Any]]:
    """By metric what its scores follow from, or why there are none."""
    state = read_state(place / "state.json") or {"metrics": {}, "lacking": {}}
    return {**state["metrics"], **{name: {"missing": reason} for name, reason in state["lacking"].items()}}


def chance_in(place: Path, method: str, scores: Collection[str], test: Sequence[Row]) -> dict[str, dict[str, float]]:
    """What chance gives in a row's folder, by the first column of each metric that shuffles its clips.

    As of the values it stands beside, the mean of the subsets; p is of all clips, for a mean of p is none.
    """
    found = {}
    for metric in (metric for metric in asked(scores) if metric.pool is not Metric.pool):
        parts: dict[str, list[np.ndarray]] = {}
        for row in test:
            if (feature := feature_of(place, metric.name, method, row.id)) is not None and feature.size:
                parts.setdefault(row.subset, []).append(feature)
        numbers = metric().pool([feature for part in parts.values() for feature in part]) if parts else {}
        of_parts = [metric().pool(part) for part in parts.values()]
        if all("shuffled" in one for one in (numbers, *of_parts)):
            mean = float(np.mean([one["shuffled"] for one in of_parts]))
            found[metric.columns[0].name] = numbers | {"shuffled": mean}
    return found


def asked(scores: Collection[str]) -> list[type[Metric]]:
    """Metrics by their names, of the class or on the command line; one's own are not among them."""
    wanted = {name.lower() for name in scores}
    return [m for name, m in METRICS.items() if wanted & {name, m.__name__.lower()}]


def columns_of(scores: Collection[str]) -> list[Column]:
    """The columns of metrics by their names, of the class or on the command line; of one's own none are known."""
    return [column for metric in asked(scores) for column in metric.columns]


def columns_there(scores: Collection[str], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns asked for, then those of one's own metrics as the rows name them."""
    known = columns_of(scores)
    own = dict.fromkeys(row["metric"] for row in rows)
    return [*known, *(Column(name, name, "") for name in own if name not in {column.name for column in known})]


# Losses --------------------------------------------------------------------------------------------------------------


def curves_of(matrix: Matrix, folder: Path, missing: Missing) -> dict[tuple[str, int], Curve]:
    """Losses of every run that has begun; those that have not, or are behind the others, are told as missing."""
    curves = {}
    for run in matrix.runs:
        for seed in matrix.seeds if run.ckpt is None else ():
            curve = curve_of(run.name, seed, folder)
            if curve is None:
                missing.add(f"run {run.name}", seed, "not trained")
            else:
                curves[run.name, seed] = curve
    most = max((curve.last for curve in curves.values()), default=0)
    for curve in curves.values():
        if curve.last < most:
            missing.add(f"run {curve.run}", curve.seed, f"at step {curve.last} of {most}")
        elif under_way(folder / RUNS / numbered(curve.run, curve.seed)):
            missing.add(f"run {curve.run}", curve.seed, f"at step {curve.last}, not whole yet")
    return curves


def curve_of(run: str, seed: int, folder: Path) -> Curve | None:
    """The joint task's losses of a run; None where there are none yet."""
    path = folder / RUNS / numbered(run, seed) / LOG
    if not path.is_file():
        return None
    with reading(path, "the losses of a run"):
        lines = list(whole_lines(path.read_text(encoding="utf-8")))
        joint = [one for line in lines if (one := of_joint(line))] or lines
        by_step: dict[int, list[dict[str, float]]] = {}
        for line in joint:
            by_step.setdefault(int(line["step"]), []).append(line)
        steps = np.array(sorted(by_step), dtype=np.int64)
        names = [key for key in (LOSS, *STREAMS) if joint and all(key in line for line in joint)]
        # Batches that are accumulated share a step.
        losses = {key: np.array([np.mean([x[key] for x in by_step[step]]) for step in steps]) for key in names}
        return Curve(run, seed, steps, losses, max(int(line["step"]) for line in lines)) if lines else None


def of_joint(line: dict[str, Any]) -> dict[str, Any] | None:
    """The joint task's losses in a line, under the names that they have where a step trains it alone; None where it
    trains others.

    The loss is the sum of the streams': what an interaction asks for beside them, or a task's weights, would make runs
    incomparable.
    """
    own = line
    if line.get("task", JOINT) != JOINT:
        own = {key.removeprefix(f"{JOINT}/"): x for key, x in line.items() if key.startswith(f"{JOINT}/")}
    if LOSS not in own:
        return None
    streams = [own[key] for key in STREAMS if key in own]
    return {**own, "step": line["step"], LOSS: sum(streams) if streams else own[LOSS]}


def whole_lines(text: str) -> Iterator[dict[str, Any]]:
    """Losses a line, of a log that may still be written: other lines, and what a kill left of one, are passed over."""
    for line in text.split("\n")[:-1]:
        if holds_losses(found := json.loads(line)):
            yield found
