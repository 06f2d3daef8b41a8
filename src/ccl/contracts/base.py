"""Clauses: what a swappable part promises, one function each, and what is seen where it does not keep one.

A clause is a function of the part's subject (what makes the part, and what it is tried with). It returns nothing where
the clause holds, a remark where that has a reason worth telling, and raises where it does not. Its name, read as words,
is the clause.
"""

from __future__ import annotations

import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import torch

from ccl.arguments import described
from ccl.files import machine_trouble
from ccl.types import AV, STREAMS
from ccl.weights.catalogue import MissingWeights
from ccl.weights.find import Absent

Clause = Callable[[Any], str | None]


class Broken(Exception):  # noqa: N818 - a finding about a part, told in its line
    """A clause that the part does not keep; the message says what was seen."""


class OfAnotherType(Broken):
    """What a method gave cannot be looked into: every clause after it would only say so again."""


@dataclass(frozen=True)
class Outcome:
    """What came of a clause.

    Args:
        clause: in words.
        state: "ok"; "FAILED"; "-" where this machine lacks what it takes to see.
        said: what was seen, in a sentence; "" where there is nothing to say.
        ends: whether no other clause can tell more.
    """

    clause: str
    state: Literal["ok", "FAILED", "-"]
    said: str = ""
    ends: bool = False


def words(clause: Clause) -> str:
    """A clause's name as it is read."""
    return clause.__name__.replace("_", " ")  # type: ignore[attr-defined]


def outcome(clause: Clause, subject: Any) -> Outcome:
    """Put a part through one clause. Whatever the part raises is what was seen; the machine's trouble passes through.

    The global random numbers are as before afterwards, and warnings of the part are not the clause's.
    """
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return Outcome(words(clause), "ok", clause(subject) or "")
    except Broken as error:
        return Outcome(words(clause), "FAILED", str(error), ends=isinstance(error, OfAnotherType))
    except (Absent, MissingWeights) as error:
        return Outcome(words(clause), "-", one_line(error))
    except Exception as error:  # a part may raise anything
        if machine_trouble(error):
            raise
        return Outcome(words(clause), "FAILED", f"it raises {type(error).__name__}: {one_line(error)}{place(error)}")


def outcomes(clauses: Sequence[Clause], subject: Any) -> Iterator[Outcome]:
    """Put a part through all clauses; one that cannot be made, which is the first, or answers with another type,
    through no other."""
    for clause in clauses:
        came = outcome(clause, subject)
        yield came
        if came.ends or (clause is clauses[0] and came.state == "FAILED"):
            return


def one_line(error: BaseException) -> str:
    """What an error says, on one line of a length that one reads."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def place(error: BaseException) -> str:
    """` (mine.py, line 7)`, the last of the user's own lines that an error passed through; else nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__).parents[1]), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"])
    own = [f for f in frames if not f.filename.startswith(ours)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def require(holds: object, seen: str) -> None:
    """Broken, with what was seen, where it does not hold."""
    if not bool(holds):
        raise Broken(seen)


def given(x: Any, by: object, method: str, *kinds: type, key: str = "") -> Any:
    """What a part's method gave, where it is of one of these types.

    Args:
        x: what it gave.
        by: the part.
        method: of it.
        kinds: what its base class promises.
        key: of x in what was given; "" where it is all of it.

    Raises:
        OfAnotherType: it is of none.
    """
    if not isinstance(x, kinds):
        wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
        seen = f"what {type(by).__name__}.{method} gives{key and f' as {key}'} is {described(x)}"
        raise OfAnotherType(f"{seen}; it must be of type {wanted}")
    return x


def given_pair(x: Any, by: object, method: str, *kinds: type, key: str = "") -> AV[Any]:
    """The same for a value of each stream."""
    given(x, by, method, AV, key=key)
    for stream, value in zip(STREAMS, x, strict=True):
        given(value, by, method, *kinds, key=f"{key}.{stream}".lstrip("."))
    return x


def apart(a: Any, b: Any) -> float:
    """Largest difference of two tensors; infinite where their shapes differ or a number is none."""
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().nan_to_num(nan=float("inf")).max()) if a.numel() else 0.0
