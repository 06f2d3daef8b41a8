"""Tasks as data: what of a stream is given, what counts, and what is no task at all."""

from __future__ import annotations

from typing import Any

import pytest

from ccl.tasks import PAPER_TASKS, Given, Task, Term, check, terms_of
from ccl.types import AV, CLOSED, OPEN, Route, View

A2V = Route(a2v=True, v2a=False)


def test_a_stream_that_is_given_whole_is_detached_and_does_not_count() -> None:
    term = Term(A2V, {"audio": Given("all")})
    assert term.view == View(A2V, detach=AV(False, True)) and term.weights == AV(1.0, 0.0)
    kept = Term(A2V, {"audio": Given("all")}, detach={}, weight={"video": 0.5})
    assert kept.view == View(A2V) and kept.weights == AV(0.5, 0.0)


def test_a_part_that_is_given_leaves_the_rest_to_count() -> None:
    term = Term(OPEN, {"video": Given("prefix", seconds=(0.5, 1.0)), "audio": Given("prefix", seconds=(0.5, 1.0))})
    assert term.view == View(OPEN) and term.weights == AV(1.0, 1.0)


def test_terms_are_named_as_their_tasks_unless_they_say_otherwise() -> None:
    driven = (Term(OPEN, shared_time=True, name="both"), Term(A2V, {"audio": Given("all")}, name="driven"))
    assert list(terms_of({"synergy": Task(1.0, driven), "alone": Task(0.0, (Term(CLOSED),))})) == [
        "both",
        "driven",
        "alone",
    ]
    assert list(terms_of(PAPER_TASKS)) == list(PAPER_TASKS)
    with pytest.raises(ValueError, match=r"model.tasks.synergy has two terms named synergy; give each a `name`"):
        check({"synergy": Task(1.0, (Term(OPEN), Term(CLOSED)))})
    with pytest.raises(ValueError, match=r"model.tasks has two terms named a; give one of them another `name`"):
        check({"a": Task(1.0, (Term(OPEN),)), "b": Task(1.0, (Term(CLOSED, name="a"),))})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Given("all", prob=0.5), '"all" of a stream is given with prob 0.5; it is given to every clip, prob 1'),
        (lambda: Given("prefix"), '`seconds` go with the parts "prefix" and "suffix", which need them'),
        (lambda: Given("last_frame", seconds=(1.0, 2.0)), '`seconds` go with the parts "prefix" and "suffix"'),
        (lambda: Given("prefix", seconds=(2.0, 1.0)), "a given part's seconds are 2 to 1; the first must be the least"),
        (lambda: Given("all", time=1.5), "a given part's times is 1.5; it must be a number from 0 to 1"),
        (lambda: Given("all", time=(0.2, 0.1)), "a given part's times are 0.2 to 0.1; the first must be the least"),
        (lambda: Term(OPEN, {"vidio": Given("all")}), "a term's given names the stream 'vidio'; there are video and"),
        (lambda: Term(OPEN, {"audio": Given("first_frame")}), 'a term gives the "first_frame" of the audio, which has'),
        (lambda: Term(OPEN, {"audio": Given("first_last")}), 'a term gives the "first_last" of the audio, which has'),
        (
            lambda: Term(OPEN, {"audio": Given("all")}, weight={"audio": 1.0}),
            "gives all of the audio and weighs its lo",
        ),
        (lambda: Term(OPEN, weight={}), "a term in which no stream's loss counts trains nothing"),
        (lambda: Term(OPEN, {"video": Given("all"), "audio": Given("all")}), "no stream's loss counts trains nothing"),
        (lambda: Task(1.0, ()), "a task has no terms, so there is nothing to train"),
        (lambda: Task(-1.0, (Term(OPEN),)), "a task's prob is -1.0; it must be a number of at least 0"),
        (lambda: check({"a": Task(0.0, (Term(OPEN),))}), "model.tasks has no task of a prob above 0"),
    ],
)
def test_what_is_no_task_is_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert sentence in str(error.value)
