"""What a paper says that a matrix can decide: sentences, each with the tests on which it stands or falls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ccl import arguments

Verdict = Literal["holds", "does not hold", "undecided"]
LOSS = "loss"  # of training, a measure of the rows' runs: both streams', or of one "loss.video", "loss.audio"


@dataclass(frozen=True)
class Test:
    """A comparison of two rows by one measure.

    Args:
        better: the row of which it is said.
        worse: the row it is compared with.
        measure: a column of the scores ("mouth", "wer"), or "loss", "loss.video", "loss.audio": the joint task's
            training loss of the rows' runs, of both streams or one, step by step, of which less is better.
        margin: None says that `better` is better. A number, in the measure's own unit (0.02 of "wer" is two words of a
            hundred), says that it is no worse than by this much.
    """

    __test__ = False  # for pytest, this is none of its own
    better: str
    worse: str
    measure: str
    margin: int | float | None = None

    def __post_init__(self) -> None:
        if self.better == self.worse:
            raise ValueError(f"a test compares the row '{self.better}' with itself")
        if self.margin is not None:
            arguments.number("a test's margin", self.margin, 0)

    def verdict(self, low: float, high: float) -> Verdict:
        """What the 95 % interval of how much better `better` is says of the test.

        Args:
            low: of better minus worse, turned so that more is better; NaN where there is no interval.
            high: of the interval.
        """
        least = -(self.margin or 0.0)
        return "holds" if low > least else "does not hold" if high < least else "undecided"


@dataclass(frozen=True)
class Claim:
    """A sentence, and the tests that must all hold for it to hold.

    Args:
        says: the sentence.
        tests: one or several.
    """

    says: str
    tests: tuple[Test, ...]


def verdict(found: Sequence[Verdict]) -> Verdict:
    """Of a claim, from its tests': it holds where all do, and does not where one does not."""
    return "does not hold" if "does not hold" in found else "undecided" if "undecided" in found else "holds"


def read(given: Any, rows: Collection[str]) -> tuple[Claim, ...]:
    """The claims of a matrix from its YAML: [{says: ..., tests: [{better: ..., worse: ..., measure: ...}]}].

    Args:
        given: the value of its key `claims`, or None.
        rows: names of the matrix's rows.

    Raises:
        ValueError: says which claim is wrong, and how.
    """
    claims = []
    for one in given or ():
        if not isinstance(one, dict) or one.keys() != {"says", "tests"} or not one["tests"]:
            raise ValueError(f"a claim is {one!r}; it must be says: SENTENCE and tests: [...]")
        claims.append(Claim(str(one["says"]), tuple(one_test(test, str(one["says"]), rows) for test in one["tests"])))
    return tuple(claims)


def one_test(given: Any, says: str, rows: Collection[str]) -> Test:
    """One test of a claim; ValueError as `read`."""
    keys = {field.name for field in fields(Test)}
    if not isinstance(given, dict) or not {"better", "worse", "measure"} <= given.keys() <= keys:
        raise ValueError(f"a test of the claim '{says}' is {given!r}; it takes {', '.join(sorted(keys))}")
    for key in ("better", "worse"):
        if given[key] not in rows:
            raise ValueError(f"the claim '{says}' is about the row {given[key]!r}; there are {', '.join(rows)}")
    return Test(**given)
