"""A network that stands in for one where only passes count, rules beyond the shipped ones, and inputs for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ccl.flow import expand
from ccl.grid import Grid
from ccl.guidance import Guidance
from ccl.guidance.base import table
from ccl.model import Output
from ccl.types import ALONE, AV, EMPTY, POSITIVE, Pass, Route, Skip, View

GRID = Grid(frames=9)


class FakeNet(nn.Module):
    """A velocity that depends on everything a pass may vary; counts its forwards and which texts it prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = 0
        self.prepared: list[Any] = []

    def prepare(self, text: Any, *, extras: dict[str, Any]) -> Any:
        self.prepared.append(text)
        return text

    def forward(self, x: AV, t: AV, text: list[Any], *, grid: Grid, view: list[View], extras: Any = None) -> Output:
        self.forwards += 1
        batch = len(x.audio if x.video is None else x.video) // len(view)
        rows = [one for one in view for _ in range(batch)]
        sees = AV(
            torch.tensor([float(one.route.a2v) for one in rows]), torch.tensor([float(one.route.v2a) for one in rows])
        )
        left_out = torch.tensor([float(len(one.skip)) for one in rows])
        words = AV(*(torch.cat([one[i] if isinstance(one, AV) else one for one in text]).mean((1, 2)) for i in (0, 1)))
        means = x.map(lambda z: z.flatten(1).mean(1))

        def one(z: Tensor, t: Tensor, word: Tensor, seen: Tensor, other: Tensor | None) -> Tensor:
            mixed = word + t.reshape(len(t), -1).mean(1) + left_out + (0 if other is None else seen * other)
            return z * 0.5 + torch.sin(mixed).reshape(-1, *[1] * (z.ndim - 1))

        others = AV(means.audio, means.video)
        return Output(AV.zip(one, x, t, words, sees, others), {})


class Rescaled(Guidance):
    """LTX-2's: text, a perturbed pass and the closed one, on predictions of the clean clip, whose spread is kept.

    p = c + (s - 1)(c - text) + stg (c - perturbed) + (m - 1)(c - closed), times phi std(c) / std(p) + 1 - phi.
    """

    def __init__(self, s: float = 3.0, stg: float = 1.0, m: float = 3.0, phi: float = 0.7) -> None:
        self.s, self.stg, self.m, self.phi = s, stg, m, phi

    def passes(self, route: Route, t: float) -> dict[Pass, AV[float]]:
        perturbed = View(route, skip=frozenset({Skip("self_attention", frozenset({0}))}))
        weights = (1 - self.s, -self.stg, 1 - self.m)
        left = (Pass(EMPTY, View(route)), Pass(POSITIVE, perturbed), Pass(POSITIVE, ALONE))
        rows = [(one, AV(w, w)) for one, w in zip(left, weights, strict=True)]
        whole = 1 - sum(weights)
        return table((Pass(POSITIVE, View(route)), AV(whole, whole)), *rows)

    def combine(
        self, v: Mapping[Pass, AV[Any]], weights: Mapping[Pass, AV[float]], x: AV[Any], t: float, times: AV[Any]
    ) -> AV[Any]:
        guided = super().combine(v, weights, x, t, times)
        conditional = next(iter(v.values()))

        def rescaled(x: Tensor, time: Tensor, v: Tensor, c: Tensor) -> Tensor:
            time = expand(time, x)
            clean, told = x - time * v, x - time * c
            clean = clean * (self.phi * told.std() / clean.std() + 1 - self.phi)
            return torch.where(time > 0, (x - clean) / time.clamp(min=1e-9), c)

        return AV.zip(rescaled, x, times, guided, conditional)


def inputs(batch: int = 2) -> tuple[AV, AV, dict[str, Tensor]]:
    """Latents, their times (the first latent frame of each clip is given) and texts."""
    torch.manual_seed(0)
    x = AV(torch.randn(batch, 4, 3, 2, 2), torch.randn(batch, 5, 7))
    times = AV(torch.tensor([0.0, 0.4, 0.4]).repeat(batch, 1), torch.full((batch,), 0.4))
    texts = {text: torch.randn(batch, 6, 8) for text in ("positive", "negative", "empty")}
    return x, times, texts
