"""Controls: what measures of sync say of clips in which sound and pictures are known not to go together.

Each clip is scored again with another clip's sound (of the same subset, spoken for spoken), with its own 0.2 and 0.4 s
early and late, with one picture that stands still, and in silence. A measure that does not tell the true clips from the
shuffled ones says nothing of sync on this set, and the table says so. Such films are put together in memory; what was
found in a clip's pictures (faces, flow), and what a network made of them, is found once for all that show them. A
measure that keeps features of its clips (`Metric.pool`, as `mouth` does) re-pairs those: no film is shuffled for it.

Scores are kept in OUT/controls as others are in OUT, under systems called "shuffled: NAME".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ccl.evaluation.film import Film, Looked, Unscorable
from ccl.evaluation.metrics.base import Column, Failed, Metric, failed
from ccl.evaluation.score import ELSEWHERE, Progress, read, score_group
from ccl.evaluation.speech import spoken
from ccl.evaluation.store import Item, Store
from ccl.evaluation.tables.results import ALL, MEAN, Results
from ccl.evaluation.tables.shuffling import derangement
from ccl.evaluation.tables.statistics import compare
from ccl.evaluation.tables.summary import strata_of
from ccl.files import one_writer
from ccl.media import MediaError
from ccl.rows import Row
from ccl.spelling import counted

SHUFFLED = "shuffled"
SHIFTS = {"0.4 s early": -0.4, "0.2 s early": -0.2, "0.2 s late": 0.2, "0.4 s late": 0.4}  # seconds the sound is late
STILL, SILENT = "still", "silent"
CONTROLS = (SHUFFLED, *SHIFTS, STILL, SILENT)
# What scores of controls follow from, beside the metrics' protocols; another way of making them is another sentence.
MADE = (
    "another clip's sound as long as the own, from its beginning again where it is shorter; shifted sound has silence "
    "where none is left; the middle picture stands still"
)


@dataclass(frozen=True)
class Tried(Item):
    """A clip as a control shows it.

    Args:
        control: one of CONTROLS.
    """

    control: str = ""


def altered(film: Film, control: str, other: Film | None = None) -> Film:
    """A film as a control shows it.

    Args:
        film: the true one.
        control: one of CONTROLS.
        other: the film whose sound it gets, where it is shuffled.

    Raises:
        Unscorable: there is no sound to alter.
    """
    rate = film.clip.sample_rate
    if control == SHUFFLED:
        assert other is not None
        rate = other.clip.sample_rate
        samples = round(len(film.audio) / film.clip.sample_rate * rate)
        return film.with_sound(np.resize(other.audio, samples), rate)
    if control in SHIFTS:
        return film.with_sound(moved(film.audio, round(SHIFTS[control] * rate)), rate)
    if control == SILENT:
        return film.with_sound(np.zeros_like(film.audio), rate)
    pictures = film.video
    still = np.repeat(pictures[len(pictures) // 2][None], len(pictures), axis=0)
    return Film(replace(film.clip, video=still), film.row, film.path, film.without)


def moved(audio: np.ndarray, late: int) -> np.ndarray:
    """(S,) A sound later by so many samples, earlier where they are negative; as long as before, silence at an end."""
    made = np.zeros_like(audio)
    kept = max(0, len(audio) - abs(late))
    made[max(0, late) :][:kept] = audio[max(0, -late) :][:kept]
    return made


# Scoring -------------------------------------------------------------------------------------------------------------


def controlled(
    results: Results,
    metrics: Sequence[Metric],
    out: str | Path,
    *,
    progress: Progress | None = None,
    looked: Looked | None = None,
) -> Results:
    """The same results with what controls say of every column of sync.

    Args:
        results: what was scored.
        metrics: of which those with a column of sync are tried; those that cannot run are not.
        out: folder of the results; controls' scores are kept in its folder `controls`, and what is there stands.
        progress: as that of `score`.
        looked: as that of `score`.
    """
    tried = trying(results, metrics)
    groups = groups_of(results)
    every = [item for group in groups for item in group]
    if not tried or not every:
        return results
    speech = any(spoken(row.speech, row.prompt) for row in results.test)
    total, done = pieces(results, tried, groups), 0

    def tick(count: int, text: str) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, text)

    def apart(metric: Metric, row: Row) -> str:
        return metric.inapplicable(row, speech=speech)

    place = Path(out) / "controls"
    with one_writer(place, ELSEWHERE):
        protocol = {metric.name: {**results.protocol[metric.name], "controls": MADE} for metric in tried}
        store = Store(place, every, protocol, tried, apart)
        for group in groups:
            reader = reader_of(group[0], looked)
            for some, of in wanted(results, tried, group):
                score_group(some, of, store, apart, tick, reader)
        store.finish(every)
        return told(results, tried, store.rows_of(every))


def trying(results: Results, metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that have a column of sync, and ran, and of which some clip has a value."""
    ran = {name for name, how in results.protocol.items() if "missing" not in how}
    there = {row["metric"] for row in results.rows if row["value"] is not None}
    return [m for m in metrics if m.name in ran and any(column.sync and column.name in there for column in m.columns)]


def cost(results: Results, metrics: Sequence[Metric]) -> str:
    """What controls are about to measure, in words."""
    tried, groups = trying(results, metrics), groups_of(results)
    if not tried or not groups:
        return "controls: no clip that is here was scored by a measure of sync, so there is nothing to try"
    names = ", ".join(metric.name for metric in tried)
    return (
        f"controls: {counted(len(groups), 'clip')} x {len(CONTROLS)} ways x {counted(len(tried), 'metric')} ({names}), "
        f"{pieces(results, tried, groups):,} scores less those that are kept; each takes as long as the clip's own "
        "score, but for what is found in pictures, once for all ways but the still one"
    )


def pieces(results: Results, tried: Sequence[Metric], groups: Sequence[Sequence[Tried]]) -> int:
    """Scores of controls: a clip, a control and a metric."""
    return sum(len(some) * len(of) for group in groups for some, of in wanted(results, tried, group))


def groups_of(results: Results) -> list[list[Tried]]:
    """Of every clip that is there its controls, with whose sound it is shuffled; clips of one kind get each other's."""
    made = []
    ceiling = next(filter(results.is_ceiling, results.methods), "")
    for method in results.methods:
        kinds: dict[tuple[str, bool], list[Row]] = {}
        for row in results.test:
            if (method, row.id) in results.clips:
                kinds.setdefault((row.subset, bool(spoken(row.speech, row.prompt))), []).append(row)
        for rows in kinds.values():
            others = derangement(len(rows)) if len(rows) > 1 else [0]
            for row, other in zip(rows, others, strict=True):
                true = results.clips.get((ceiling, row.id))
                known = row if true is None else replace(row, reference=str(true))
                path, sound = (results.clips[method, id] for id in (row.id, rows[other].id))
                made.append(
                    [
                        Tried(f"{control}: {method}", known, path, sound=sound, control=control)
                        if control == SHUFFLED
                        else Tried(f"{control}: {method}", known, path, control=control)
                        for control in CONTROLS
                        if control != SHUFFLED or len(rows) > 1
                    ]
                )
    return made


def wanted(
    results: Results, tried: Sequence[Metric], group: Sequence[Tried]
) -> Iterator[tuple[list[Tried], list[Metric]]]:
    """A clip's controls with the metrics that need them: those that re-pair features need no film for it."""
    known = {line["name"].partition(".")[0] for line in results.pooled if line["name"].endswith(f".{SHUFFLED}")}
    paired = [metric for metric in tried if metric.columns[0].name in known]
    others = [metric for metric in tried if metric.columns[0].name not in known]
    yield list(group), others
    yield [item for item in group if item.control != SHUFFLED], paired


def reader_of(clip: Tried, looked: Looked | None = None) -> Callable[[Item], Film | Failed]:
    """What reads one clip's controls: it decodes the clip itself once, when the first is asked for."""
    true = cache(lambda: read(clip, looked))

    def films(item: Item) -> Film | Failed:
        assert isinstance(item, Tried)
        film, other = true(), read(replace(item, path=item.sound)) if item.sound else None
        if isinstance(film, Failed):
            return film
        if isinstance(other, Failed):
            return Failed(f"the clip whose sound it gets: {other.reason}")
        try:
            return altered(film, item.control, other)
        except (Unscorable, MediaError) as error:
            return failed(error)

    return films


# What they say -------------------------------------------------------------------------------------------------------


def told(results: Results, tried: Sequence[Metric], rows: Sequence[dict[str, Any]]) -> Results:
    """The results with what controls say, and of the shuffled ones value and p beside the true values."""
    scored = replace(results, rows=rows)
    lines: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for column in (column for metric in tried for column in metric.columns if column.sync):
        for method in results.methods:
            for subset in [*results.subsets, *([MEAN] if len(results.subsets) > 1 else [])]:
                kept = paired(results, column, method, subset)
                found = [line_of(results, scored, column, method, subset, control) for control in CONTROLS]
                lines += [kept] if kept else []
                lines += [line for line in found if line]
                for line in (line for line in found if line and line["control"] == SHUFFLED and not kept):
                    head = {"method": method, "subset": ALL if subset == MEAN else subset}
                    if subset != MEAN:  # which is that of what stands beside the subsets
                        beside.append(head | {"name": f"{column.name}.{SHUFFLED}", "value": line["value"]})
                    beside.append(head | {"name": f"{column.name}.p", "value": line["p"]})
    return replace(results, pooled=[*results.pooled, *beside], controls=lines)


def paired(results: Results, column: Column, method: str, subset: str) -> dict[str, Any] | None:
    """What a measure that re-pairs its features says of shuffled clips; None of one that does not."""
    own = {
        (line["name"].removeprefix(f"{column.name}."), line["subset"]): line.get("own", line["value"])
        for line in results.pooled
        if line["method"] == method
    }
    strata = {name: s[s.there] for name, s in strata_of(results, method, subset, column).items() if s.there.any()}
    shuffled = [own[SHUFFLED, name] for name in strata if (SHUFFLED, name) in own]
    p = own.get(("p", ALL if subset == MEAN else subset))
    if not shuffled or len(shuffled) < len(strata) or p is None:
        return None
    line: dict[str, Any] = {"method": method, "subset": subset, "column": column.name, "control": SHUFFLED}
    line |= {"true": float(np.mean([s.value for s in strata.values()])), "clips": sum(map(len, strata.values()))}
    return line | {"value": float(np.mean(shuffled)), "p": p}


def line_of(
    results: Results, scored: Results, column: Column, method: str, subset: str, control: str
) -> dict[str, Any] | None:
    """What a control says of a column, over the clips that have a value with and without it; None where none has."""
    true, other = (
        strata_of(results, method, subset, column),
        strata_of(scored, f"{control}: {method}", subset, column),
    )
    both = {name: true[name].there & other[name].there for name in true}
    pairs = [(true[name][mask], other[name][mask]) for name, mask in both.items() if mask.any()]
    pairs = [(a, b) for a, b in pairs if a.value == a.value and b.value == b.value]
    if not pairs:
        return None
    difference, _, _, p, clips = compare(pairs, subset)
    value = float(np.mean([b.value for _, b in pairs]))
    line = {"method": method, "subset": subset, "column": column.name, "control": control}
    return line | {"true": value + difference, "value": value, "p": p, "clips": clips}
