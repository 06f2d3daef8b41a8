"""The kinds of parts: by which class one is known, how a YAML node makes its subject, and its clauses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccl.contracts import interaction, network
from ccl.contracts.base import Clause
from ccl.contracts.sites import Sites
from ccl.interaction import Interaction, Site


@dataclass(frozen=True)
class Kind:
    """A swappable kind.

    Args:
        name: in words.
        base: of its classes.
        made: type of the factory that a YAML node is read as.
        subject: makes what the clauses are put to of that factory.
        clauses: of its contract.
    """

    name: str
    base: type
    made: Any
    subject: Callable[[Any], Any]
    clauses: tuple[Clause, ...]


KINDS: tuple[Kind, ...] = (
    Kind("interaction", Interaction, Callable[[Site], Interaction], Sites, interaction.CLAUSES + network.CLAUSES),
)


def kind_of(cls: type) -> Kind | None:
    """The kind of a class, or None where it is of none."""
    return next((kind for kind in KINDS if issubclass(cls, kind.base)), None)
