"""A step cache: what a pass predicted at an earlier step of a sampling is taken again where the clip has moved little.

Made anew for each sampling, so that no clip meets another's; of a batch each clip has its own memory, and comes out as
it does alone. B clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ccl import arguments
from ccl.nn.chunks import chosen, put
from ccl.types import AV, Pass

Run = Callable[[Sequence[Pass], Sequence[int]], dict[Pass, AV[Any]]]


class StepCache:
    """The memory of one sampling.

    A prediction is taken again while the latents of its clip are nearer to those it was made of than `bound`, relative
    to their size, in both streams; at a bound of 0 never.

    Args:
        bound: from 0 to 1.

    Attributes:
        asked: passes that were asked for, of each clip.
        taken: (B,) of them, those that were taken again.
        off: (B,) by how much a prediction had changed, relative to its size, where it was made anew: the most, so no
            less than what those taken again were off by, as far as one moves steadily.
    """

    def __init__(self, bound: float) -> None:
        arguments.number("the bound of the step cache", bound, 0, 1)
        self.bound = bound
        self.asked = 0
        self.taken: Tensor | None = None
        self.off: Tensor | None = None
        self._at: dict[Pass, AV[Any]] = {}  # latents of each clip's last prediction
        self._v: dict[Pass, AV[Any]] = {}  # that prediction

    def __call__(self, passes: Sequence[Pass], x: AV[Any], run: Run) -> dict[Pass, AV[Any]]:
        """The velocity of each pass.

        Args:
            passes: of the step.
            x: latents of B clips.
            run: predicts some passes for some clips.
        """
        of = len(x.audio if x.video is None else x.video)
        if self.taken is None or self.off is None:
            self.taken, self.off = torch.zeros(of, dtype=torch.long), torch.zeros(of)
        groups: dict[tuple[int, ...], list[Pass]] = {}
        for one in passes:
            groups.setdefault(self._moved(one, x, of), []).append(one)
        v: dict[Pass, AV[Any]] = {}
        for rows, group in groups.items():
            fresh = run(group, rows) if rows else {}
            for one in group:
                v[one] = self._merged(one, x, fresh.get(one), rows, of)
            again = [row for row in range(of) if row not in rows]
            self.taken[again] += len(group)
        self.asked += len(passes)
        return {one: v[one] for one in passes}

    def _moved(self, one: Pass, x: AV[Any], of: int) -> tuple[int, ...]:
        """The clips for which a pass is to be run."""
        if one not in self._at:
            return tuple(range(of))
        far = furthest(x, self._at[one])
        return tuple(row for row in range(of) if not float(far[row]) < self.bound)

    def _merged(self, one: Pass, x: AV[Any], fresh: AV[Any] | None, rows: tuple[int, ...], of: int) -> AV[Any]:
        """The prediction for all clips, of which some are fresh; it is remembered."""
        v, at = fresh, x
        if one in self._v:
            before = self._v[one]
            if fresh is None:
                return before
            assert self.off is not None
            old = AV(*(None if null else z for z, null in zip(chosen(before, rows, of), one.null, strict=True)))
            far = furthest(old, fresh).cpu()  # what is null has no velocity to speak of
            self.off[list(rows)] = torch.maximum(self.off[list(rows)], far)
            if len(rows) < of:
                v = AV.zip(lambda old, new: put(old, new, rows, of), before, fresh)
                at = AV.zip(lambda old, new: put(old, new, rows, of), self._at[one], chosen(x, rows, of))
        assert v is not None  # what is not remembered was run
        self._at[one], self._v[one] = at, v
        return v

    def said(self, row: int) -> str:
        """What became of a clip's passes, in a sentence."""
        assert self.taken is not None and self.off is not None
        said = f"of {self.asked} passes {int(self.taken[row])} were taken from the step cache"
        if not self.off[row]:
            return f"{said}; none was run again"
        return f"{said}; where one was run again, its prediction had changed by {float(self.off[row]):.1%} at most"


def furthest(x: AV[Any], y: AV[Any]) -> Float[Tensor, " b"]:
    """How far each clip of x is from that of y, relative to its size in y, in the stream of x that is further."""

    def far(a: Tensor, b: Tensor) -> Tensor:
        a, b = a.float().flatten(1), b.float().flatten(1)
        return (a - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-12)

    each = [z for z in AV.zip(far, x, y) if z is not None]
    return torch.stack(each).amax(0)
