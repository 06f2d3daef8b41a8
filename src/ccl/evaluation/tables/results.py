"""What a scored test set is, before anything is averaged: the input of summary, table and report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ccl.evaluation.metrics.base import Column
from ccl.rows import Row

CEILING = "ceiling"  # a method of this name is true clips: shown, but no system among systems
MEAN, ALL = "mean", "all"
PROTOCOL = "protocol"  # what `about` calls the protocol whose conventions a scoring went by


def under(name: str, protocol: str) -> str:
    """How a method, or a metric, is called where several protocols stand in one table."""
    return f"{name} / {protocol}"


@dataclass(frozen=True)
class Results:
    """Scores of one or several systems on one test set.

    Args:
        rows: as in scores.jsonl, one for each method, clip and column: "method", "id", "metric" (the column's name),
            "value" (None where there is none), "reason" (why), "applicable" (False where there was nothing to measure,
            which is no failure), and "text" where a metric heard words.
        test: the test set; a row's subset is "easy", "hard" or "".
        columns: in the order of the tables.
        pooled: numbers of whole sets, {"method", "subset", "name", "value"}, subset "all" where the test set has none.
            `name` is a column's ("fvd"), or a column's with what stands beside its value: "mouth.shuffled" is the
            mouth measure with sounds and pictures shuffled among clips, "mouth.p" how likely chance does as well.
            "clips" says of how many it is, "scored" how many the method has; where it has more than all systems have,
            "own" is the number of all of them. "common" is False where the systems have no clip in common.
        protocol: by metric, every convention and the sha256 of its weights; {"missing": sentence} where it cannot run.
        clips: the files, by (method, id).
        causes: by method, sentences on what the clips follow from: weights, guidance, steps.
        about: what tables say of the scoring itself, by name: test set and its hash, version, device, date.
        origin: the metric that a column is of, by the column's name.
        asks: sha256 of what a row of the test set asks for, by id.
        true: sha256 of a row's true clip, by id, where there is one.
        controls: what measures of sync say of clips that do not go with their sound: {"method", "subset", "column",
            "control", "true", "value", "p", "clips"}, over the clips that have a value with and without the control.
        lacks: by metric, what the suite whose protocol this is has and we have not, and what stands in its place.
        protocols: where a table is of several protocols, that of each method; then names of methods and metrics end
            with their protocol's, as `under` writes them.
    """

    rows: Sequence[Mapping[str, Any]]
    test: Sequence[Row]
    columns: Sequence[Column]
    pooled: Sequence[Mapping[str, Any]] = ()
    protocol: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clips: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    causes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    asks: Mapping[str, str] = field(default_factory=dict)
    true: Mapping[str, str] = field(default_factory=dict)
    controls: Sequence[Mapping[str, Any]] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)
    protocols: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def methods(self) -> list[str]:
        """In order of appearance, the ceiling last."""
        found = [row["method"] for row in (*self.rows, *self.pooled)]
        names = list(dict.fromkeys([*found, *(method for method, _ in self.clips)]))  # a number of a set has no rows
        return sorted(names, key=self.is_ceiling)

    def is_ceiling(self, method: str) -> bool:
        """Whether a method is true clips, by whatever protocol."""
        return method in (CEILING, under(CEILING, self.protocols.get(method, "")))

    @property
    def systems(self) -> list[str]:
        """Methods that compete: all but the ceiling."""
        return [name for name in self.methods if not self.is_ceiling(name)]

    @property
    def contests(self) -> list[list[str]]:
        """The systems that can be better than each other: those of one protocol."""
        by_protocol: dict[str, list[str]] = {}
        for name in self.systems:
            by_protocol.setdefault(self.protocols.get(name, ""), []).append(name)
        return list(by_protocol.values())

    @cached_property
    def subsets(self) -> dict[str, list[int]]:
        """Places in `test` of each subset's rows; {"all": ...} where there are no subsets."""
        if not any(row.subset for row in self.test):
            return {ALL: list(range(len(self.test)))}
        places: dict[str, list[int]] = {}
        for place, row in enumerate(self.test):
            places.setdefault(row.subset or "other", []).append(place)
        return places

    @cached_property
    def values(self) -> dict[tuple[str, str], np.ndarray]:
        """(n,) float64 in the order of `test`, by (method, column); NaN where a clip has no value."""
        place = {row.id: number for number, row in enumerate(self.test)}
        values: dict[tuple[str, str], np.ndarray] = {}
        for row in self.rows:
            key = row["method"], row["metric"]
            array = values.setdefault(key, np.full(len(self.test), np.nan))
            if row["value"] is not None and row["id"] in place:
                array[place[row["id"]]] = row["value"]
        return values

    @cached_property
    def reasons(self) -> dict[tuple[str, str], dict[str, str]]:
        """Why clips have no value though they should, by (method, column) and id."""
        return self._reasons(applicable=True)

    @cached_property
    def inapplicable(self) -> dict[tuple[str, str], dict[str, str]]:
        """Why there was nothing to measure, by (method, column) and id."""
        return self._reasons(applicable=False)

    def _reasons(self, *, applicable: bool) -> dict[tuple[str, str], dict[str, str]]:
        ids = {row.id for row in self.test}
        reasons: dict[tuple[str, str], dict[str, str]] = {}
        for row in self.rows:
            if row["value"] is None and row["id"] in ids and row.get("applicable", True) == applicable:
                reasons.setdefault((row["method"], row["metric"]), {})[row["id"]] = row.get("reason") or "no reason"
        return reasons

    @cached_property
    def missing(self) -> dict[str, str]:
        """Why a metric could not run at all, by its name."""
        return {name: said["missing"] for name, said in self.protocol.items() if said.get("missing")}

    @cached_property
    def shown(self) -> list[Column]:
        """Columns of tables that have something to show: a value, or clips that failed where others could be scored."""
        lacking = set(self.missing.values())
        present = {row["name"] for row in self.pooled if row["value"] is not None}
        present |= {row["metric"] for row in self.rows if row["value"] is not None or row.get("reason") not in lacking}
        return [column for column in self.columns if column.shown and column.name in present]


def joined(found: Mapping[str, Results]) -> Results:
    """One table of what was scored by each protocol, whose methods are called as `under` says; of one, that itself."""
    if len(found) == 1:
        return next(iter(found.values()))
    each = list(found.items())
    columns = {column.name: column for _, one in each for column in one.columns}
    hashes = {f"protocol {name}": hashed(one) for name, one in each}
    return Results(
        rows=[row for _, one in each for row in one.rows],
        test=each[0][1].test,
        columns=list(columns.values()),
        pooled=[row for _, one in each for row in one.pooled],
        protocol={under(metric, name): said for name, one in each for metric, said in one.protocol.items()},
        clips={key: path for _, one in each for key, path in one.clips.items()},
        causes={method: causes for _, one in each for method, causes in one.causes.items()},
        about={key: said for key, said in each[0][1].about.items() if key != PROTOCOL} | hashes,
        controls=[row for _, one in each for row in one.controls],
        lacks={under(metric, name): what for name, one in each for metric, what in one.lacks.items()},
        protocols={method: name for name, one in each for method in one.methods},
    )


def hashed(results: Results) -> str:
    """The sha256 of all conventions and weights that numbers follow from, in words."""
    measured = {name: how for name, how in results.protocol.items() if name not in results.missing}
    if not measured:
        return "nothing was measured by it"
    digest = hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()
    return f"sha256 {digest[:12]} of its conventions"
