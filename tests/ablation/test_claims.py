"""Claims: which intervals decide them, and which YAML is none."""

from __future__ import annotations

import pytest

from ccl.ablation import claims
from ccl.ablation.claims import Claim, Test

NAN = float("nan")
BETTER, NO_WORSE = Test("b", "a", "mouth"), Test("b", "a", "wer", margin=0.02)


@pytest.mark.parametrize(
    ("test", "low", "high", "verdict"),
    [
        (BETTER, 0.01, 0.2, "holds"),
        (BETTER, -0.01, 0.2, "undecided"),
        (BETTER, -0.2, -0.01, "does not hold"),
        (NO_WORSE, -0.01, 0.0, "holds"),  # worse, but by less than what counts
        (NO_WORSE, -0.03, 0.5, "undecided"),
        (NO_WORSE, -0.05, -0.03, "does not hold"),
        (BETTER, NAN, NAN, "undecided"),
    ],
)
def test_an_interval_decides(test: Test, low: float, high: float, verdict: str) -> None:
    assert test.verdict(low, high) == verdict


def test_a_claim_holds_where_all_its_tests_do() -> None:
    assert claims.verdict(["holds", "holds"]) == "holds"
    assert claims.verdict(["holds", "undecided"]) == "undecided"
    assert claims.verdict(["undecided", "does not hold", "holds"]) == "does not hold"


def test_claims_are_read_from_a_matrix() -> None:
    given = [{"says": "b is heard as well", "tests": [{"better": "b", "worse": "a", "measure": "wer", "margin": 0.02}]}]
    assert claims.read(given, ["a", "b"]) == (Claim("b is heard as well", (NO_WORSE,)),)
    assert claims.read(None, ["a"]) == ()


TEST = {"better": "b", "worse": "a", "measure": "mouth"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([{"says": "x"}], "must be says"),
        ([{"says": "x", "tests": []}], "must be says"),
        ([{"says": "x", "tests": [{"better": "b"}]}], "it takes better, margin, measure, worse"),
        ([{"says": "x", "tests": [TEST | {"worse": "c"}]}], "about the row 'c'; there are a, b"),
        ([{"says": "x", "tests": [TEST | {"worse": "b"}]}], "with itself"),
        ([{"says": "x", "tests": [TEST | {"margin": -1}]}], "margin is -1"),
    ],
)
def test_what_is_no_claim_is_told(given: list, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        claims.read(given, ["a", "b"])
