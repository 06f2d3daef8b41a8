"""A folder of clips to scores: one row for each clip and metric, failures included. Clips may be of any system.

A clip that is missing, broken or beyond a metric is a row with the reason, and counts as the metric's worst value; it
is never dropped from a mean. A metric that cannot run at all (no weights) is told as such, without numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccl.evaluation.metrics.base import Metric
from ccl.media import MediaError, read_clip
from ccl.rows import Row, file_names
from ccl.types import AV, Clip

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".wav")
Scores = list[dict[str, Any]]
Chance = dict[tuple[str, str], dict[str, float]]


@dataclass(frozen=True)
class Scored:
    """What `score_folder` gives.

    Args:
        rows: id, subset, metric and columns of each clip; `failed` holds the reason where there is one.
        chance: by (subset, metric), what a measure of pairs gives with the pairs shuffled.
        unavailable: by metric, why it could not run.
    """

    rows: Scores
    chance: Chance
    unavailable: dict[str, str]


def score_folder(
    folder: str | Path,
    rows: Sequence[Row],
    metrics: Sequence[Metric],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """Score the clips <id>.mp4 of a folder against the rows of a test set.

    Raises:
        ValueError: the folder is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder of clips {folder}")
    unavailable = {metric.name: reason for metric in metrics if (reason := metric.missing())}
    metrics = [metric for metric in metrics if metric.name not in unavailable]
    keep = any(type(metric).chance is not Metric.chance for metric in metrics)
    scores: Scores = []
    kept: list[tuple[str, Clip]] = []
    for number, (row, name) in enumerate(zip(rows, file_names(rows), strict=True), 1):
        clip, reason = find_clip(folder, name, row)
        if clip is not None and keep:
            kept.append((row.subset, clip))
        scores += [score_clip(metric, row, clip, reason) for metric in metrics]
        if progress is not None:
            progress(number, len(rows))
    return Scored(scores, chance_of(metrics, kept), unavailable)


def score_clip(metric: Metric, row: Row, clip: Clip | None, reason: str) -> dict[str, Any]:
    """One row of scores; a clip that cannot be scored counts as worst, with the reason."""
    head = {"id": row.id, "subset": row.subset, "metric": metric.name}
    if clip is not None:
        try:
            return {**head, **metric.score(clip)}
        except Exception as error:  # whatever a metric stumbles over, the other clips and metrics go on
            reason = str(error) or type(error).__name__
    return {**head, **dict.fromkeys(metric.columns, metric.worst), "failed": reason}


def find_clip(folder: Path, name: str, row: Row) -> tuple[Clip | None, str]:
    """The clip of a row with what the row knows of it, or None and the reason."""
    found = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
    if not found:
        return None, f"{name}.mp4 is missing"
    try:
        clip = read_streams(found[0])
    except MediaError as error:
        return None, error.reason
    return replace(clip, id=row.id, prompt=row.prompt, meta={**row.meta, "sentence": row.sentence}), ""


def read_streams(path: Path) -> Clip:
    """A clip with the streams it has: both, or one alone. MediaError where none can be read."""
    try:
        return read_clip(path)
    except MediaError as error:
        if "stream" not in error.reason:
            raise
        wanted = AV("video" not in error.reason, "audio" not in error.reason)
        return read_clip(path, require=wanted)


def chance_of(metrics: Sequence[Metric], clips: list[tuple[str, Clip]]) -> Chance:
    """What each measure of pairs gives by chance, in each subset and over all."""
    chance: Chance = {}
    for subset in subsets([subset for subset, _ in clips]):
        members = [clip for name, clip in clips if subset in ("all", name) and clip.video is not None]
        members = [clip for clip in members if clip.audio is not None]
        for metric in metrics:
            if members and (by_chance := metric.chance(members)):
                chance[subset, metric.name] = by_chance
    return chance


def subsets(names: Sequence[str]) -> list[str]:
    """Subsets in order of first appearance, then "all"."""
    return [*dict.fromkeys(name for name in names if name), "all"]
