"""How often the interval of a study's win rate holds the truth, and how wide it is, over simulated raters and rows.

python benchmarks/study.py [--studies 200]

A rater prefers the first of two systems where bias + own leaning + the row's + logistic noise is above 0, and sees no
difference within 0.25 of it. The goal is 95 %; `needed` is the width that 95 % of the studies' win rates would take.
"""

from __future__ import annotations

import argparse

import numpy as np

from ccl.study.answers import Answer
from ccl.study.design import compared, parts
from ccl.study.findings import compared as rates

BIAS, TIE = 0.5, 0.25
# raters, rows, comparisons a rater, spread of raters' leanings, of rows'
STUDIES = (
    (12, 30, None, 0.5, 1.0),
    (12, 30, None, 0.0, 0.0),
    (30, 60, 20, 0.5, 1.0),
    (30, 60, 20, 0.5, 0.0),
    (6, 40, None, 1.0, 0.5),
    (20, 100, 10, 0.3, 2.0),
)


def answers(seed: int, raters: int, rows: int, each: int | None, leaning: float, rowwise: float) -> list[Answer]:
    """What simulated raters say."""
    rng = np.random.default_rng(seed)
    trials = compared(["a", "b"], [f"r{number}" for number in range(rows)], None, seed)
    own, of_row = rng.normal(0, leaning, raters), {trial.row: rng.normal(0, rowwise) for trial in trials}
    made = []
    for rater, part in enumerate(parts(trials, raters, each, seed)):
        for trial in (trials[showing.trial] for showing in part):
            felt = BIAS + own[rater] + of_row[trial.row] + rng.logistic()
            side = "" if abs(felt) < TIE else trial.sides[0 if felt > 0 else 1]
            made.append(Answer(f"rater{rater}", trial, "which", side))
    return made


def truth(leaning: float, rowwise: float) -> float:
    """The win rate over all raters and rows."""
    rng = np.random.default_rng(0)
    felt = BIAS + rng.normal(0, np.hypot(leaning, rowwise), 4_000_000) + rng.logistic(size=4_000_000)
    return float(np.mean((felt > TIE) + 0.5 * (np.abs(felt) <= TIE)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    count = parser.parse_args().studies
    print("| raters | rows | a rater gets | spread of raters, rows | holds the truth | width | needed |")
    print("|---|---|---|---|---|---|---|")
    for raters, rows, each, leaning, rowwise in STUDIES:
        right = truth(leaning, rowwise)
        found = [
            rates("which", ("a", "b"), answers(seed, raters, rows, each, leaning, rowwise))[0][0]
            for seed in range(count)
        ]
        held = np.mean([pair.low <= right <= pair.high for pair in found])
        wide = np.mean([pair.high - pair.low for pair in found])
        needed = 2 * 1.96 * np.std([pair.value for pair in found])
        print(
            f"| {raters} | {rows} | {each or 'all'} | {leaning:g}, {rowwise:g} | {100 * held:.1f}% | {wide:.3f} | "
            f"{needed:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
