"""Guidance as a table: passes of the network and their weights, which sum to 1 for each stream (CCL Eq. 2, 5, 6).

B clips, C channels, T latent frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

from ccl.types import AV, POSITIVE, Pass, Route


class Guidance(ABC):
    """A guidance rule. A new rule is a subclass with one method, `passes`, built from `table`.

    Attributes:
        name: what the command line calls it; "" where strengths alone do not make it.
    """

    name: ClassVar[str] = ""

    @abstractmethod
    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        """The passes of one step and their weights, which sum to 1 in each stream.

        Args:
            route: the generation task's own.
            t: time of the step, from 1 (noise) to 0 (clean).
        """

    def combine(
        self, v: Mapping[Pass, AV[Any]], weights: Mapping[Pass, AV[float]], x: AV[Any], t: float, times: AV[Any]
    ) -> AV[Any]:
        """One velocity out of those of the passes: here their weighted sum.

        It is summed in float32, as differences of passes lose bits in bfloat16. A rule that combines otherwise must
        give equal predictions back as they are; x - times * v is the clean clip that a velocity predicts.

        Args:
            v: of each pass that was run, in the shapes of x. A pass that weighs nothing in x is not run.
            weights: of the same passes.
            x: latents (B, C, T, ...); a stream that is not generated is None, here and in v.
            t: time of the step.
            times: what the network was told, (B,) or (B, T): t, but 0 where a latent frame is given.
        """

        def summed(i: int) -> Any:
            return None if x[i] is None else sum(weights[one][i] * each[i].float() for one, each in v.items())

        return AV(summed(0), summed(1))

    @property
    def conditional_at_one(self) -> bool:
        """Whether strengths of 1 in both streams leave the conditional prediction alone."""
        return True

    @property
    def parts(self) -> tuple[Guidance, ...]:
        """The rules that it is made of, where it wraps others."""
        return ()

    @property
    def called(self) -> str:
        """Its name, or its class's where it has none of its own."""
        return vars(type(self)).get("name") or type(self).__name__

    def record(self) -> dict[str, Any]:
        """What the rule is, in plain values: clips whose records say the same were guided the same.

        A rule of the user's own is called as it is found again, by its module too: `mine.Rule`.
        """
        rule = type(self)
        own = "" if rule.__module__.split(".")[0] == "ccl" else f"{rule.__module__}."
        kept = {name: self._plain(name, value) for name, value in vars(self).items()}
        return {"rule": f"{own}{rule.__name__}", **kept}

    def _plain(self, name: str, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Guidance):
            return value.record()
        if isinstance(value, AV):
            return value._asdict()
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: self._plain(name, getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Mapping):
            return {str(key): self._plain(name, each) for key, each in value.items()}
        if isinstance(value, Set):
            return sorted(self._plain(name, each) for each in value)
        if isinstance(value, list | tuple):
            return [self._plain(name, each) for each in value]
        raise ValueError(
            f"{type(self).__name__} keeps a {type(value).__name__} as `{name}`, which no record of a clip can hold; "
            "let its `record` say what it is"
        )


def table(*rows: tuple[Pass, AV[float]]) -> dict[Pass, AV[float]]:
    """A rule's rows as a table: equal passes are added up, passes that weigh nothing in either stream are dropped.

    Passes coincide where the task's own route is closed already (t2v, t2a): three passes then become two.
    """
    total: dict[Pass, AV[float]] = {}
    for key, weight in rows:
        total[key] = AV.zip(lambda a, b: a + b, total.get(key, AV(0.0, 0.0)), weight)
    return {key: weight for key, weight in total.items() if max(map(abs, weight)) > 1e-9}


def conditional(passes: Iterable[Pass]) -> Pass:
    """Of a rule's passes the one in which nothing is left out: the prompt is read on the task's own route.

    Raises:
        ValueError: none is so.
    """
    whole = [one for one in passes if one.text == POSITIVE and not one.view.skip and not any(one.null)]
    if not whole:
        raise ValueError("no pass is the conditional prediction, which this guidance needs; it may not weigh 0")
    return max(whole, key=lambda one: one.view.route.a2v + one.view.route.v2a)


def used(weights: Mapping[Pass, AV[float]], generated: AV[bool]) -> dict[Pass, AV[float]]:
    """The passes that weigh something in a stream that is generated."""
    return {key: w for key, w in weights.items() if any(g and abs(x) > 1e-9 for g, x in zip(generated, w, strict=True))}
