"""Tests see it where a function of CCL is given, or gives, another shape or type than it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, Int, Shaped, TypeCheckError, UInt8, config
from torch import Tensor

from ccl.grid import Grid
from ccl.nn.attention import attention
from helpers.checked import IN_FULL, SHAPES, fault, once

if TYPE_CHECKING:
    from nowhere import Nothing


@once(typechecker=beartype)
def rows(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return x @ y.T if len(y) > 1 else rows(y, x)


@once(typechecker=beartype)
def named(count: int, other: Nothing | None = None) -> str:
    return f"{count}" if other is None else other


@once(typechecker=beartype)
def halves(x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "k d"]]:
    yield from x.chunk(2)


def test_axes_of_one_call_agree_and_those_of_another_are_its_own() -> None:
    assert rows(torch.ones(2, 3), torch.ones(4, 3)).shape == (2, 4)
    assert rows(torch.ones(3, 2), torch.ones(5, 2)).shape == (3, 5)
    with pytest.raises(TypeCheckError, match="parameter y"):
        rows(torch.ones(2, 3), torch.ones(4, 5))
    with pytest.raises(TypeCheckError, match="parameter x"):
        rows(torch.ones(2, 3).long(), torch.ones(4, 3))


def test_what_comes_back_is_checked_against_what_went_in() -> None:
    with pytest.raises(TypeCheckError, match="return"):
        rows(torch.ones(3, 2), torch.ones(1, 2))  # turned round, within a call whose own axes are right


def test_types_are_checked_without_shapes_and_names_for_type_checkers_are_not() -> None:
    assert named(2) == "2" and named(2, "two") == "two"
    with pytest.raises(TypeCheckError):
        named("2")
    with pytest.raises(TypeCheckError, match="return"):
        named(2, 2)


def test_it_is_turned_off_as_jaxtypings_own_check_is() -> None:
    config.update("jaxtyping_disable", True)
    try:
        assert named("2") == "2" and rows(torch.ones(2, 3).long(), torch.ones(4, 3).long()).shape == (2, 4)
    finally:
        config.update("jaxtyping_disable", False)


def test_a_generator_is_checked_where_it_begins() -> None:
    assert [len(half) for half in halves(torch.ones(5, 3))] == [3, 2]
    with pytest.raises(TypeCheckError, match="parameter"):
        next(halves(torch.ones(5)))


def test_all_of_the_package_is_checked() -> None:
    q = torch.ones(1, 2, 3, 4)
    with pytest.raises(TypeCheckError):
        attention(q, torch.ones(1, 2, 3, 5), q)
    with pytest.raises(TypeCheckError, match="frames"):  # of a dataclass
        Grid(frames="nine")


def test_a_tensor_is_told_as_jaxtyping_tells_it_whatever_was_seen_before() -> None:
    axes = ("", " n", "n d", "n n", "n 3", "3 n", "_ n", "n _", "*a n", "... n", "#n d", "n n+1")
    kinds = [kind[Tensor, names] for kind in (Float, Int, Bool, UInt8, Shaped) for names in axes]
    shapes = [(), (3,), (4,), (3, 3), (3, 4), (4, 3), (1, 4), (2, 3, 3)]
    values = [torch.zeros(shape, dtype=kind) for shape in shapes for kind in (torch.half, torch.int64, torch.bool)]
    before = [(Float[Tensor, "n m"], torch.zeros(3, 4)), (Float[Tensor, " d"], torch.zeros(3))]
    faults = 0
    for first in (before[:1], before):
        for kind in kinds:
            for value in (*values, None, np.zeros(3)):
                told = []
                for tell in (fault, IN_FULL):
                    with SHAPES:
                        said = [tell(*pair) for pair in (*first, (kind, value), (Float[Tensor, "n d"], values[12]))]
                    told.append(said)
                assert told[0] == told[1], (kind, value)
                faults += bool(told[0][-2])
    assert 0 < faults < 2 * len(kinds) * len(values)


def test_axes_of_one_tensor_that_does_not_fit_bind_nothing() -> None:
    with SHAPES:
        assert fault(Float[Tensor, "k 3"], torch.zeros(2, 4)) != ""
        assert fault(Float[Tensor, "k 3"], torch.zeros(5, 3)) == ""
