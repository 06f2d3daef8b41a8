"""The kinds of parts: by which class one is known, how a YAML node makes its subject, and its clauses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccl.codecs import AudioCodec, VideoCodec
from ccl.contracts import alignment, codec, guidance, interaction, metric, network, text
from ccl.contracts.base import Clause
from ccl.contracts.sites import Sites
from ccl.evaluation import Metric
from ccl.guidance import Guidance
from ccl.interaction import Alignment, Interaction, Site
from ccl.text import TextEncoder


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


def made(make: Any) -> Any:
    """Most kinds' clauses are put to what makes the part."""
    return make


KINDS: tuple[Kind, ...] = (
    Kind("interaction", Interaction, Callable[[Site], Interaction], Sites, interaction.CLAUSES + network.CLAUSES),
    Kind("guidance rule", Guidance, Callable[[], Guidance], made, guidance.CLAUSES),
    Kind("alignment", Alignment, Callable[[], Alignment], made, alignment.CLAUSES),
    Kind("video codec", VideoCodec, Callable[[], VideoCodec], made, codec.VIDEO),
    Kind("audio codec", AudioCodec, Callable[[], AudioCodec], made, codec.AUDIO),
    Kind("text encoder", TextEncoder, Callable[[], TextEncoder], made, text.CLAUSES),
    Kind("metric", Metric, Callable[[], Metric], made, metric.CLAUSES),
)


def kind_of(cls: type) -> Kind | None:
    """The kind of a class, or None where it is of none."""
    return next((kind for kind in KINDS if issubclass(cls, kind.base)), None)
