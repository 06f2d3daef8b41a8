"""Tests see it where a function of CCL is given, or gives, another shape or type than it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError, config
from torch import Tensor

from ccl.grid import Grid
from ccl.nn.attention import attention
from helpers.checked import once

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
