"""A network that stands in for one where only passes count, and inputs for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ccl.grid import Grid
from ccl.model import Output
from ccl.types import AV, View

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


def inputs(batch: int = 2) -> tuple[AV, AV, dict[str, Tensor]]:
    """Latents, their times (the first latent frame of each clip is given) and texts."""
    torch.manual_seed(0)
    x = AV(torch.randn(batch, 4, 3, 2, 2), torch.randn(batch, 5, 7))
    times = AV(torch.tensor([0.0, 0.4, 0.4]).repeat(batch, 1), torch.full((batch,), 0.4))
    texts = {text: torch.randn(batch, 6, 8) for text in ("positive", "negative", "empty")}
    return x, times, texts
