"""A matrix that was never trained: folders as a finished one leaves them, with numbers that are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ccl.ablation.matrix import Matrix, Row, Run
from ccl.rows import Row as Clip
from ccl.rows import write_rows


def fake(runs: Sequence[str], rows: Sequence[Row], **more: Any) -> Matrix:
    """A matrix of these runs and rows; `more` are other fields of it."""
    head: dict[str, Any] = {"name": "fake", "about": "Rows that were never trained.", "seeds": (0, 1, 2), "config": ()}
    head |= {"scores": {"mouth": {}, "wer": {}}, "compare": tuple((b.name, a.name) for a, b in pairwise(rows))}
    return Matrix(**{**head, **more}, runs=tuple(map(Run, runs)), rows=tuple(rows))


@dataclass
class Values:
    """A clip's scores, by column; a text in place of a number is why there is none."""

    mouth: float | str = 0.5
    wer_errors: float | str = 1.0
    wer_words: float | str = 4.0
    text: str = field(default="hello there")


def write_matrix(
    folder: Path,
    matrix: Matrix,
    values: Callable[[int, int, int], Values],
    *,
    clips: int = 10,
    steps: int = 0,
    loss: Callable[[int, int, int], float] = lambda run, seed, step: 1.0,
) -> None:
    """Scores and losses of every row, run and seed.

    Args:
        folder: of the matrix.
        matrix: names and seeds.
        values: of (row, seed, clip), all counted from 0.
        clips: half easy and half hard.
        steps: of each run.
        loss: of (run, seed, step).
    """
    test = [
        Clip(f"c{i}", prompt=f'She says "hello there" {i}', speech="hello there", subset="hard" if i % 2 else "easy")
        for i in range(clips)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"id": r.id, "prompt": r.prompt, "speech": r.speech, "subset": r.subset} for r in test]
    (folder / "test.jsonl").write_text(write_rows(lines))
    for place, row in enumerate(matrix.rows):
        for number, seed in enumerate(matrix.seeds):
            scores = [line for i, one in enumerate(test) for line in scored(row.name, one.id, values(place, number, i))]
            out = folder / "rows" / f"{row.name}-s{seed}"
            out.mkdir(parents=True)
            (out / "scores.jsonl").write_text(write_rows(scores))
    for place, run in enumerate(matrix.runs):
        for number, seed in enumerate(matrix.seeds):
            out = folder / "runs" / f"{run.name}-s{seed}"
            out.mkdir(parents=True)
            (out / "losses.jsonl").write_text("".join(losses(steps, seed, lambda s: loss(place, number, s))))  # noqa: B023


def scored(method: str, id: str, values: Values) -> list[dict[str, Any]]:
    """Rows of scores.jsonl."""
    numbers: dict[str, float | str] = {"mouth": values.mouth}
    numbers |= {name: values.mouth if isinstance(values.mouth, str) else 1.0 for name in ("mouth_found", "mouth_lag")}
    numbers |= {"wer_errors": values.wer_errors, "wer_words": values.wer_words}
    error = next((x for x in (values.wer_errors, values.wer_words) if isinstance(x, str)), None)
    rate = error or float(values.wer_errors) / float(values.wer_words)
    numbers |= {"wer": rate, "wer_mean": rate}
    return [
        {
            "method": method,
            "id": id,
            "metric": name,
            "value": None if isinstance(x, str) else float(x),
            "reason": x if isinstance(x, str) else None,
            **({"text": values.text} if name == "wer" and not isinstance(x, str) else {}),
        }
        for name, x in numbers.items()
    ]


def losses(steps: int, seed: int, loss: Callable[[int], float]) -> list[str]:
    """Lines of losses.jsonl; which steps are of the joint task differs between seeds."""
    rng = np.random.default_rng(seed)
    made = []
    for step in range(1, steps + 1):
        task = "joint" if rng.random() < 0.6 else "a2v"
        x = loss(step)
        made.append(
            json.dumps({"batch": step - 1, "step": step, "task": task, "loss": x, "video": x / 4, "audio": 3 * x / 4})
            + "\n"
        )
    return made
