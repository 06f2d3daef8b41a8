"""The time convention, stated here and nowhere else: t = 0 is clean, t = 1 is noise (Wan's sigma).

x_t = (1 - t) x + t eps, v = eps - x; the network's embedding gets 1000 t. Latents are (B, C, T, ...): time is
dimension 2 in both streams, and t is (B,) or, with its own time for each latent frame, (B, T).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ccl import arguments


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Shape t of (B,) or (B, T) so that it broadcasts over `like` of (B, C, T, ...)."""
    if t.ndim == 2:
        return t.reshape(t.shape[0], 1, t.shape[1], *[1] * (like.ndim - 3))
    return t.reshape(t.shape[0], *[1] * (like.ndim - 1))


def interpolate(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x + t eps, in float32 whatever the autocast."""
    t = expand(t, x).float()
    return (1 - t) * x.float() + t * noise.float()


def velocity(x: Tensor, noise: Tensor) -> Tensor:
    """v = eps - x, what the network predicts."""
    return noise.float() - x.float()


def loss(v_hat: Tensor, v: Tensor, weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean squared error in float32 over the entries whose weight (B,) or (B, T) is not 0.

    The mean is over what is counted, so a clean first frame that leaves the loss does not shrink it
    (paper silent; docs/equations.md).
    """
    error = (v_hat.float() - v.float()).square()
    if weight is None:
        return error.mean()
    weight = expand(weight, error).expand_as(error).to(error.dtype)
    return (error * weight).sum() / weight.sum().clamp(min=1)


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: s t / (1 + (s - 1) t) (SD3, Wan: 5, 3 at low resolution)."""
    return shift * t / (1 + (shift - 1) * t)


def check_shift(name: str, shift: Any) -> None:
    """ValueError where times cannot be moved by it."""
    arguments.number(name, shift)
    if shift <= 0:
        raise ValueError(f"{name} is {shift:g}; it must be positive")


class TimeDistribution(ABC):
    """Draws training times."""

    @abstractmethod
    def sample(self, batch: int, generator: torch.Generator) -> Float[Tensor, " b"]:
        """(B,) times in (0, 1)."""


class LogitNormal(TimeDistribution):
    """sigmoid(N(mean, std)), shifted (paper silent; decision 15).

    Args:
        shift: towards noise; 1 leaves the draw as it is.
        mean: of the normal.
        std: of the normal.
    """

    def __init__(self, shift: float = 1.0, mean: float = 0.0, std: float = 1.0) -> None:
        check_shift("time.shift", shift)
        arguments.number("time.mean", mean)
        arguments.number("time.std", std, 0)
        self.shift, self.mean, self.std = shift, mean, std

    def sample(self, batch: int, generator: torch.Generator) -> Float[Tensor, " b"]:
        t = torch.sigmoid(torch.randn(batch, generator=generator) * self.std + self.mean)
        return shift_time(t, self.shift)


class UniformTime(TimeDistribution):
    """U(0, 1), shifted.

    Args:
        shift: towards noise; 1 leaves the draw as it is.
    """

    def __init__(self, shift: float = 1.0) -> None:
        check_shift("time.shift", shift)
        self.shift = shift

    def sample(self, batch: int, generator: torch.Generator) -> Float[Tensor, " b"]:
        return shift_time(torch.rand(batch, generator=generator), self.shift)
