"""A matrix: runs that are trained and rows that are sampled and scored, one of each a seed, as a YAML says.

Everything of a matrix lies in one folder:

    matrix.yaml            the matrix with its part files read in
    test.jsonl             the rows of the test set that every row of the matrix is scored on
    protocol.yaml          its metrics, as `ccl evaluate --protocol` takes them
    runs/RUN-sSEED/        a run folder of `ccl fit`, and in it model/, what was exported
    rows/ROW-sSEED/        clips/, and scores.jsonl as `ccl evaluate` writes it

Names of YAML files in a matrix are relative to it, as everywhere in configs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ccl import arguments
from ccl.ablation.claims import Claim
from ccl.cli.errors import UsageError
from ccl.spelling import did_you_mean

RUNS, ROWS = "runs", "rows"
GIVEN = ("text", "image", "audio", "video")


@dataclass(frozen=True)
class Run:
    """What is trained, once a seed.

    Args:
        name: of the run.
        keys: of `ccl fit`, and their values; the name of a YAML file stands for the whole node that it holds.
        ckpt: a model that is there already, which is taken in place of a training: a run, a model folder, a .ckpt,
            or OWNER/NAME@REVISION of the hub, whose rows are made anew where another text stands here; "" is what
            ships.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    ckpt: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How a row's clips are made.

    Args:
        steps: of the solver; None is the model's.
        shift: moves the solver's times towards noise; None is the model's.
        task: the trained term to sample on; None is what suits.
        give: of the test set's media; "text" gives none.
        batch_size: clips a forward.
        scale: strength of a guidance rule that has one, by stream; None is as the rule's file says.
    """

    steps: int | None = None
    task: str | None = None
    scale: Mapping[str, float] | None = None
    give: tuple[str, ...] = ("text",)
    batch_size: int = 16
    shift: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            arguments.number("steps", self.steps, 1, 10_000, whole=True)
        if self.shift is not None:
            from ccl.flow import check_shift  # torch is not here yet

            check_shift("shift", self.shift)
        arguments.number("batch_size", self.batch_size, 1, 100_000, whole=True)
        for one in self.give:
            if one not in GIVEN:
                raise ValueError(f"give names '{one}'; there are {', '.join(GIVEN)}")


@dataclass(frozen=True)
class Row:
    """What is sampled and scored, once a seed.

    Args:
        name: of the row.
        run: whose model makes its clips.
        guidance: class_path and init_args of the rule; None is the model's own.
        sampling: how.
        paper: the row of evaluation/paper.yaml that it is compared with.
    """

    name: str
    run: str
    guidance: Mapping[str, Any] | None = None
    sampling: Sampling = Sampling()
    paper: str | None = None


@dataclass(frozen=True)
class Testing:
    """What is scored.

    Args:
        set: a test set, as `ccl evaluate --testset` takes it.
        clips: the first so many of each subset; None for all.
        subsets: those alone; None for all.
    """

    set: str = "world"
    clips: int | None = None
    subsets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.clips is not None:
            arguments.number("clips", self.clips, 1, arguments.MOST, whole=True)


@dataclass(frozen=True)
class Matrix:
    """Runs and rows, and what is to be learnt of them.

    Args:
        name: of its folder.
        about: a sentence, the table's head.
        seeds: of which each gives every run the same beginning, clips, tasks, times and noise.
        config: YAML files of `ccl fit` that every run stacks.
        train: keys of `ccl fit` and their values, for every run; stand below `over`.
        over: on top of them, in order: YAML files of `ccl fit`, and keys and their values. Another size, for one.
        runs: that are trained.
        rows: that are sampled and scored.
        test: on what.
        scores: the metrics' names, each with what its node in a protocol says of it.
        compare: pairs of rows, the first against the second.
        claims: what is to be decided.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    config: tuple[Path, ...]
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    train: Mapping[str, Any] = field(default_factory=dict)
    over: tuple[Path | Mapping[str, Any], ...] = ()
    test: Testing = Testing()
    scores: Mapping[str, Any] = field(default_factory=dict)
    compare: tuple[tuple[str, str], ...] = ()
    claims: tuple[Claim, ...] = ()

    def run(self, name: str) -> Run:
        """The run of that name."""
        return next(run for run in self.runs if run.name == name)

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def argv(self, run: Run) -> list[str]:
        """The command line of `ccl fit` that trains a run, without its seed, name and place."""
        stack = [word for file in self.config for word in ("--config", str(file))]
        over: list[str] = []
        for one in self.over:
            over += ["--config", str(one)] if isinstance(one, Path) else flags(one)
        return [*stack, *flags(self.train), *over, *flags(run.keys)]

    def only(self, *, seeds: Sequence[int] | None = None, rows: Sequence[str] | None = None) -> Matrix:
        """These seeds and rows alone, and the runs that they need.

        Raises:
            UsageError: there is no row of that name.
        """
        names = [row.name for row in self.rows]
        for name in rows or ():
            if name not in names:
                raise UsageError(
                    f"--rows: there is no row '{name}'{did_you_mean(name, names)}; it has {', '.join(names)}"
                )
        kept = tuple(row for row in self.rows if rows is None or row.name in rows)
        left = {row.name for row in kept}
        return replace(
            self,
            seeds=self.seeds if seeds is None else tuple(seeds),
            rows=kept,
            runs=tuple(run for run in self.runs if rows is None or run.name in {row.run for row in kept}),
            compare=tuple(pair for pair in self.compare if left.issuperset(pair)),
            claims=tuple(c for c in self.claims if all({t.better, t.worse} <= left for t in c.tests)),
        )


def numbered(name: str, seed: int) -> str:
    """A run or a row of one seed, which is also the name of its folder."""
    return f"{name}-s{seed}"


def flags(keys: Mapping[str, Any]) -> list[str]:
    """Keys and values as options of `ccl fit`."""
    return [word for key, value in keys.items() for word in (f"--{key}", _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1_000_000).removesuffix("...\n").strip()


def record(matrix: Matrix) -> dict[str, Any]:
    """A matrix as plain values, its part files read in."""
    from dataclasses import asdict

    from ccl.ablation.reading import inlined
    from ccl.storage.run import plain

    return plain(inlined(asdict(matrix)))
